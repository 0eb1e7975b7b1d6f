"""From one probe to another: out-of-sample extension of eigenfunctions, and kernel regression with the current kernel.

With Θ(X', X) between this probe X' and the source X, and the source's eigenpairs: Θ(X', X) V spans the eigenfunctions on
X' (Nyström leaves out the factors 1/λ_i), and f_t(X') + Θ(X', X)(Θ + γI)⁻¹(y − f_t)(X) is what the network linearised at
θ_t would predict, trained to the end on the source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, kernel_regression, ridge_of
from kerneltrack.snapshot import Array


def carried_over(cross: Array, outputs: Array, source: State, top_k: int, missing: dict[str, str]) -> dict[str, Any]:
    """``extension`` (M', k) and ``regression`` (N', O) of a :class:`State`; what there cannot be is put into ``missing``.

    Args:
        cross: Θ_t(X', X) in its reduced shape.
        outputs: f_t(X') (N', O).
        source: the state of the source probe at the same moment.
        top_k: how many eigenvectors to carry over.
        missing: need → why it is not there.
    """
    matrix = as_matrix(cross)
    found: dict[str, Any] = {"extension": matrix @ source.eigensystem.vectors[:, :top_k]}
    try:
        found["regression"] = _regression(matrix, outputs, source)
    except ObservableError as error:
        missing["regression"] = str(error)
    return found


def as_matrix(kernel: Array) -> Array:
    """The kernel matrix (M', M), rows and columns ordered (n, o), of a kernel between two sets of points."""
    if kernel.ndim == 2:
        return kernel
    rows, columns, outputs = kernel.shape[:3]
    if kernel.ndim == 3:
        full = np.zeros((rows, outputs, columns, outputs))
        for o in range(outputs):
            full[:, o, :, o] = kernel[:, :, o]
    else:
        full = kernel.transpose(0, 2, 1, 3)
    return np.asarray(full.reshape(rows * full.shape[1], -1))


def _regression(matrix: Array, outputs: Array, source: State) -> Array:
    if source.targets is None:
        raise ObservableError("the probe to learn from has no targets")
    if (source.reduction == "sum" and outputs.shape[1] > 1) or source.reduction == "callable":
        raise ObservableError("regression needs a kernel of the outputs themselves", got=f"output={source.reduction!r}")
    offset = outputs.reshape(len(matrix), -1), source.project(source.outputs)
    prediction = kernel_regression(
        matrix, source.eigensystem, source.project(source.targets), ridge=ridge_of(source), offset=offset
    )
    return np.asarray(prediction.reshape(outputs.shape))
