"""Schedule: what says of a moment whether its state is to be measured; and unions of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from kerneltrack.errors import ScheduleError
from kerneltrack.schedule.clock import Clock, Due
from kerneltrack.schedule.rate_steps import StepRule


@dataclass(frozen=True)
class Wanted:
    """How many steps of the learning rates are of interest, and for how long.

    Attributes:
        horizon: the last update after one at which it still is.
        most: how many; None: all.
    """

    horizon: int
    most: int | None

    def __or__(self, other: Wanted) -> Wanted:
        most = None if self.most is None or other.most is None else max(self.most, other.most)
        return Wanted(max(self.horizon, other.horizon), most)


class Schedule:
    """The states to measure. Subclasses implement :meth:`_is_due`; a frozen dataclass also prints as it is written.

    ``window=2`` measures pairs, a state and the one that the next update makes, ``window=3`` triples: at the edge of
    stability everything oscillates with period 2, and a schedule of even steps alone would see one phase only. The later
    states of a group are *light*, unless ``light=False``: of the second the kernel, the outputs and what follows from both
    without eigenpairs, of the third the outputs alone. A state within a group begins none.
    """

    window: int = 1
    light: bool = True

    def due(self, clock: Clock) -> Due | None:
        """Whether the state at ``clock`` is to be measured, and on whose behalf."""
        return Due(str(self), self.group_at(clock), self.light) if self._is_due(clock) else None

    def group_at(self, clock: Clock) -> int:
        """How many consecutive states begin with the one at ``clock``, which is due."""
        del clock
        return self.window

    def thinned(self, times: int) -> Schedule:
        """The same schedule on a grid halved ``times`` times; its steps are a subset, so runs nest.

        What is not a grid (explicit steps, learning-rate changes) stays as it is.
        """
        del times
        return self

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        """How many states of the grid lie in start ≤ t < stop, with those of its groups; None where steps alone do not say.

        Args:
            start: the first step that counts.
            stop: the first that does not.
            per_epoch: updates in an epoch, where that is known.
        """
        del start, stop, per_epoch
        return None

    def count_light(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        """How many of these are light, as far as they can be counted."""
        if not self.light or self.window == 1:
            return 0
        return (self.count(start, stop, per_epoch=per_epoch) or 0) * (self.window - 1) // self.window

    @property
    def elements(self) -> tuple[Schedule, ...]:
        """The schedules that this one is a union of; itself where it is none."""
        return (self,)

    def step_rules(self) -> dict[StepRule, Wanted]:
        """What it takes for a step of the learning rates, and for how long each is of interest; {} where none is."""
        return {}

    def _is_due(self, clock: Clock) -> bool:
        raise NotImplementedError

    def __or__(self, other: Schedule) -> Schedule:
        if not isinstance(other, Schedule):
            raise ScheduleError(
                f"{self} | {other!r}", expected="a schedule on either side", got=repr(other), remedy="Every(5), not 5."
            )
        return Union((*self.elements, *other.elements))

    def __str__(self) -> str:
        """As it is written: positional first field, then what differs from the default; attributes of another class.

        How many moments begin a pair, and what a step of the rate is, is always said: an archive that does not say it was
        written when none did, and every change was one.
        """
        parts: list[str] = []
        if not is_dataclass(self):
            shown = (f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
            return f"{type(self).__name__}({', '.join(shown)})"
        for position, entry in enumerate(fields(self)):
            value = getattr(self, entry.name)
            if position == 0 and entry.name != "after":
                parts.append(repr(value))
            elif position == 0 or self._says(entry.name, value, entry.default):
                parts.append(f"{entry.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _says(self, name: str, value: Any, default: Any) -> bool:
        """Whether a field is printed; how many moments begin a pair is not where the default would give none either."""
        if name == "pairs" and is_dataclass(self):
            return bool(value) or replace(self, pairs=default) != self
        return (name == "by" and hasattr(self, "held")) or bool(value != default)

    __repr__ = __str__


def wanted_of_all(schedules: Iterable[Schedule]) -> dict[StepRule, Wanted]:
    """What schedules want of the steps by each rule, together."""
    found: dict[StepRule, Wanted] = {}
    for schedule in schedules:
        for rule, wanted in schedule.step_rules().items():
            found[rule] = found[rule] | wanted if rule in found else wanted
    return found


@dataclass(frozen=True, repr=False)
class Union(Schedule):
    """Whenever one of its members is due; written ``a | b``."""

    members: tuple[Schedule, ...]

    @property
    def elements(self) -> tuple[Schedule, ...]:
        return tuple(element for member in self.members for element in member.elements)

    def due(self, clock: Clock) -> Due | None:
        found = [due for member in self.members if (due := member.due(clock))]
        if not found:
            return None
        longest = max(found, key=lambda due: (due.window, not due.light))
        return replace(longest, trigger=" | ".join(due.trigger for due in found))

    def count(self, start: int, stop: int, *, per_epoch: float | None = None) -> int | None:
        counts = [member.count(start, stop, per_epoch=per_epoch) for member in self.members]
        return None if None in counts else sum(c for c in counts if c is not None)

    def count_light(self, start: int, stop: int, *, per_epoch: float | None = None) -> int:
        return sum(member.count_light(start, stop, per_epoch=per_epoch) for member in self.members)

    def step_rules(self) -> dict[StepRule, Wanted]:
        return wanted_of_all(self.members)

    def thinned(self, times: int) -> Union:
        return Union(tuple(member.thinned(times) for member in self.members))

    def __str__(self) -> str:
        return " | ".join(str(member) for member in self.members)

    __repr__ = __str__
