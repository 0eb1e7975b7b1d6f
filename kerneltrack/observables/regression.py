"""Errors of kernel regression with Θ_t: the prediction of a model whose kernel stays frozen at Θ_t."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import to_numpy
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.dynamics import check_squares
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.seen import require_unseen
from kerneltrack.observables.state import Array, State
from kerneltrack.regression import kernel_alignment_risk, leave_one_out

#: γ/(tr Θ/M) of the observables here: above a float32 kernel's noise floor, far below what it regularises.
RIDGE = 1e-3


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
