"""When to measure: schedules are values that print as they are written. Pure Python, no torch.

A schedule looks at a :class:`Clock`, the moment *before* an update, and says whether that state is to be measured. It
keeps no state of its own, so a resumed run follows the same schedule as an uninterrupted one. Steps count optimizer
updates: the state at step t is what t updates have made.

>>> schedule = Every(100) | OnLearningRateChange(after=(0, 1))
>>> schedule
Every(100) | OnLearningRateChange(after=(0, 1))
>>> [t for t in range(301) if schedule.due(Clock(step=t, rate_changes=(150,)))]
[0, 100, 150, 151, 200, 300]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kerneltrack.errors import ScheduleError


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What a schedule may know at the moment before update ``step``.

    Attributes:
        step: optimizer updates applied so far.
        epoch: the epoch that the coming update belongs to, counted from 0.
        starts_epoch: whether no update of this epoch has happened yet.
        rate_changes: the steps whose update was (or will be) the first at a new learning rate, ascending.
        seconds: seconds of training so far, measurements not counted.
        last_seconds: the value of ``seconds`` at the last measurement; -inf before the first.
        metrics: the trainer's logged metrics.
        last_metrics: the same at the last measurement.
    """

    step: int
    epoch: int = 0
    starts_epoch: bool = False
    rate_changes: tuple[int, ...] = ()
    seconds: float = 0.0
    last_seconds: float = -math.inf
    metrics: Mapping[str, float] = field(default_factory=dict)
    last_metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """A state is to be measured: which schedule asked, and how many consecutive states (2 for a pair)."""

    trigger: str
    window: int = 1


