"""Schedules that follow what happens in the run: time, learning rates, metrics."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from operator import attrgetter

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule.checks import check_pairs, check_window, positive, steps
from kerneltrack.schedule.clock import Clock
from kerneltrack.schedule.schedule import Schedule


@dataclass(frozen=True, repr=False)
class Seconds(Schedule):
    """The first state after every so many seconds of training (measurements not counted).

    Wall-clock schedules depend on the machine: two runs of one seed measure at different steps.
    """

    seconds: float
    window: int = 1
    light: bool = True

    def __post_init__(self) -> None:
        positive("Seconds(seconds)", self.seconds)
        check_window(self.window)

    def thinned(self, times: int) -> Seconds:
        return replace(self, seconds=self.seconds * 2**times)

    def _is_due(self, clock: Clock) -> bool:
        return clock.seconds - clock.last_seconds >= self.seconds


@dataclass(frozen=True, repr=False)
class OnLearningRateChange(Schedule):
    """The states around every change of a learning rate, counted from the first update at the new rate.

    Offset 0 is the state from which that update departs, which is also the last state the old rate made; offset 1 is
    one update later. A continuous schedule (cosine, linear) changes the rate at every update, which would make every
    state due; so a change counts only when the rate before it had held for ``held`` updates, counted from the run's first
    one. A warm-up that begins with the run is no change; a ramp later on is one, at its beginning.

    One offset of three (``pairs``) begins a pair, the last first, unless the state after it is one of the offsets: with those
    of the default the last one does. With ``pairs=0`` none does, with ``window=2`` all do.
    """

    after: tuple[int, ...] = (0, 1, 10, 100)
    window: int = 1
    held: int = 10
    light: bool = True
    pairs: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", steps("OnLearningRateChange(after=…)", self.after))
        positive("OnLearningRateChange(held=…)", self.held)
        check_window(self.window)
        pairs = check_pairs(self.pairs, self.window)
        object.__setattr__(self, "pairs", pairs if len(self.after) >= pairs else 0)

    def group_at(self, clock: Clock) -> int:
        return 2 if any(self._is_met(clock, offset) for offset in self._paired) else self.window

    @property
    def _paired(self) -> tuple[int, ...]:
        """The offsets that begin a pair: at most one of ``pairs``, and none that the next offset completes."""
        if not self.pairs:
            return ()
        alone = [offset for offset in self.after if offset + 1 not in self.after]
        return tuple(alone[:: -self.pairs][: len(self.after) // self.pairs])

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return 0  # nobody knows the changes to come; they are few, and always measured

    def rate_horizon(self) -> tuple[int, int]:
        return self.after[-1], self.held

    def _is_due(self, clock: Clock) -> bool:
        return any(self._is_met(clock, offset) for offset in self.after)

    def _is_met(self, clock: Clock, offset: int) -> bool:
        """Whether this is the first state at or after ``offset`` updates from a change; others than those are not looked at."""
        changes = clock.rate_changes
        first = bisect_right(changes, clock.since - offset, key=attrgetter("step"))
        last = bisect_right(changes, clock.step - offset, key=attrgetter("step"))
        return any(changes[i].held >= self.held for i in range(first, last))


@dataclass(frozen=True, repr=False)
class OnMetricChange(Schedule):
    """The first state at which a logged metric has moved by a factor ``by`` since the last measurement."""

    metric: str
    by: float = 2.0
    window: int = 1
    light: bool = True

    def __post_init__(self) -> None:
        if not self.by > 1:
            raise ScheduleError("OnMetricChange(by=…)", expected="a factor above 1", got=repr(self.by))
        check_window(self.window)

    def _is_due(self, clock: Clock) -> bool:
        now, then = clock.metrics.get(self.metric), clock.last_metrics.get(self.metric)
        if now is None:
            return False
        if then is None:
            return True
        if now <= 0 or then <= 0:
            return now != then and (now <= 0) != (then <= 0)
        return max(now / then, then / now) >= self.by
