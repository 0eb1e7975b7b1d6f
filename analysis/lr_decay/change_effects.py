"""What followed one change of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..derived import Change, ModeFactors
from ..forecasting import Score
from .null import Null
from .time_point import TimePoint


@dataclass(frozen=True)
class ChangeEffects:
    """One change with the moments around it.

    Attributes:
        change: where and from what to what.
        before: the last state that the old rates made.
        after: what followed, ascending in offset.
        factors: the first update at the new rate, mode by mode; None where ``no_factors`` says why.
        no_factors: why there is no prediction.
        no_control: "" where ``after`` has a control, else why not.
        null: what other batches alone do after it.
        score: the forecast from the state before, beside what run and control did; None where ``no_score`` says why.
        no_score: why nothing is scored.
    """

    change: Change
    before: TimePoint
    after: tuple[TimePoint, ...]
    factors: ModeFactors | None = None
    no_factors: str = ""
    no_control: str = ""
    null: Null = field(default_factory=lambda: Null("missing"))
    score: Score | None = None
    no_score: str = ""

    @property
    def has_control(self) -> bool:
        """Whether the differences may be called effects of the change."""
        return not self.no_control

    def tells(self, m: TimePoint, name: str) -> bool:
        """Whether the difference to the control at a moment is more than other batches alone make."""
        return self.has_control and name in m.difference and self.null.tells(m.step, name, m.difference[name])

    @property
    def target_moves(self) -> dict[int, float]:
        """E(y, k) at the last moment less that before the change, by k, where both are known; 1 less 1 is left out."""
        start, end = self.before.numbers, self.after[-1].numbers
        names = [name for name in start if name.startswith("target_energy_") and name in end]
        moves = {int(name.rpartition("_")[2]): end[name] - start[name] for name in names if start[name] < 1 - 1e-12}
        return {k: move for k, move in sorted(moves.items()) if np.isfinite(move)}
