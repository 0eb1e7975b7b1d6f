"""StepDetector: which changes of the learning rates are steps, and which belong to a trend; decided as the updates come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: What a change of the rates is: a step; the first fall of a trend (a cosine, a linear decay); or anything else.
Kind = Literal["step", "decay", "other"]

#: A trend goes on with a change that is less than so many times the one before, by |Δ log η|. Of a cosine that is stepped once
#: an epoch the largest such ratio is 3 at its second change, below 2 from the third on.
_GROWTH = 2.0
#: How many changes in one direction make a trend that a large change may belong to. Two: a cosine's first two are small ones.
_TREND = 2
#: A trend goes on where the rate held at most so many times as long as before its last change; else it had ended.
_CADENCE = 2
#: log 1.25 of a rate that is stored as a decimal number is met but for its last digit.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class StepRule:
    """What is called a step of a learning rate.

    A step has a rate before it that held for ``held`` updates, counted from the run's first one, and |Δ log η| ≥ log ``by``, in
    any parameter group. A change that goes on with a trend is none, however large: two changes or more in the same direction came
    before it, none of them a step, at the same cadence, and it is not much larger than the last of them. (Towards its end a
    cosine halves the rate from one epoch to the next.)

    ``by`` = 1 is the rule of archives from before there was one: every change of any rate, where all had held.
    """

    held: int
    by: float

    @property
    def is_plain(self) -> bool:
        """Whether every change counts, whatever its size."""
        return self.by <= 1


@dataclass
class _Group:
    """One parameter group: its rate, since which update, and its last change.

    Attributes:
        rate: η.
        since: the first update at it.
        fell: whether the last change was a fall.
        size: |Δ log η| of it.
        moved: |Δη| of it.
        held: for how many updates the rate before it had held.
        trend: how many changes in that direction up to the last one were no steps; 0 after a step.
    """

    rate: float
    since: int = 0
    fell: bool = False
    size: float = 0.0
    moved: float = 0.0
    held: int = 0
    trend: int = 0


class StepDetector:
    """Sees the rates of every update once, in order, and says of each change what it is.

    >>> detector = StepDetector(StepRule(held=10, by=1.25))
    >>> [t for t in range(60) if detector.see(t, (0.1 if t < 30 else 0.01,)) == "step"]
    [30]
    """

    def __init__(self, rule: StepRule) -> None:
        self.rule = rule
        self.held = 0  # of the last change: the longest that a group's old rate had held
        self._groups: list[_Group] = []
        self._last: tuple[float, ...] | None = None

    def see(self, step: int, rates: tuple[float, ...]) -> Kind | None:
        """What happened to the rates before update ``step``; None: nothing."""
        if rates == self._last:
            return None
        self._last = rates
        if len(rates) != len(self._groups):  # another group, or the first look: no rate has changed
            known = self._groups[: len(rates)]
            self._groups = known + [_Group(rate, step if known else 0) for rate in rates[len(known) :]]
        changed = [(group, new) for group, new in zip(self._groups, rates, strict=True) if group.rate != new]
        if not changed:
            return None
        together = max(group.since for group in self._groups)
        held = [step - (together if self.rule.is_plain else group.since) for group, _ in changed]
        kinds = [self._change(group, new, h) for (group, new), h in zip(changed, held, strict=True)]
        for group, new in changed:
            group.rate, group.since = new, step
        kind: Kind = "step" if "step" in kinds else "decay" if "decay" in kinds else "other"
        self.held = max(h for h, found in zip(held, kinds, strict=True) if found == kind)
        return kind

    def _change(self, group: _Group, new: float, held: int) -> Kind:
        """What this change is; the group remembers it, but for its rate."""
        fell, moved = new < group.rate, abs(new - group.rate)
        size = abs(math.log(new / group.rate)) if new > 0 and group.rate > 0 else math.inf
        lasts = group.trend > 0 and fell == group.fell and held <= _CADENCE * group.held
        steady = size < _GROWTH * group.size or moved <= group.moved * (1 + _ROUNDING)
        goes_on = not self.rule.is_plain and lasts and steady and group.trend >= _TREND
        large = size >= math.log(self.rule.by) * (1 - _ROUNDING)
        step = held >= self.rule.held and large and not goes_on
        follows = group.trend > 0 and fell == group.fell and (held <= _CADENCE * group.held or held < self.rule.held)
        group.trend = 0 if step else group.trend + 1 if follows else 1
        group.fell, group.size, group.moved, group.held = fell, size, moved, held
        return "step" if step else "decay" if fell and not follows else "other"

    def state_dict(self) -> list[list[float]]:
        """What a resumed run must know, a list for each group."""
        return [[g.rate, g.since, g.fell, g.size, g.moved, g.held, g.trend] for g in self._groups]

    def load_state_dict(self, groups: Iterable[Iterable[Any]]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._groups = [_Group(*group) for group in groups]

    @classmethod
    def before_there_were_rules(cls, rule: StepRule, memory: Mapping[str, Any]) -> StepDetector:
        """A detector that goes on with a checkpoint that knows the last rates, and since when all of them held."""
        found = cls(rule)
        found._groups = [_Group(float(rate), int(memory.get("since", 0))) for rate in memory.get("rates", ())]
        return found
