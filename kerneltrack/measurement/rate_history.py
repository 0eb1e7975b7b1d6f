"""RateHistory: which changes of the learning rates a schedule may still ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kerneltrack.schedule import OnLearningRateChange, RateChange, Schedule


class RateHistory:
    """Sees the rates of every update and keeps the changes that schedules ask for, as long as they may.

    An update costs the same however long the run is, and a checkpoint holds no more than a few changes: one whose rates
    before had not held is forgotten at once, one that is too long ago with a later one.

    Args:
        schedules: all that will be asked. What :class:`OnLearningRateChange` asks for by default is kept in any case, so
            that a run which is resumed with it knows of the last changes.
    """

    def __init__(self, schedules: Iterable[Schedule]) -> None:
        horizons = [OnLearningRateChange().rate_horizon(), *(schedule.rate_horizon() for schedule in schedules)]
        self._horizon = max(horizon[0] for horizon in horizons if horizon)
        self._held = min(horizon[1] for horizon in horizons if horizon)
        self._rates: tuple[float, ...] = ()
        self._since = 0  # the first update at these rates
        self._seen = 0  # the last state that was seen
        self.changes: list[RateChange] = []

    def see(self, step: int, rates: tuple[float, ...]) -> None:
        """``rates`` are those of update ``step``."""
        if rates != self._rates:
            held = step - self._since
            if self._rates and held >= self._held:
                self._forget()
                self.changes.append(RateChange(step=step, held=held))
            self._rates, self._since = rates, step
        self._seen = step

    def _forget(self) -> None:
        """Drop what is too long ago for every state from now on, once it is half of all."""
        old = sum(change.step + self._horizon <= self._seen for change in self.changes)
        if 2 * old > len(self.changes):
            del self.changes[:old]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {
            "rates": list(self._rates),
            "since": self._since,
            "seen": self._seen,
            "changes": [[change.step, change.held] for change in self.changes],
        }

    def load_state_dict(self, memory: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._rates = tuple(memory.get("rates", ()))
        self._since, self._seen = int(memory.get("since", 0)), int(memory.get("seen", 0))
        self.changes = [RateChange(step=step, held=held) for step, held in memory.get("changes", ())]
