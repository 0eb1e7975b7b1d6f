"""Score: a forecast from the state before a change, beside what the run and its control then did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError

from ..derived import Change
from ..statements import Forecast
from ..text import finite_or_none
from ..trajectory import Floats, Ints, Run


@dataclass(frozen=True, eq=False)
class Score:
    """One change, forecast and measured.

    Attributes:
        forecast: from the state before the change, of the old rate and the new one.
        updates: (Q,) after the change, where run and control were measured.
        kept: (Q,) the loss on the probe of the control.
        changed: (Q,) that of the run.
    """

    forecast: Forecast
    updates: Ints
    kept: Floats
    changed: Floats

    @property
    def measured(self) -> Floats:
        """(Q,) the effect: loss of the run less that of the control."""
        return np.asarray(self.changed - self.kept)

    @property
    def predicted(self) -> Floats:
        """(Q,) what was forecast of it; NaN beyond the horizon."""
        return self._forecast(self.forecast.effect)

    @property
    def error(self) -> Floats:
        """(Q,) the error that the forecast states."""
        return self._forecast(self.forecast.effect_error)

    @property
    def ratio(self) -> Floats:
        """(Q,) predicted over measured effect."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.measured != 0, self.predicted / self.measured, np.nan))

    @property
    def within(self) -> NDArray[np.bool_]:
        """(Q,) whether they differ by no more than the stated error; False where nothing is forecast."""
        return np.asarray(np.abs(self.predicted - self.measured) <= self.error)

    @property
    def last(self) -> int | None:
        """The index of the last update that is within the horizon; None where none is."""
        known = np.flatnonzero(np.isfinite(self.predicted + self.measured))
        return int(known[-1]) if known.size else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become None."""
        columns = {"predicted_effect": self.predicted, "stated_error": self.error, "measured_effect": self.measured}
        columns |= {"predicted_over_measured": self.ratio, "run_loss": self.changed, "control_loss": self.kept}
        return {
            "step": self.forecast.step,
            "rates": [self.forecast.kept.rate, self.forecast.changed.rate],
            "updates": [int(k) for k in self.updates],
            **{name: [finite_or_none(v) for v in values] for name, values in columns.items()},
            "within_stated_error": [bool(w) for w in self.within],
            "horizon": self.forecast.horizon,
            "reason": self.forecast.kept.reason or self.forecast.changed.reason or None,
        }

    def _forecast(self, values: Floats) -> Floats:
        return np.asarray([values[self.forecast.at(int(k))] for k in self.updates])


def score(run: Run, control: Run, change: Change) -> Score:
    """The forecast of a change, scored by a control that shares the state before it.

    Raises:
        AnalysisError: as :meth:`Run.forecast`; or run and control were measured at no common step after the change.
    """
    if not change.exact:
        raise AnalysisError(f"the change lies somewhere in steps {change.earliest} to {change.step}")
    run.require("probe_loss", why="the score of a forecast")
    control.require("probe_loss", why="the score of a forecast")
    rows = _common(run, control, change)
    if not rows:
        raise AnalysisError("run and control were measured at no common step after the change")
    updates = [int(run.steps[mine]) - change.step for mine, _ in rows]
    found = run.forecast(_only(change.new), steps=updates, at=int(run.steps[change.before]), kept=_only(change.old))
    losses = [(control.values("probe_loss")[theirs], run.values("probe_loss")[mine]) for mine, theirs in rows]
    kept, changed = np.array(losses).T
    return Score(found, np.array(updates, dtype=np.int64), kept, changed)


def _common(run: Run, control: Run, change: Change) -> list[tuple[int, int]]:
    """Rows of run and control at one step, from the change to the last state that its rates made."""
    last = int(run.steps[change.after[-1]])
    steps = sorted({int(s) for s in run.steps[run.measured] if change.step < s <= last})
    found = [(run.row(step), control.row(step)) for step in steps]
    losses = run.values("probe_loss"), control.values("probe_loss")
    return [(a, b) for a, b in found if a is not None and b is not None and np.isfinite(losses[0][a] + losses[1][b])]


def _only(rates: tuple[float, ...]) -> float:
    if len(set(rates)) != 1:
        raise AnalysisError("no forecast: parameter groups have different learning rates", got=list(rates))
    return rates[0]
