"""Freeze-here curve: held-out error of the network linearised at each snapshot, against the network's own.

Both are relative squared errors on the probe that the run is looked at through, ``kernel_regression_error`` (trained to
the end on the other probe's data, with the kernel and the offset of that moment) and ``network_error``. The kernel is
called good enough from the first snapshot on whose frozen error is at most the network's last one, and after which it
never rises above it again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..trajectory import Floats, Ints, Run


@dataclass(frozen=True)
class FreezeHere:
    """The curve.

    Attributes:
        steps: (S',) at which both errors are known.
        frozen: of the network linearised there.
        network: of the network itself.
        final: the network's last error.
        good_enough: the step, or None.
        error_there: the frozen error at that step; NaN without one.
    """

    steps: Ints
    frozen: Floats
    network: Floats
    final: float
    good_enough: int | None
    error_there: float


def freeze_here(run: Run) -> FreezeHere:
    """The curve of one run.

    Raises:
        AnalysisError: the archive does not hold both errors, or the loss is not a mean of squares.
    """
    run.require("kernel_regression_error", "network_error", why="the freeze-here curve")
    frozen, network = run.values("kernel_regression_error"), run.values("network_error")
    rows = np.flatnonzero(run.measured & np.isfinite(frozen) & np.isfinite(network))
    last = np.flatnonzero(run.measured & np.isfinite(network))[-1]
    final = float(network[last])
    above = np.flatnonzero(frozen[rows] > final)
    start = int(above[-1]) + 1 if above.size else 0
    found = rows[start] if start < len(rows) else None
    return FreezeHere(
        run.steps[rows],
        frozen[rows],
        network[rows],
        final,
        None if found is None else int(run.steps[found]),
        float("nan") if found is None else float(frozen[found]),
    )
