"""Pace: which states of a run are measured, and how the grids thin out so that measuring stays below a share of its time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from kerneltrack.measurement.rate_history import RateHistory
from kerneltrack.schedule import Clock, Due, Extent, Schedule


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A group of consecutive states that is not complete.

    Attributes:
        first: the step of its first state.
        size: how many it is to have.
        light: whether those after the first are light.
        taken: how many it has.
    """

    first: int
    size: int
    light: bool
    taken: int = 1

    def next(self, trigger: str) -> Due:
        """What is to be measured of its next state, where nothing else asks for that."""
        place = {1: "second", 2: "third"}[self.taken]
        what = "pair" if self.size == 2 else "triple"
        extent: Extent = "whole" if not self.light else "kernel" if self.taken == 1 else "outputs"
        return Due(f"{trigger}, {place} of a {what}", extent=extent)


class Pace:
    """Queries each probe's schedule and remembers when it was last due.

    Args:
        schedules: by probe name.
        max_overhead: the share of wall time that measuring may take, or None. Grids are halved, never refined again, so
            that the steps of runs nest; step 0, the last state and the states around a rate change stay.
        horizon: the step at which the run will end, where that is known.
        per_epoch: updates in an epoch, where that is known.
    """

    def __init__(
        self,
        schedules: Mapping[str, Schedule],
        *,
        max_overhead: float | None = None,
        horizon: int | None = None,
        per_epoch: float | None = None,
    ) -> None:
        self.schedules = dict(schedules)
        self.max_overhead = max_overhead
        self.thinned = 0
        self._horizon, self._per_epoch = horizon, per_epoch
        self._skipped = 0
        self._marks: dict[str, tuple[float, dict[str, float]]] = {}  # by probe, clock and metrics when it was last due
        self._groups: dict[str, _Group] = {}  # by probe, the group that is not complete
        self._asked: tuple[int, int] | None = None  # step and epoch of the state that was asked last
        self._rates = RateHistory(self.schedules.values())
        self._told_refusal = ""

    def due(self, clock: Clock) -> dict[str, Due]:
        """The probes to measure at this moment, each with what asked for it; step 0 is always measured.

        Every state is asked once and in order, whether or not it is measured: the next one must know which it comes after.
        """
        found: dict[str, Due] = {}
        clock = self._told(clock)
        for name, schedule in self.schedules.items():
            seconds, metrics = self._marks.get(name, (-math.inf, {}))
            own = replace(clock, last_seconds=seconds, last_metrics=metrics)
            due = schedule.thinned(self.thinned).due(own)
            self._skipped += due is None and self.thinned > 0 and schedule.due(own) is not None
            if due is None and clock.step == 0:
                due = Due("first")
            if due is None and name in self._groups:
                due = self._groups[name].next(str(schedule))
            if due is not None:
                found[name] = due
                self._marks[name] = (clock.seconds, dict(clock.metrics))
        return found

    def _told(self, clock: Clock) -> Clock:
        """The clock with what earlier states say: which was asked before, and how the rates have changed."""
        if clock.learning_rates:
            self._rates.see(clock.step, clock.learning_rates)
        step, epoch = self._asked or (clock.previous, clock.previous_epoch)
        self._asked = clock.step, clock.epoch
        return replace(clock, previous=step, previous_epoch=epoch, rate_changes=self._rates.changes)

    def group(self, due: Mapping[str, Due], step: int) -> tuple[int, int]:
        """Which state of a group this moment is, from 0, and how many updates after the group's first; of several the largest.

        A state within a group begins none: what it begins is completed by the next ones.
        """
        window = lag = 0
        for name, found in due.items():
            group = self._groups.pop(name, None)
            if group is not None:
                window, lag = max(window, group.taken), max(lag, step - group.first)
                if group.taken + 1 < group.size:
                    self._groups[name] = replace(group, taken=group.taken + 1)
            elif found.window > 1:
                self._groups[name] = _Group(first=step, size=found.window, light=found.light)
        return window, lag

    def halvings(self, step: int, training: float, measuring: float, rows: int) -> int:
        """How often the grids must be halved so that what is to come keeps within ``max_overhead`` of the whole run.

        With T the last step, s seconds of training a step, c seconds a row and n rows to come, the last state's among them,
        the share is (spent + c·n) / (T·s + spent + c·n). Without a known end, T is twice the steps so far.

        Args:
            step: steps so far, at least one.
            training: seconds that they took.
            measuring: seconds that measuring took, ``spent``.
            rows: how many were measured.
        """
        if self.max_overhead is None:
            return self.thinned
        horizon = self._horizon or 2 * step
        whole, each = horizon * training / step, measuring / rows
        for times in range(self.thinned, 40):
            to_come = (self._between(times, step + 1, horizon) or 0) + 1  # the last state is measured in any case
            expected = measuring + each * to_come
            if expected <= self.max_overhead * (whole + expected):
                break
        return times

    @property
    def states(self) -> int | None:
        """How many states the schedules ask for in the whole run; None where its end is unknown."""
        return self.states_from(0)

    @property
    def light_states(self) -> int:
        """How many of them are light, as far as they can be counted."""
        return self.light_states_from(0)

    def states_from(self, step: int) -> int | None:
        """The same of a run that goes on at a step, that step's own state among them."""
        return None if self._horizon is None else self._between(0, step, self._horizon)

    def light_states_from(self, step: int) -> int:
        """How many of these are light."""
        return sum(s.count_light(step, self._horizon or 0, per_epoch=self._per_epoch) for s in self._distinct)

    def share(self, whole: float, light: float, update: float) -> float | None:
        """The share of measuring in a run that measures every state of the schedules; None where its end is unknown.

        Args:
            whole: seconds of a state.
            light: seconds of a light one.
            update: seconds of an update.
        """
        if self.states is None or self._horizon is None:
            return None
        measuring = whole * (self.states - self.light_states) + light * self.light_states
        return measuring / (measuring + update * self._horizon)

    @property
    def _distinct(self) -> list[Schedule]:
        """Each schedule once: probes of one schedule are measured in the same rows."""
        found: list[Schedule] = []
        for schedule in self.schedules.values():
            found += [] if schedule in found else [schedule]
        return found

    def _between(self, times: int, start: int, stop: int) -> int | None:
        """States of the grids, halved so many times, from ``start`` on; None where a schedule cannot be counted."""
        counts = [s.thinned(times).count(start, stop, per_epoch=self._per_epoch) for s in self._distinct]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def refused(self) -> str:
        """From which step of the rates on they are not measured any more, as a sentence; "" where they are."""
        return self._rates.refused

    def newly_refused(self) -> str:
        """The same, once."""
        new = self.refused if self.refused != self._told_refusal else ""
        self._told_refusal = self.refused
        return new

    def skipped(self) -> str:
        """What was skipped since the last call, and why; "" if nothing."""
        left_out, self._skipped = self._skipped, 0
        if not left_out:
            return ""
        thinner = " and ".join(dict.fromkeys(str(s.thinned(self.thinned)) for s in self.schedules.values()))
        return f"skipped {left_out} states for max_overhead={self.max_overhead}: now {thinner}"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: the last state asked, when each probe was due, open groups, halvings, changes of rates."""
        return {
            "marks": {name: list(mark) for name, mark in self._marks.items()},
            "groups": {name: asdict(group) for name, group in sorted(self._groups.items())},
            "thinned": self.thinned,
            "asked": None if self._asked is None else list(self._asked),
            "rates": self._rates.state_dict(),
        }

    def load_state_dict(self, memory: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        marks = memory.get("marks", {})
        self._marks = {name: (float(seconds), dict(metrics)) for name, (seconds, metrics) in marks.items()}
        step_and_epoch = memory.get("asked")
        self._asked = None if step_and_epoch is None else (int(step_and_epoch[0]), int(step_and_epoch[1]))
        self._rates.load_state_dict(memory.get("rates", {}))
        self._groups = {name: _Group(**group) for name, group in memory.get("groups", {}).items()}
        self.thinned = int(memory.get("thinned", 0))
