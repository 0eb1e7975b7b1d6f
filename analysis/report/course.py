"""course(): the numbers of a run that a finding is about, as pairs of step and value for a sparkline."""

from __future__ import annotations

import numpy as np

from ..trajectory import Floats, Ints, Run

#: Points of a sparkline: it is about as many pixels wide.
_POINTS = 120


def course(run: Run, values: Floats, steps: Ints | None = None) -> tuple[tuple[int, float], ...]:
    """Finite values in the order of steps; of many the first, the last, and between them evenly spread in rank.

    Args:
        run: the run.
        values: (S,) one for each snapshot, or one for each of ``steps``.
        steps: where they are of other moments than the run's snapshots.
    """
    at = run.steps if steps is None else steps
    known = np.isfinite(values) & (run.taken if steps is None else True)
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(at[rows], kind="stable")]
    if len(rows) > _POINTS:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _POINTS).round().astype(int))]
    return tuple((int(at[row]), float(values[row])) for row in rows)