class Schedule:
    """The states to measure. Subclasses are frozen dataclasses that implement :meth:`_is_due`.

    ``window=2`` measures pairs (t, t+1): at the edge of stability everything oscillates with period 2, and a schedule
    of even steps alone would see one phase only.
    """

    window: int = 1

    def due(self, clock: Clock) -> Due | None:
        """Whether the state at ``clock`` is to be measured, and on whose behalf."""
        return Due(str(self), self.window) if self._is_due(clock) else None

    def thinned(self, times: int) -> Schedule:
        """The same schedule on a grid halved ``times`` times; its steps are a subset, so runs nest.

        What is not a grid (explicit steps, learning-rate changes) stays as it is.
        """
        del times
        return self

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        """How many states of the grid lie in start ≤ t < stop; None where steps alone do not say.

        Args:
            start: the first step that counts.
            stop: the first that does not.
            per_epoch: updates in an epoch, where that is known.
        """
        del start, stop, per_epoch
        return None

    def _is_due(self, clock: Clock) -> bool:
        raise NotImplementedError

    def __or__(self, other: Schedule) -> Schedule:
        return Union((*_members(self), *_members(other)))

    def __str__(self) -> str:
        """As it is written: positional first field, then only what differs from the default."""
        parts = []
        for position, entry in enumerate(fields(self)):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, entry.name)
            if position == 0 and entry.name != "after":
                parts.append(repr(value))
            elif position == 0 or value != entry.default:
                parts.append(f"{entry.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Every(Schedule):
    """The states before updates 0, n, 2n, …"""

    n: int
    window: int = 1

    def __post_init__(self) -> None:
        _positive("Every(n)", self.n)
        _check_window(self.window)

    def thinned(self, times: int) -> Every:
        return Every(self.n << times, self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return self.window * max(0, -(-stop // self.n) - -(-start // self.n))

    def _is_due(self, clock: Clock) -> bool:
        return clock.step % self.n == 0


@dataclass(frozen=True, repr=False)
class Log(Schedule):
    """States evenly spread in log t: step 0 and the steps round(2^(j/per_octave)), j = 0, 1, 2, …

    The default, two per doubling, is 41 states in a million updates: dense where a kernel moves fast.
    """

    per_octave: float = 2
    window: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.per_octave <= 64:
            raise ScheduleError(
                "Log(per_octave)",
                expected="a number in (0, 64]",
                got=repr(self.per_octave),
                remedy="Two states per doubling of t is the default.",
            )
        _check_window(self.window)

    def thinned(self, times: int) -> Log:
        return Log(self.per_octave / 2**times, self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        octaves = math.log2(max(stop, 1)) if stop > 0 else 0
        grid = {0} | {round(2 ** (j / self.per_octave)) for j in range(math.ceil(octaves * self.per_octave) + 1)}
        return self.window * sum(start <= step < stop for step in grid)

    def _is_due(self, clock: Clock) -> bool:
        if clock.step == 0:
            return True
        # The grid point nearest in log t; round() makes it exact for every integer, ties included.
        j = round(math.log2(clock.step) * self.per_octave)
        return any(i >= 0 and round(2 ** (i / self.per_octave)) == clock.step for i in (j - 1, j, j + 1))


@dataclass(frozen=True, repr=False)
class Epochs(Schedule):
    """The first state of every n-th epoch, counted from epoch 0."""

    n: int = 1
    window: int = 1

    def __post_init__(self) -> None:
        _positive("Epochs(n)", self.n)
        _check_window(self.window)

    def thinned(self, times: int) -> Epochs:
        return Epochs(self.n << times, self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        if per_epoch is None:
            return None
        first, last = (math.ceil(step / (per_epoch * self.n)) for step in (start, stop))
        return self.window * max(0, last - first)

    def _is_due(self, clock: Clock) -> bool:
        return clock.starts_epoch and clock.epoch % self.n == 0


@dataclass(frozen=True, repr=False)
class At(Schedule):
    """Exactly these steps."""

    steps: tuple[int, ...]
    window: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _steps("At(steps)", self.steps))
        _check_window(self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return self.window * sum(start <= step < stop for step in self.steps)

    def _is_due(self, clock: Clock) -> bool:
        return clock.step in self.steps


@dataclass(frozen=True, repr=False)
class Seconds(Schedule):
    """The first state after every so many seconds of training (measurements not counted).

    Wall-clock schedules depend on the machine: two runs of one seed measure at different steps.
    """

    seconds: float
    window: int = 1

    def __post_init__(self) -> None:
        _positive("Seconds(seconds)", self.seconds)
        _check_window(self.window)

    def thinned(self, times: int) -> Seconds:
        return Seconds(self.seconds * 2**times, self.window)

    def _is_due(self, clock: Clock) -> bool:
        return clock.seconds - clock.last_seconds >= self.seconds


@dataclass(frozen=True, repr=False)
class OnLearningRateChange(Schedule):
    """The states around every change of a learning rate, counted from the first update at the new rate.

    Offset 0 is the state from which that update departs, which is also the last state the old rate made; offset 1 is
    one update later. A continuous schedule (cosine, linear) changes the rate at every update, which would make every
    state due; so a change counts only when the rate before it had held for ``held`` updates.
    """

    after: tuple[int, ...] = (0, 1, 10, 100)
    window: int = 1
    held: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", _steps("OnLearningRateChange(after=…)", self.after))
        _positive("OnLearningRateChange(held=…)", self.held)
        _check_window(self.window)

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return 0  # changes to come are unknown; they are few, and always measured

    def _is_due(self, clock: Clock) -> bool:
        previous = -math.inf
        for change in clock.rate_changes:
            if change - previous >= self.held and clock.step - change in self.after:
                return True
            previous = change
        return False


@dataclass(frozen=True, repr=False)
class OnMetricChange(Schedule):
    """The first state at which a logged metric has moved by a factor ``by`` since the last measurement."""

    metric: str
    by: float = 2.0
    window: int = 1

    def __post_init__(self) -> None:
        if not self.by > 1:
            raise ScheduleError("OnMetricChange(by=…)", expected="a factor above 1", got=repr(self.by))
        _check_window(self.window)

    def _is_due(self, clock: Clock) -> bool:
        now, then = clock.metrics.get(self.metric), clock.last_metrics.get(self.metric)
        if now is None:
            return False
        if then is None:
            return True
        if now <= 0 or then <= 0:
            return now != then and (now <= 0) != (then <= 0)
        return max(now / then, then / now) >= self.by


@dataclass(frozen=True, repr=False)
class Union(Schedule):
    """Whenever one of its members is due; written ``a | b``."""

    members: tuple[Schedule, ...]

    def due(self, clock: Clock) -> Due | None:
        found = [due for member in self.members if (due := member.due(clock))]
        if not found:
            return None
        return Due(" | ".join(due.trigger for due in found), max(due.window for due in found))

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        counts = [member.count(start, stop, per_epoch=per_epoch) for member in self.members]
        return None if None in counts else sum(c for c in counts if c is not None)

    def thinned(self, times: int) -> Union:
        return Union(tuple(member.thinned(times) for member in self.members))

    def __str__(self) -> str:
        return " | ".join(str(member) for member in self.members)

    __repr__ = __str__


def parse(value: int | str | Schedule) -> Schedule:
    """The schedule that an argument means: an int n, "log", "epoch", or a schedule.

    Raises:
        ScheduleError: for anything else.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Every(value)
    if value == "log":
        return Log()
    if value == "epoch":
        return Epochs()
    raise ScheduleError(
        "schedule",
        expected='an int n, "log", "epoch" or a kerneltrack.schedule object',
        got=repr(value),
        remedy="For example schedule=100, or schedule=kt.schedule.Log() | kt.schedule.OnLearningRateChange().",
    )


def _members(schedule: Schedule) -> tuple[Schedule, ...]:
    return schedule.members if isinstance(schedule, Union) else (schedule,)


def _positive(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ScheduleError(what, expected="a positive number", got=repr(value))


def _check_window(window: int) -> None:
    if window not in (1, 2):
        raise ScheduleError("window", expected="1, or 2 for pairs (t, t+1)", got=repr(window))


def _steps(what: str, steps: Any) -> tuple[int, ...]:
    values = tuple(steps)
    if not values or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in values):
        raise ScheduleError(what, expected="one or more steps, integers from 0", got=repr(steps))
    return tuple(sorted(set(values)))
