"""From one probe to another: out-of-sample extension of eigenfunctions, and regression with the current kernel.

With Θ(X', X) between this probe X' and the source X, and the source's eigenpairs: Θ(X', X) V spans the eigenfunctions on
X' (Nyström leaves out the factors 1/λ_i), and f_t(X') + Θ(X', X)(Θ + γI)⁻¹(y − f_t)(X) is what the network linearised at
θ_t would predict, trained to the end on the source.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.conventions import helmert
from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, diagonal_blocks, permuted, to_numpy, zeros
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.observables import State, ridge_of
from kerneltrack.regression import CrossEntropy, Laplace, MeanLoss, Through, kernel_newton, kernel_regression, laplace
from kerneltrack.snapshot import Array
from kerneltrack.training import ProbeLoss


def extended(cross: Array, source: State, top_k: int) -> Array:
    """Θ(X', X) V (M', k).

    Args:
        cross: Θ_t(X', X) (M', M).
        source: the state of the source probe at the same moment.
        top_k: how many eigenvectors to carry over.
    """
    vectors = source.eigensystem.vectors[:, :top_k]
    found: Array = beside(cross, vectors) @ vectors
    return found


def regressed(cross: Array, outputs: Array, source: State) -> Array:
    """The prediction (N', O) of regression on the source.

    Args:
        cross: Θ_t(X', X) (M', M).
        outputs: f_t(X') (N', O).
        source: the state of the source probe at the same moment.

    Raises:
        NotMeasured: the source has no targets, or its kernel is not one of the outputs themselves.
    """
    targets = _targets(source, outputs)
    offset = outputs.reshape(len(cross), -1), source.project(source.outputs)
    try:
        prediction = kernel_regression(
            cross, source.eigensystem, source.project(targets), ridge=ridge_of(source), offset=offset
        )
    except ObservableError as error:
        raise NotMeasured(str(error)) from error
    return np.asarray(prediction.reshape(outputs.shape))


def check_squares(loss: ProbeLoss | None) -> None:
    """Raise NotMeasured where the loss is no mean of squares: then the noise of a Gaussian process is none of its own."""
    if loss is None or loss.name not in ("half_mse", "mse"):
        raise NotMeasured("the loss is not a mean of squares")


def spread(cross: Array, own: Array, tangent: Array, source: State) -> Laplace:
    """Linearised Laplace at θ_t, from the source's data to the points of the other kernel.

    Args:
        cross: Θ_t(X', X) (M', M).
        own: Θ_t(X', X') (M', M').
        tangent: J_tθ_t on the source (N, O).
        source: the state of the source probe at the same moment.

    Raises:
        NotMeasured: as :func:`regressed`, or nothing is to be explained.
    """
    targets = _targets(source, source.outputs)
    try:
        columns = source.project(targets - source.outputs + tangent)
        return laplace(to_numpy(cross), diagonal_blocks(own, 1).ravel(), source.eigensystem.on_host(), columns)
    except ObservableError as error:
        raise NotMeasured(str(error)) from error


def logistic(cross: Array, outputs: Array, source: State) -> Array:
    """The logits (N', O) of logistic regression on the source, from its outputs on.

    Args:
        cross: Θ_t(X', X) (M', M).
        outputs: f_t(X') (N', O), as the kernel meets it.
        source: the state of the source probe at the same moment.

    Raises:
        NotMeasured: the source has no targets, its kernel is not one of the outputs themselves, or no minimum was found.
    """
    _targets(source, outputs)
    assert source.raw_targets is not None  # _targets() has refused it
    loss: MeanLoss = CrossEntropy(source.raw_targets)
    if source.network_outputs > source.outputs.shape[1]:
        loss = Through(loss, helmert(source.network_outputs))
    try:
        # L is a mean over N samples: this γ is that of regression, whose squares are summed.
        ridge = ridge_of(source) / source.samples
        alpha = kernel_newton(source.eigensystem, source.outputs, loss, ridge=ridge)
    except ObservableError as error:
        raise NotMeasured(str(error)) from error
    return np.asarray(outputs + to_numpy(cross @ beside(alpha, cross)).reshape(outputs.shape))


def _targets(source: State, outputs: Array) -> Array:
    """The source's targets.

    Raises:
        NotMeasured: there are none, or they are not those of its kernel.
    """
    if source.targets is None:
        raise NotMeasured("the probe to learn from has no targets")
    if (source.reduction == "sum" and outputs.shape[1] > 1) or source.reduction == "callable":
        raise NotMeasured(f"regression needs a kernel of the outputs themselves: got output={source.reduction!r}")
    return source.targets


def as_matrix(kernel: Array) -> Array:
    """The kernel matrix (M', M), rows and columns ordered (n, o), of a kernel between two sets of points."""
    if kernel.ndim == 2:
        return kernel
    rows, columns, outputs = kernel.shape[:3]
    if kernel.ndim == 3:
        full: Array = zeros((rows, outputs, columns, outputs), kernel)
        for o in range(outputs):
            full[:, o, :, o] = kernel[:, :, o]
    else:
        full = permuted(kernel, (0, 2, 1, 3))
    return full.reshape(rows * full.shape[1], -1)
