"""Silent alignment: whether the kernel turned towards the target before the loss fell, or after.

t_A is the first snapshot at which the alignment has 90 % of its last value, t_L the first at which the loss has fallen by a
tenth. In networks that learn features from small weights the kernel aligns while the loss still stands (Atanasov, Bordelon
and Pehlevan 2021). Both are known to the spacing of the snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Run

ALIGNED, FALLEN = 0.9, 0.1


@dataclass(frozen=True)
class AlignmentOrder:
    """When the kernel aligned, and when the loss fell.

    Attributes:
        aligned: t_A.
        fallen: t_L.
    """

    aligned: int
    fallen: int

    @property
    def order(self) -> str:
        """Alignment came "before", "after", or "with" the fall where one snapshot has both."""
        return "with" if self.aligned == self.fallen else "before" if self.aligned < self.fallen else "after"


def alignment_order(run: Run) -> AlignmentOrder:
    """t_A and t_L of a run.

    Raises:
        AnalysisError: alignment or loss is not stored; the alignment stood from the start; the loss never fell, or does not start
            above zero.
    """
    run.require("kernel_target_alignment", "probe_loss", why="the order of alignment and learning")
    alignment, loss = run.values("kernel_target_alignment"), run.values("probe_loss")
    rows = np.flatnonzero(run.measured & np.isfinite(alignment + loss))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    if len(rows) < 2:
        raise AnalysisError("the order of alignment and learning", expected="two snapshots or more", got=len(rows))
    alignment, loss = alignment[rows], loss[rows]
    enough, fallen = alignment >= ALIGNED * alignment[-1], loss <= (1 - FALLEN) * loss[0]
    if enough[0] or not alignment[-1] > 0:
        raise AnalysisError("the kernel has nine tenths of its last alignment from the start", got=float(alignment[0]))
    if not loss[0] > 0:
        raise AnalysisError(
            "a tenth of a loss that does not start above zero",
            got=float(loss[0]),
            remedy="Tell the tracker a loss that is never below zero, such as 'half_mse' or 'cross_entropy'.",
        )
    if not fallen.any():
        raise AnalysisError("the loss has not fallen by a tenth", got=_left(loss))
    return AlignmentOrder(*(int(run.steps[rows[np.argmax(met)]]) for met in (enough, fallen)))


def _left(loss: Floats) -> str:
    return f"{float(loss.min() / loss[0]):.2g} of the loss at the start"
