"""What is said of the test error that the kernel's spectrum predicts."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import eigenlearning, unseen_rows
from ..statements import Finding
from ..text import count, number
from ..trajectory import Run


def learning(run: Run) -> Finding | None:
    """The last moment's prediction at a quarter of the probe, beside what regression has and the first moment's; held out only."""
    try:
        rows = unseen_rows(run)
        if len(rows) < 2:
            return None
        found = eigenlearning(run, (int(rows[0]), int(rows[-1])))
    except AnalysisError:
        return None  # too few points, or targets that are zero
    first, last = found.predicted[:, -1]
    measured, network = float(found.measured[-1, -1]), float(found.network[-1])
    tried = f" On random subsets of these points it is {number(measured, 2)}." if np.isfinite(measured) else ""
    own = f" The network's own is {number(network, 2)}." if np.isfinite(network) else ""
    return Finding(
        "Learning curve",
        number(float(last), 2),
        f"From its spectrum alone the kernel of step {count(found.steps[-1])} is predicted to learn {count(found.points[-1])} "
        f"points with a squared error of {number(float(last), 2)} of ‖y‖² at new ones; that of step {count(found.steps[0])} with "
        f"{number(float(first), 2)}.{tried}{own}",
        "1 for predicting nothing.",
        "learning-curves",
    )
