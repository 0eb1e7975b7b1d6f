"""What is said of a kernel that was not formed."""

from __future__ import annotations

import numpy as np

from ..statements import Finding
from ..text import count, number
from ..trajectory import Run

_NAME = "participation_ratio_estimate"


def estimated(run: Run) -> Finding | None:
    """How many modes the kernel has, and how far the estimate may be off; nothing where every pair is known."""
    if not run.has(_NAME, f"{_NAME}_error"):
        return None
    value, error = run.values(_NAME), run.values(f"{_NAME}_error")
    rows = np.flatnonzero(run.measured & np.isfinite(value) & (error > 0))
    if not len(rows):
        return None
    first, last = rows[0], rows[-1]
    return Finding(
        "Estimated size",
        f"{number(float(value[last]), 2)} ± {number(float(error[last]), 2)}",
        f"No kernel of {count(run.dimension)} rows was formed. At step {count(run.steps[last])} it was as spread as "
        f"{number(float(value[last]), 3)} equal modes, give or take {number(float(error[last]), 2)} (one standard error "
        f"over random vectors); at step {count(run.steps[first])} as {number(float(value[first]), 3)}, give or take "
        f"{number(float(error[first]), 2)}.",
        "1 for a kernel of one mode; an estimate, as the archive says.",
        "estimates",
    )
