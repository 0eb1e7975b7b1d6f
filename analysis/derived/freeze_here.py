"""Freeze-here curve: held-out error of the network linearised at each snapshot, against the network's own.

Both are on one scale, on the probe that the run is looked at through. Of a mean of squares they are relative squared errors,
``kernel_regression_error`` (trained to the end on the other probe's data, with the kernel and the offset of that moment)
and ``network_error``; of a cross-entropy they are cross-entropies, ``kernel_logistic_loss`` and ``probe_loss``. The kernel
is called good enough from the first snapshot on whose frozen error is at most the network's last one, and after which
it never rises above it again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Ints, Run

#: The frozen and the network's own, of each loss that a network can be trained to the end on here.
_SCALES = {
    "relative squared error": ("kernel_regression_error", "network_error"),
    "cross-entropy": ("kernel_logistic_loss", "probe_loss"),
}
_SQUARES = next(iter(_SCALES.items()))


@dataclass(frozen=True)
class FreezeHere:
    """The curve.

    Attributes:
        scale: what both are, in words.
        names: the quantities of the frozen and of the network's own.
        steps: (S',) at which both errors are known.
        frozen: of the network linearised there.
        network: of the network itself.
        final: the network's last error.
        good_enough: the step, or None.
        error_there: the frozen error at that step; NaN without one.
    """

    scale: str
    names: tuple[str, str]
    steps: Ints
    frozen: Floats
    network: Floats
    final: float
    good_enough: int | None
    error_there: float


def freeze_here(run: Run) -> FreezeHere:
    """The curve of one run.

    Raises:
        AnalysisError: the archive does not hold both errors on one scale.
    """
    scale, names = next((found for found in _SCALES.items() if run.has(*found[1])), _SQUARES)
    run.require(*names, why="the freeze-here curve")
    frozen, network = map(run.values, names)
    rows = np.flatnonzero(run.measured & np.isfinite(frozen) & np.isfinite(network))
    if not rows.size:
        raise AnalysisError(f"no snapshot holds both {names[0]!r} and {names[1]!r}", where=run.path or None)
    last = np.flatnonzero(run.measured & np.isfinite(network))[-1]
    final = float(network[last])
    above = np.flatnonzero(frozen[rows] > final)
    start = int(above[-1]) + 1 if above.size else 0
    found = rows[start] if start < len(rows) else None
    return FreezeHere(
        scale,
        names,
        run.steps[rows],
        frozen[rows],
        network[rows],
        final,
        None if found is None else int(run.steps[found]),
        float("nan") if found is None else float(frozen[found]),
    )
