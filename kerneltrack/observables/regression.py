"""Kernel regression with Θ_t: the prediction of a model whose kernel stays frozen at Θ_t.

With an offset f_t it is the network linearised at θ_t and trained to the end; without, the kernel's own prediction.
Which of the two is meant is never left open. Matrices have rows (n, o) for a full kernel and n for trace and sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, diagonal_blocks, to_numpy
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.dynamics import check_squares
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.seen import require_unseen
from kerneltrack.observables.state import Array, State
from kerneltrack.spectrum import EigenSystem

#: γ/(tr Θ/M) of the observables here: above a float32 kernel's noise floor, far below what it regularises.
RIDGE = 1e-3


def kernel_regression(
    cross: Array, pairs: EigenSystem, targets: Array, *, ridge: float, offset: tuple[Array, Array] | None = None
) -> Array:
    """f(X') = Θ(X', X)(Θ + γI)⁻¹ y, or f_t(X') + Θ(X', X)(Θ + γI)⁻¹(y − f_t(X)) with an offset.

    Args:
        cross: (M', M) Θ(X', X).
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y as columns (:func:`project` makes them).
        ridge: γ ≥ 0; with γ = 0 the modes below the noise floor are left out (pseudo-inverse).
        offset: f_t(X') (M', C) and f_t(X) (M, C).

    Returns:
        (M', C) predictions.

    Raises:
        ObservableError: the eigensystem is not complete.
    """
    start, residual = (0.0, targets) if offset is None else (offset[0], targets - offset[1])
    vectors = pairs.vectors
    return np.asarray(start + to_numpy(beside(cross, vectors) @ _solve(pairs, beside(residual, vectors), ridge)))


def leave_one_out(pairs: EigenSystem, targets: Array, samples: int, *, ridge: float) -> Array:
    """Errors y − f^{(−n)}(x_n) (M, C) at each point of the regression that has not seen it, without refitting.

    With A = (Θ + γI)⁻¹ and A_nn its block at point n (one row per output that the kernel keeps), the error at n is
    A_nn⁻¹ (A y)_n.
    """
    inverse = _solve(pairs, beside(np.eye(pairs.size), pairs.vectors), ridge)
    outputs = pairs.size // samples
    solved = to_numpy(inverse @ beside(targets, inverse)).reshape(samples, outputs, -1)
    return np.asarray(np.linalg.solve(diagonal_blocks(inverse, outputs), solved).reshape(pairs.size, -1))


def kernel_alignment_risk(pairs: EigenSystem, targets: Array, *, ridge: float) -> float:
    """KARE: (1/M) yᵀ(Θ/M + λI)⁻²y / ((1/M) tr (Θ/M + λI)⁻¹)², λ = γ/M: estimates the test error of ridge regression.

    Equal to generalised cross-validation. Jacot et al. 2020 (arXiv 2006.09796). Targets (M, C), summed over C.
    """
    coefficients = to_numpy(pairs.vectors.T @ beside(targets, pairs.vectors))
    filters = 1 / (np.maximum(pairs.values, 0.0) + ridge)
    top = np.sum(filters**2 @ coefficients**2) / pairs.size
    return float(top / np.mean(filters) ** 2)


def _solve(pairs: EigenSystem, columns: Any, ridge: float) -> Any:
    """(Θ + γI)⁻¹ applied to columns where the eigenvectors live; with γ = 0 the pseudo-inverse above the noise floor."""
    if not pairs.complete:
        raise ObservableError("regression needs every eigenpair of the kernel")
    kept = np.maximum(pairs.values, 0.0) + ridge
    filters = np.where((pairs.values > pairs.noise_floor) | (ridge > 0), 1 / np.where(kept > 0, kept, 1.0), 0.0)
    return pairs.vectors @ (beside(filters[:, None], columns) * (pairs.vectors.T @ columns))


def extended_energy(extension: Array, phi: Array, k: tuple[int, ...]) -> Array:
    """E(φ, k) out of sample: the part of φ on new points in the span of the first k eigenfunctions carried there.

    An eigenfunction is carried over by v_i(x) = Θ(x, X) v_i/λ_i (Nyström). On new points these functions are no longer
    orthogonal; the projection is on their span, which the factor 1/λ_i leaves alone. Kopitkov and Indelman 2020.

    Args:
        extension: (M', K) Θ(X', X) V_K.
        phi: (M', C) the function on the new points.
        k: numbers of leading eigenfunctions, at most K.

    Returns:
        Energies in [0, 1], growing with k, beside the null min(k/M', 1).
    """
    if not (norm := float(np.vdot(phi, phi))) > 0:
        return np.full(len(k), np.nan)
    # In QR the first k columns of Q span the first k columns of the extension: one factorisation serves every k.
    extension = to_numpy(extension)  # of the stored vectors alone
    orthonormal, _ = scipy.linalg.qr(extension / np.linalg.norm(extension, axis=0), mode="economic")
    squares = np.append(((orthonormal.T @ phi) ** 2).sum(axis=1), np.zeros(extension.shape[1]))
    return np.asarray(np.cumsum(squares)[np.asarray(k) - 1] / norm)


def _columns(state: State, phi: Array | None) -> Array:
    if phi is None:
        raise ObservableError("the function was not measured")
    columns = state.project(phi)
    if state.is_rounding(columns, phi):
        raise ObservableError("the function is zero to rounding")
    return columns


def ridge_of(state: State) -> float:
    """γ of the observables that regularise: 0.001 tr Θ/M.

    Raises:
        ObservableError: the trace is not positive.
    """
    if not state.eigensystem.trace > 0:
        raise ObservableError("the trace of the kernel is not positive", got=state.eigensystem.trace)
    return RIDGE * state.eigensystem.trace / state.eigensystem.size


def _leave_one_out_error(state: State) -> float:
    require_unseen(state)
    columns = _columns(state, state.targets)
    errors = leave_one_out(state.eigensystem, columns, state.samples, ridge=ridge_of(state))
    return float(np.vdot(errors, errors) / np.vdot(columns, columns))


def _alignment_risk(state: State) -> float:
    require_unseen(state)
    columns = _columns(state, state.targets)
    risk = kernel_alignment_risk(state.eigensystem, columns, ridge=ridge_of(state))
    return risk * state.eigensystem.size / float(np.vdot(columns, columns))


def _regression_error(state: State) -> float:
    require_unseen(state, doubted=False)
    return _relative_error(state, state.regression)


def _relative_error(state: State, prediction: Array | None) -> float:
    check_squares(state)
    if prediction is None or state.targets is None:
        raise ObservableError("the prediction or the targets were not measured")
    norm = float(np.vdot(state.targets, state.targets))
    return float(np.sum((prediction - state.targets) ** 2) / norm) if norm > 0 else float("nan")


def _extended(state: State, phi: Array | None) -> Array:
    if state.extension is None:
        raise ObservableError("the other probe's eigenvectors were not carried over")
    columns = _columns(state, phi)
    grid = energy_k(len(state.eigensystem.values))
    reach = state.extension.shape[1]
    found = extended_energy(state.extension, columns, tuple(k for k in grid if k <= reach))
    return np.append(found, np.full(len(grid) - len(found), np.nan))


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "network_error", lambda s: _relative_error(s, s.outputs), "‖f_t − y‖²/‖y‖²", "outputs", "targets",
        default=False, long_name="relative squared error of the network on the probe",
    ),
    observable(
        "kernel_regression_error", _regression_error,
        f"‖f_t + Θ(·, X)(Θ + γI)⁻¹(y − f_t)(X) − y‖²/‖y‖², X another probe, γ = {RIDGE:g} tr Θ/M",
        "regression", "targets",
        source="Fort et al. 2020", default=False, long_name="relative squared error of the network linearised here",
    ),
    observable(
        "leave_one_out_error", _leave_one_out_error,
        f"Σ_n ‖y_n − f^(−n)(x_n)‖²/‖y‖², f^(−n) kernel ridge regression without x_n, γ = {RIDGE:g} tr Θ/M",
        "spectrum", "targets", default=False, long_name="leave-one-out error of kernel regression",
    ),
    observable(
        "kernel_alignment_risk", _alignment_risk,
        f"yᵀ(Θ + γI)⁻²y/((1/M) tr (Θ + γI)⁻¹)²/‖y‖², γ = {RIDGE:g} tr Θ/M", "spectrum", "targets",
        source="Jacot et al. 2020", default=False, long_name="kernel alignment risk estimate, relative",
    ),
    observable(
        "target_energy_out_of_sample", lambda s: _extended(s, s.targets),
        "E(y, k) in the span of Θ(·, X)v_i, i ≤ k, v_i of another probe X", "extension", "targets",
        source="Kopitkov and Indelman 2020", dims=("energy_k",), default=False,
        long_name="target energy in another probe's first k eigenfunctions",
    ),
    observable(
        "output_energy_out_of_sample", lambda s: _extended(s, s.outputs),
        "E(f_t, k) in the span of Θ(·, X)v_i, i ≤ k, v_i of another probe X", "extension", "outputs",
        source="Kopitkov and Indelman 2020", dims=("energy_k",), default=False,
        long_name="output energy in another probe's first k eigenfunctions",
    ),
)  # fmt: skip
