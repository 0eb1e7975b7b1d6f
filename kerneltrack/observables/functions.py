"""Functions φ on the probe, one row of O numbers for each of its N points: outputs, targets, residuals, changes.

The reduction of the kernel decides how a function meets the eigenvectors, and :func:`project` is the only place that knows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import ObservableError
from kerneltrack.snapshot import Reduction

Function = NDArray[np.float64]


def project(phi: Function, reduction: Reduction) -> Function:
    """Φ (M, C): the function φ (N, O) as the columns that a kernel matrix of this reduction acts on.

    full, diagonal and callable: φ as one vector, rows ordered (n, o), C = 1; for a callable g, φ is a function in g's
    own space (N, K), such as g(f_t). trace: φ itself, one column per output, C = O. sum: Σ_o φ_o, C = 1.
    """
    phi = np.asarray(phi, dtype=np.float64)
    if reduction == "trace":
        return phi
    if reduction == "sum":
        return np.asarray(phi.sum(axis=1, keepdims=True))
    return phi.reshape(-1, 1)


def check_targets(targets: Function | None, reduction: Reduction) -> None:
    """Refuse targets that the kernel of Σ_o f_o cannot see: one-hot targets add up to a constant.

    Raises:
        ObservableError: ``sum``, several outputs, and Σ_o y_o the same at every point.
    """
    if targets is None or reduction != "sum" or np.shape(targets)[1] == 1:
        return
    # 1e-6 of the targets' size: float32 one-hot or standardised targets add up to a constant only to rounding
    if np.ptp(np.sum(targets, axis=1)) <= 1e-6 * np.abs(targets).max(initial=0.0):
        raise ObservableError(
            "the targets add up to the same constant at every point",
            expected="Σ_o y_o that varies over the probe",
            where='output="sum"',
            remedy='Measure with output="trace", "diagonal" or "full".',
        )


def keep(owner: object, name: str, shape: tuple[int, ...]) -> None:
    """Make the attribute of a frozen owner float64, where it is there.

    Raises:
        ObservableError: it has another shape.
    """
    value = getattr(owner, name)
    if value is None:
        return
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ObservableError(f"the shape of {name}", expected=f"(N, O) = {shape}", got=array.shape)
    object.__setattr__(owner, name, array)
