"""How functions on the probe lie along the kernel's eigenfunctions, always beside what chance would give.

c_i = ⟨v_i, φ⟩ (k, C) are the coefficients of φ along the modes; their squares, summed over C, are energies. Centring
replaces φ by Hφ, H = (I − 11ᵀ/N) ⊗ I_O: it takes the mean of every output off, and leaves the kernel's eigenvectors as
they are. Energies follow Kopitkov and Indelman 2020 (arXiv 1910.08720).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, einsum, to_numpy
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State
from kerneltrack.spectrum import across_clusters

_SOURCE = "Kopitkov and Indelman 2020"


def relative_energy(
    coefficients: Array, squared_norm: float, k: int | Sequence[int], ends: NDArray[np.int64] | None = None
) -> Array:
    """E(φ, k) = Σ_{i≤k} ‖c_i‖²/‖φ‖² at each k: the part of φ in the span of k modes. Kopitkov and Indelman 2020.

    Inside a cluster of equal eigenvalues the energy depends on which basis the solver returned; with ``ends`` it is
    linear in k there, the mean over all bases.

    Args:
        coefficients: (modes, C) ⟨v_i, φ⟩, or (modes,).
        squared_norm: ‖φ‖²; where it is zero the energy is NaN.
        k: numbers of leading modes, each at least 1 and at most ``modes``.
        ends: the numbers of modes that cut no cluster (:attr:`EigenSystem.cluster_ends`); None: every one.

    Returns:
        Energies in [0, 1], growing with k, and 1 at k = M. A scalar array for a single k.
    """
    if not squared_norm > 0:
        return np.full(np.shape(k), np.nan)
    squares = np.reshape(np.asarray(coefficients) ** 2, (len(coefficients), -1)).sum(axis=1)
    cumulative = np.cumsum(squares) if ends is None else across_clusters(np.cumsum(squares), ends)
    return np.asarray(cumulative[np.asarray(k) - 1] / squared_norm)


def centre(phi: Array) -> Array:
    """Hφ (N, O): φ less the mean of each output over the probe."""
    return np.asarray(phi - phi.mean(axis=0))


def permuted_squares(vectors: Array, phi: Array, reduction: str) -> Array:
    """E_π ‖⟨v_i, πφ⟩‖² (k,): exact mean of each mode's energy when π permutes the probe's points at random.

    A permutation moves whole rows φ_n. With mean φ̄ and covariance C = (1/N) Σ_n (φ_n − φ̄)(φ_n − φ̄)ᵀ, equal points
    give C + φ̄φ̄ᵀ and different ones B = φ̄φ̄ᵀ − C/(N−1), so that the mean is N/(N−1) Σ_n v_nᵀ C v_n + sᵀBs with the
    mode's sums s = Σ_n v_n; for a trace kernel the sum of that over its outputs, each met by the same v.

    Args:
        vectors: (M, k) eigenvectors, rows ordered (n, o).
        phi: (N, O) the function, already centred where the centred energy is meant.
        reduction: the kernel's reduction of the outputs.
    """
    covariance, square = _moments(phi, reduction)
    sums = to_numpy(vectors.reshape(len(phi), len(covariance), -1).sum(axis=0)).T
    return _permuted(_spread(vectors, covariance, len(phi)), sums, covariance, square, len(phi))


def _moments(phi: Array, reduction: str) -> tuple[Array, Array]:
    """C and φ̄φ̄ᵀ (Q, Q) of the outputs that a kernel tells apart; of a trace kernel their sums over outputs."""
    if reduction == "sum":
        phi = phi.sum(axis=1, keepdims=True)
    mean = phi.mean(axis=0)
    deviation = phi - mean
    covariance, square = deviation.T @ deviation / len(phi), np.outer(mean, mean)
    if reduction == "trace":
        covariance, square = np.array([[np.trace(covariance)]]), np.array([[np.trace(square)]])
    return covariance, square


def _spread(vectors: Array, covariance: Array, samples: int) -> Array:
    """Σ_n v_nᵀ C v_n (k,)."""
    modes = vectors.reshape(samples, len(covariance), -1)
    if len(covariance) == 1:
        return np.asarray(covariance[0, 0] * to_numpy(einsum("nok,nok->k", modes, modes)))
    return to_numpy(einsum("nok,nok->k", modes, beside(covariance, modes) @ modes))


def _permuted(spread: Array, sums: Array, covariance: Array, square: Array, samples: int) -> Array:
    """N/(N−1) Σ_n v_nᵀ C v_n + sᵀBs (k,), for s (k, Q)."""
    different = square - covariance / max(samples - 1, 1)
    return np.asarray(spread * samples / max(samples - 1, 1) + np.einsum("ko,op,kp->k", sums, different, sums))


def kernel_target_alignment(values: Array, coefficients: Array, frobenius: float, target_frobenius: float) -> float:
    """⟨Θ, YYᵀ⟩_F/(‖Θ‖_F ‖YYᵀ‖_F) = Σ_i λ_i‖c_i‖²/(‖Θ‖_F ‖YYᵀ‖_F), of all modes. Cristianini et al. 2001.

    Args:
        values: (M,) eigenvalues.
        coefficients: (M, C) ⟨v_i, y⟩.
        frobenius: ‖Θ‖_F.
        target_frobenius: ‖YYᵀ‖_F; for C = 1 that is ‖y‖².
    """
    scale = frobenius * target_frobenius
    return float(values @ (coefficients**2).sum(axis=1) / scale) if scale else float("nan")


def centred_frobenius(values: Array, mode_sums: Array, samples: int) -> float:
    """‖HΘH‖_F from all modes, without the kernel, since ⟨Hv_i, Hv_j⟩ = δ_ij − s_i·s_j/N.

    ‖HΘH‖² = Σ_ij λ_i λ_j ⟨Hv_i, Hv_j⟩² = Σ_i λ_i² (1 − 2‖s_i‖²/N) + ‖Σ_i λ_i s_i s_iᵀ‖_F²/N².

    Args:
        values: (M,) eigenvalues.
        mode_sums: (M, kernel outputs) s_i = Σ_n v_i[n, ·].
        samples: N.
    """
    own = values**2 @ (1 - 2 * (mode_sums**2).sum(axis=1) / samples)
    constant = (mode_sums.T * values) @ mode_sums / samples
    return float(np.sqrt(max(0.0, own + np.vdot(constant, constant))))


def rayleigh_quotient(values: Array, coefficients: Array, squared_norm: float) -> float:
    """φᵀΘφ/‖φ‖² = Σ_i λ_i ‖c_i‖²/‖φ‖², of all modes: the eigenvalue φ lives at. Ortiz-Jiménez et al. 2021."""
    return float(values @ (coefficients**2).sum(axis=1) / squared_norm) if squared_norm > 0 else float("nan")


def _energies(state: State, phi: Array | None, *scales: Array) -> Array:
    phi = _given(phi)
    grid = energy_k(len(state.eigensystem.values))
    columns = state.project(phi)
    if state.is_rounding(columns, phi, *scales):
        raise ObservableError("the function is zero to rounding, so it has no direction")
    return relative_energy(state.along(columns), float(np.vdot(columns, columns)), grid, state.eigensystem.cluster_ends)


def _given(phi: Array | None) -> Array:
    if phi is None:
        raise ObservableError("the function was not measured")
    return phi


def _null_energies(state: State, phi: Array) -> Array:
    columns = state.project(phi)
    if state.is_rounding(columns, _given(state.targets)):
        raise ObservableError("the targets are constant, so no permutation changes them")
    covariance, square = _moments(phi, state.reduction)
    # The same with and without the mean of the targets, the only functions that this is asked of.
    spread = state.once("spread", lambda: _spread(state.eigensystem.vectors, covariance, state.samples))
    expected = _permuted(spread, state.mode_sums, covariance, square, state.samples)
    cumulative = across_clusters(np.cumsum(expected), state.eigensystem.cluster_ends)
    return np.asarray(cumulative[np.asarray(energy_k(len(expected))) - 1] / np.vdot(columns, columns))


def _displacement_energy(state: State) -> Array:
    start = state.outputs if state.initial is None else state.initial.outputs
    return _energies(state, state.displacement, state.outputs, start)


def _centred_displacement_energy(state: State) -> Array:
    if state.displacement is None or state.initial is None:
        raise ObservableError("the initial state is unknown")
    return _energies(state, centre(state.displacement), state.outputs, state.initial.outputs)


def _residual_energy(state: State) -> Array:
    scale = state.outputs if state.targets is None else state.targets
    return _energies(state, state.residual, state.outputs, scale)


def _centred_residual_energy(state: State) -> Array:
    scale = state.outputs if state.targets is None else state.targets
    return _energies(state, centre(_given(state.residual)), state.outputs, scale)


def _targets(state: State) -> Array:
    return _given(state.targets)


def _centred_targets(state: State) -> Array:
    return centre(_given(state.targets))


def _rayleigh(state: State, phi: Array) -> float:
    columns = state.project(phi)
    return rayleigh_quotient(state.eigensystem.values, state.along(columns), float(np.vdot(columns, columns)))


OBSERVABLES = (
    observable(
        "target_energy",
        lambda s: _energies(s, s.targets),
        "E(y, k) = Σ_{i≤k} ⟨v_i, y⟩²/‖y‖²",
        "eigenvectors",
        "targets",
        source=_SOURCE,
        dims=("energy_k",),
        definition=2,
        long_name="target energy in the first k modes",
    ),
    observable(
        "target_energy_centred",
        lambda s: _energies(s, _centred_targets(s), _targets(s)),
        "E(Hy, k)",
        "eigenvectors",
        "targets",
        dims=("energy_k",),
        definition=2,
        long_name="centred target energy in the first k modes",
    ),
    observable(
        "target_energy_null",
        lambda s: _null_energies(s, _targets(s)),
        "E_π[E(πy, k)], π a random permutation of the probe",
        "eigenvectors",
        "targets",
        dims=("energy_k",),
        definition=2,
        long_name="mean target energy of permuted labels",
    ),
    observable(
        "target_energy_centred_null",
        lambda s: _null_energies(s, _centred_targets(s)),
        "E_π[E(πHy, k)]",
        "eigenvectors",
        "targets",
        dims=("energy_k",),
        definition=2,
        long_name="mean centred target energy of permuted labels",
    ),
    observable(
        "output_energy",
        lambda s: _energies(s, s.outputs),
        "E(f_t, k) = Σ_{i≤k} ⟨v_i, f_t⟩²/‖f_t‖²",
        "eigenvectors",
        "outputs",
        source=_SOURCE,
        dims=("energy_k",),
        definition=2,
        long_name="output energy in the first k modes",
    ),
    observable(
        "residual_energy",
        _residual_energy,
        "E(m_t, k) = Σ_{i≤k} ⟨v_i, m_t⟩²/‖m_t‖²",
        "eigenvectors",
        "residual",
        source=_SOURCE,
        dims=("energy_k",),
        definition=2,
        long_name="residual energy in the first k modes",
    ),
    observable(
        "displacement_energy",
        _displacement_energy,
        "E(f_t − f_0, k)",
        "eigenvectors",
        "outputs",
        "initial",
        dims=("energy_k",),
        definition=2,
        long_name="energy of f_t − f_0 in the first k modes",
    ),
    observable(
        "output_energy_centred",
        lambda s: _energies(s, centre(s.outputs), s.outputs),
        "E(Hf_t, k)",
        "eigenvectors",
        "outputs",
        dims=("energy_k",),
        definition=2,
        default=False,
        long_name="centred output energy in the first k modes",
    ),
    observable(
        "residual_energy_centred",
        _centred_residual_energy,
        "E(Hm_t, k)",
        "eigenvectors",
        "residual",
        dims=("energy_k",),
        definition=2,
        default=False,
        long_name="centred residual energy in the first k modes",
    ),
    observable(
        "displacement_energy_centred",
        _centred_displacement_energy,
        "E(H(f_t − f_0), k)",
        "eigenvectors",
        "outputs",
        "initial",
        dims=("energy_k",),
        definition=2,
        default=False,
        long_name="centred energy of f_t − f_0 in the first k modes",
    ),
    observable(
        "target_rayleigh",
        lambda s: _rayleigh(s, _targets(s)),
        "yᵀΘy/‖y‖²",
        "spectrum",
        "targets",
        source="Ortiz-Jiménez et al. 2021",
        long_name="Rayleigh quotient of the target",
    ),
    observable(
        "residual_rayleigh",
        lambda s: _rayleigh(s, _given(s.residual)),
        "mᵀΘm/‖m‖²",
        "spectrum",
        "residual",
        long_name="Rayleigh quotient of the residual: the eigenvalue that drives learning now",
    ),
)
