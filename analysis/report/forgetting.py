"""What is said of an old task that a new one follows."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import task_overlap, task_shift
from ..statements import Finding, percent
from ..text import count, number
from ..trajectory import Run

#: Of the loss before it, below which a rise is not called forgetting.
_LEAST = 0.01


def forgetting(run: Run) -> Finding | None:
    """How much of the forgetting the kernel at the switch foretells; nothing without a switch, or where nothing was forgotten."""
    try:
        found, overlap = task_shift(run), task_overlap(run)
    except AnalysisError:
        return None  # no second probe, no switch told, or another loss than squares
    gained, here = float(found.losses[-1]), np.flatnonzero(overlap.steps == found.switch)
    before = run.values("probe_loss")[run.steps == found.switch][0] if run.has("probe_loss") else np.nan
    if not gained > _LEAST * float(before) or not len(here) or not np.isfinite(overlap.angles[here[0], 0]):
        return None  # also where a kernel is zero
    size, angle = float(overlap.size[here[0]]), float(np.cos(overlap.angles[here[0], 0]))
    return Finding(
        "Forgetting",
        percent(found.share),
        f"By step {count(found.steps[-1])} the loss on the old task had grown by {number(gained, 2)} since the switch at step "
        f"{count(found.switch)}. Of this the kernel at the switch foretells {percent(found.share)}; it misses "
        f"{percent(float(found.error[-1]))} (squared) of how the outputs moved. The tasks' cross-kernel had a size of "
        f"{number(size, 2)} there, the cosine of their closest directions was {number(angle, 2)}.",
        "A size of 0 where gradients of the tasks are orthogonal: then nothing is forgotten at first order.",
        "task-shift",
    )
