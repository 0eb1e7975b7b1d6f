"""forecast(): what a run would do from one of its states at the rate that it had, and at another one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerneltrack.errors import AnalysisError

from ..statements import Forecast
from ..trajectory import Run
from .asked import rate_of, updates_of
from .horizon import course, missed_per_way
from .law import Law
from .state import WHY, law_of


def forecast(
    run: Run, rate: str | float, *, steps: int | Sequence[int] = 500, at: int | None = None, kept: float | None = None
) -> Forecast:
    """As :meth:`Run.forecast`.

    Raises:
        AnalysisError: as there.
    """
    row = _row(run, at)
    own = _one_rate(run, row)
    kept = own if kept is None else rate_of(kept, own)
    changed, updates = rate_of(rate, kept), updates_of(steps)
    law = law_of(run, row, kept)
    per_way = missed_per_way(run, row, law, own)
    held, other = (course(law, each, updates, per_way, run.count) for each in (kept, changed))
    return Forecast(
        run=run.name,
        probe=run.probe,
        step=int(run.steps[row]),
        updates=updates,
        eigenvalues=law.values,
        speeds=law.speeds,
        loss=float(run.values("probe_loss")[row]),
        kept=held,
        changed=other,
        above=law.above,
        oscillation=law.oscillation,
        notes=_notes(run, law),
    )


def _row(run: Run, at: int | None) -> int:
    """The state that is asked for; None: the last one that says how far a linear model holds, else the last with a rate."""
    if at is not None:
        row = run.row(at)
        if row is None:
            raise AnalysisError(f"no snapshot at step {at}", expected=f"one of {_some(run)}", where=run.path or None)
        return row
    run.require("learning_rate", "probe_loss", why=WHY)
    known = run.measured & np.isfinite(run.learning_rates).any(axis=1) & np.isfinite(run.values("probe_loss"))
    for name in ("linearization_error", "anchored_linearization_error"):
        if name in run.dataset and (rows := np.flatnonzero(known & np.isfinite(run.values(name)))).size:
            return int(rows[np.argmax(run.steps[rows])])
    raise AnalysisError(
        "no forecast: nothing says how far a linear model holds",
        expected="linearization_error or anchored_linearization_error in a snapshot that knows its rate",
        where=run.path or None,
        remedy="Both are default observables of NTKTracker; the first is of updates that were seen.",
    )


def _some(run: Run) -> str:
    steps = sorted({int(step) for step in run.steps[run.measured]})
    return ", ".join(map(str, steps if len(steps) <= 12 else [*steps[:6], "…", *steps[-6:]]))


def _one_rate(run: Run, row: int) -> float:
    rates = {float(rate) for rate in run.learning_rates[row] if np.isfinite(rate)}
    if len(rates) != 1 or not min(rates) > 0:
        raise AnalysisError(
            "no forecast: the update that leaves the state needs one learning rate above 0 for every parameter group",
            got=sorted(rates) or "none: it was not seen",
            where=f"{run.path}, step {run.steps[row]}",
        )
    return rates.pop()


def _notes(run: Run, law: Law) -> tuple[str, ...]:
    notes = []
    if run.settings.get("stability_scope") != "exact":
        notes.append(
            "An estimate: the probe stands for the training set, and updates for those of the whole set in one batch."
        )
    if law.above:
        notes.append("A mode above the edge is taken to be held there at the rate that is kept: it goes to and fro.")
    return tuple(notes)
