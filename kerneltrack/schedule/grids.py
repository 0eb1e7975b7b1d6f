"""Schedules whose points are known before the run: grids of steps and of epochs."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule.checks import check_pairs, check_window, positive, steps
from kerneltrack.schedule.clock import Clock
from kerneltrack.schedule.schedule import Schedule


@dataclass(frozen=True, repr=False)
class Every(Schedule):
    """The states before updates 0, n, 2n, …, each or the first one after it."""

    n: int
    window: int = 1
    light: bool = True

    def __post_init__(self) -> None:
        positive("Every(n)", self.n)
        check_window(self.window)

    def thinned(self, times: int) -> Every:
        return replace(self, n=self.n << times)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return self.window * max(0, -(-stop // self.n) - -(-start // self.n))

    def _is_due(self, clock: Clock) -> bool:
        return clock.step // self.n > clock.since // self.n


@dataclass(frozen=True, repr=False)
class Log(Schedule):
    """States evenly spread in log t: step 0 and the steps round(2^(j/per_octave)), j = 0, 1, 2, …

    The default, two per doubling, is 41 states in a million updates: dense where a kernel moves fast. Every third point
    (j a multiple of ``pairs``) begins a pair, which costs nothing where the next update's state is a point itself; with
    ``pairs=0`` none does, with ``window=2`` all do.
    """

    per_octave: float = 2
    window: int = 1
    light: bool = True
    pairs: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.per_octave <= 64:
            raise ScheduleError(
                "Log(per_octave)",
                expected="a number in (0, 64]",
                got=repr(self.per_octave),
                remedy="Two states per doubling of t is the default.",
            )
        check_window(self.window)
        object.__setattr__(self, "pairs", check_pairs(self.pairs, self.window))

    def thinned(self, times: int) -> Log:
        return replace(self, per_octave=self.per_octave / 2**times)

    def group_at(self, clock: Clock) -> int:
        point = self._last_point(clock.step, every=self.pairs) if self.pairs else 0
        return 2 if point > 1 and clock.reaches(point) else self.window

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return self.window * len(self._points(start, stop)) + self._count_pairs(start, stop)

    def count_light(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return super().count_light(start, stop) if self.window > 1 else self.light * self._count_pairs(start, stop)

    def _count_pairs(self, start: int, stop: int) -> int:
        """How many points begin a pair of which the second state is no point."""
        if not self.pairs:
            return 0
        points = self._points(start, stop)
        return sum(p == self._last_point(p, every=self.pairs) > 1 and p == self._last_point(p + 1) for p in points)

    def _points(self, start: int, stop: int) -> list[int]:
        octaves = math.log2(max(stop, 1)) if stop > 0 else 0
        grid = {0} | {round(2 ** (j / self.per_octave)) for j in range(math.ceil(octaves * self.per_octave) + 1)}
        return sorted(step for step in grid if start <= step < stop)

    def _is_due(self, clock: Clock) -> bool:
        return clock.reaches(self._last_point(clock.step))

    def _last_point(self, step: int, *, every: int = 1) -> int:
        """The last point of the grid that is not after ``step``; of those alone whose j is a multiple of ``every``."""
        if step < 1:
            return 0
        # What rounds to step or less is at most step + ½; the neighbours make up for the rounding of the logarithm.
        j = math.floor(math.log2(step + 0.5) * self.per_octave) // every
        points = (round(2 ** (i * every / self.per_octave)) for i in (j - 1, j, j + 1) if i >= 0)
        return max(point for point in points if point <= step)


@dataclass(frozen=True, repr=False)
class Epochs(Schedule):
    """The first state of every n-th epoch, counted from epoch 0, or the first one after its beginning.

    A state belongs to the epoch in which the batches of its update begin.
    """

    n: int = 1
    window: int = 1
    light: bool = True

    def __post_init__(self) -> None:
        positive("Epochs(n)", self.n)
        check_window(self.window)

    def thinned(self, times: int) -> Epochs:
        return replace(self, n=self.n << times)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        if per_epoch is None:
            return None
        first, last = (math.ceil(step / (per_epoch * self.n)) for step in (start, stop))
        return self.window * max(0, last - first)

    def _is_due(self, clock: Clock) -> bool:
        if clock.previous_epoch is None:
            return clock.starts_epoch and clock.epoch % self.n == 0
        return clock.epoch // self.n > clock.previous_epoch // self.n


@dataclass(frozen=True, repr=False)
class At(Schedule):
    """These steps, each or the first state after it."""

    steps: tuple[int, ...]
    window: int = 1
    light: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", steps("At(steps)", self.steps))
        check_window(self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return self.window * sum(start <= step < stop for step in self.steps)

    def _is_due(self, clock: Clock) -> bool:
        met = bisect_right(self.steps, clock.step)
        return met > 0 and clock.reaches(self.steps[met - 1])
