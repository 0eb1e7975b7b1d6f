"""Schedules that follow what happens in the run: time, learning rates, metrics."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from operator import attrgetter

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule.checks import check_pairs, check_window, positive, steps
from kerneltrack.schedule.clock import Clock, RateChange
from kerneltrack.schedule.rate_steps import StepRule
from kerneltrack.schedule.schedule import Schedule, Wanted


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
    """The states around every step of a learning rate, counted from the first update at the new rate.

    Offset 0 is the state from which that update departs, which is also the last state the old rate made; offset 1 is
    one update later. A change is a step where the rate before it had held for ``held`` updates, counted from the run's first
    one, and the rate of a parameter group moves by a factor of ``by`` or more. Warm-ups, cosines and linear decays are
    trends, whether they move at every update or at every epoch: see :class:`.StepRule`. ``held=None`` is the longest of
    ``after``, but at least 10 and at most 100. After ``most`` steps no further one counts (None: all do).

    One offset of three (``pairs``) begins a pair, the last first, unless the state after it is one of the offsets: with those
    of the default the last one does. With ``pairs=0`` none does, with ``window=2`` all do.
    """

    after: tuple[int, ...] = (0, 1, 10, 100)
    window: int = 1
    held: int | None = None
    light: bool = True
    pairs: int = 3
    by: float = 1.25
    most: int | None = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", steps("OnLearningRateChange(after=…)", self.after))
        for name in ("held", "most"):
            if getattr(self, name) is not None:
                positive(f"OnLearningRateChange({name}=…)", getattr(self, name))
        _check_factor(self.by)
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

    @property
    def rule(self) -> StepRule:
        """What it calls a step."""
        return StepRule(held=self.held or max(10, min(self.after[-1], 100)), by=self.by)

    def step_rules(self) -> dict[StepRule, Wanted]:
        return {self.rule: Wanted(self.after[-1], self.most)}

    def _is_due(self, clock: Clock) -> bool:
        return any(self._is_met(clock, offset) for offset in self.after)

    def _is_met(self, clock: Clock, offset: int) -> bool:
        """Whether this is the first state at or after ``offset`` updates from a change; others than those are not looked at."""
        changes = clock.rate_changes
        first = bisect_right(changes, clock.since - offset, key=attrgetter("step"))
        last = bisect_right(changes, clock.step - offset, key=attrgetter("step"))
        return any(self._counts(changes[i]) for i in range(first, last))

    def _counts(self, change: RateChange) -> bool:
        if self.most is not None and change.number > self.most:
            return False
        return change.rule == self.rule if change.rule is not None else change.held >= self.rule.held


def _check_factor(by: float) -> None:
    if isinstance(by, bool) or not isinstance(by, (int, float)) or not 1 <= by < math.inf:
        raise ScheduleError(
            "OnLearningRateChange(by=…)",
            expected="a factor of at least 1",
            got=repr(by),
            remedy="1.25 is the default; 1 counts every change after a rate that held.",
        )


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
