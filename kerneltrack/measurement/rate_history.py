"""RateHistory: which steps of the learning rates a schedule may still ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kerneltrack.schedule import (
    OnLearningRateChange,
    RateChange,
    Schedule,
    StepDetector,
    StepRule,
    Wanted,
    wanted_of_all,
)


class RateHistory:
    """Sees the rates of every update and keeps the steps that schedules ask for, as long as they may.

    An update costs the same however long the run is, and a checkpoint holds no more than a few steps: one that is too long ago is
    forgotten with a later one.

    Args:
        schedules: all that will be asked. What :class:`OnLearningRateChange` asks for by default is kept in any case, so
            that a run which is resumed with it knows of the last steps.

    Attributes:
        changes: the steps, each by each rule, ascending.
        refused: since when a rule has had as many steps as are wanted, as a sentence; "" until then.
    """

    def __init__(self, schedules: Iterable[Schedule]) -> None:
        self._asked = wanted_of_all(schedules)
        self._wanted: dict[StepRule, Wanted] = {**OnLearningRateChange().step_rules(), **self._asked}
        self._horizon = max(wanted.horizon for wanted in self._wanted.values())
        self._detectors = {rule: StepDetector(rule) for rule in self._wanted}
        self._counts = dict.fromkeys(self._wanted, 0)
        self._seen = 0  # the last state that was seen
        self.changes: list[RateChange] = []
        self.refused = ""

    def see(self, step: int, rates: tuple[float, ...]) -> None:
        """``rates`` are those of update ``step``."""
        for rule, detector in self._detectors.items():
            if detector.see(step, rates) == "step":
                self._take(rule, step, detector.held)
        self._seen = step

    def _take(self, rule: StepRule, step: int, held: int) -> None:
        self._counts[rule] += 1
        most = self._wanted[rule].most
        if most is not None and self._counts[rule] > most:
            if rule in self._asked and self._counts[rule] == most + 1:
                self.refused = f"the step of the learning rate at {step} and all after it are not measured: most={most}"
            return
        self._forget()
        self.changes.append(RateChange(step=step, held=held, rule=rule, number=self._counts[rule]))

    def _forget(self) -> None:
        """Drop what is too long ago for every state from now on, once it is half of all."""
        old = sum(change.step + self._horizon <= self._seen for change in self.changes)
        if 2 * old > len(self.changes):
            del self.changes[:old]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {
            "seen": self._seen,
            "rules": [
                {"held": rule.held, "by": rule.by, "count": self._counts[rule], "groups": detector.state_dict()}
                for rule, detector in self._detectors.items()
            ],
            "steps": [[c.step, c.held, c.rule and [c.rule.held, c.rule.by], c.number] for c in self.changes],
        }

    def load_state_dict(self, memory: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, of this version or of one that knew no rules."""
        self._seen = int(memory.get("seen", 0))
        if "rules" not in memory:
            self._load_unruled(memory)
            return
        known = {StepRule(int(m["held"]), float(m["by"])): m for m in memory["rules"]}
        for rule, detector in self._detectors.items():
            # A rule that is new knows at least the rates, and since when.
            detector.load_state_dict(known.get(rule, memory["rules"][0])["groups"])
            self._counts[rule] = int(known[rule]["count"]) if rule in known else 0
        self.changes = [
            RateChange(step=step, held=held, rule=rule and StepRule(*rule), number=number)
            for step, held, rule, number in memory["steps"]
        ]

    def _load_unruled(self, memory: Mapping[str, Any]) -> None:
        """A checkpoint that keeps changes of any size, and the last rates of all groups together."""
        self._detectors = {rule: StepDetector.before_there_were_rules(rule, memory) for rule in self._wanted}
        self.changes = [RateChange(step=step, held=held) for step, held in memory.get("changes", ())]
