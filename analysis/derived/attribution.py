"""Which points of a probe carry the kernel's regression: influence and removal of each, from one snapshot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack import eigensystem
from kerneltrack.errors import AnalysisError
from kerneltrack.linear_algebra import trace
from kerneltrack.regression import influence, removal

from ..trajectory import Floats, Ints, Run
from .kernels import full_kernel, kernel_matrix, rows_with_kernels

#: γ/(tr Θ/M), as of the package's other regressions.
_RIDGE = 1e-3


@dataclass(frozen=True)
class Attribution:
    """What each point adds to ridge regression with Θ_t, at the other points of the probe.

    Attributes:
        step: t.
        influence: (N, N) ‖τ_i(x)‖ over outputs, rows x, columns i; the diagonal is 0.
        removal: (N, N) ‖Δ_i(x)‖ the same.
    """

    step: int
    influence: Floats
    removal: Floats

    def most(self, count: int = 10) -> Ints:
        """The points i whose removal moves the predictions at the others most, by the root mean square over those."""
        return np.asarray(np.argsort(-self.reach, kind="stable")[:count])

    @property
    def reach(self) -> Floats:
        """(N,) that root mean square."""
        return np.asarray(np.sqrt(np.sum(self.removal**2, axis=0) / max(len(self.removal) - 1, 1)))

    def share(self, count: int = 10) -> float:
        """The share of ``count`` points in all squared removals; of points alike count/N."""
        squares = np.sort(self.reach**2)[::-1]
        return float(squares[:count].sum() / squares.sum()) if squares.sum() > 0 else float("nan")


def attribution(run: Run, row: int | None = None) -> Attribution:
    """Influence and removal of each point, with γ = 0.001 tr Θ/M.

    All outputs of a point go with it, whatever was measured.

    Args:
        run: with targets, and the kernel or every eigenvector at that row.
        row: of the snapshot; None: the last whose kernel is known.

    Raises:
        AnalysisError: no kernel, no targets, or a reduction that does not see them.
    """
    run.require("targets", why="attribution")
    if run.settings.get("output") not in ("full", "diagonal", "trace") and run.outputs > 1:
        raise AnalysisError("attribution needs a kernel of the outputs", got=str(run.settings.get("output")))
    row = rows_with_kernels(run, 2, why="attribution")[-1] if row is None else row
    kernel = full_kernel(run, row)
    targets = run.seen(run.values("targets"))
    matrix = kernel_matrix(kernel)
    kept = len(matrix) // run.count
    columns = targets if kept == 1 else targets.reshape(-1, 1)
    pairs = eigensystem(matrix)
    ridge = _RIDGE * trace(matrix) / len(matrix)
    found = []
    for each in (influence, removal):
        moved = each(matrix, pairs, columns, ridge=ridge, samples=run.count)
        sizes = np.sqrt(np.sum(moved.reshape(run.count, kept, run.count, -1) ** 2, axis=(1, 3)))
        np.fill_diagonal(sizes, 0.0)
        found.append(sizes)
    return Attribution(int(run.steps[row]), *found)
