"""Size and shape of a spectrum: functions of eigenvalues alone, and what is read off one eigensystem.

Eigenvalues below the noise floor are rounding. They count in sums, where they do no harm, and are left out wherever a
logarithm or a quotient would magnify them.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State


def effective_rank(values: Array, noise_floor: float = 0.0) -> float:
    """exp(−Σ p_i ln p_i) over λ_i > noise_floor, p_i = λ_i/tr Θ: how many equal eigenvalues have this entropy. Roy, Vetterli 2007.

    Eigenvalues below the floor, negative ones among them, count in the trace and have no logarithm. What that leaves out is at
    most their mass: where they are rounding, p ln p of theirs is too.

    Args:
        values: (M,) every eigenvalue.
        noise_floor: below which they are rounding.
    """
    trace = float(values.sum())
    if not trace > 0:
        return float("nan")
    p = values[values > max(noise_floor, 0.0)] / trace
    return float(np.exp(-np.sum(p * np.log(p))))


def participation_ratio(trace: float, frobenius: float) -> float:
    """(tr Θ)²/‖Θ‖_F² = (Σλ)²/Σλ²: the number of equal eigenvalues with the same first two moments."""
    return trace**2 / frobenius**2 if frobenius else float("nan")


def condition_number(values: Array, noise_floor: float) -> float:
    """λ_1/λ_M; infinite where λ_M is not above the noise floor: the kernel is singular to its precision."""
    return float(values[0] / values[-1]) if values[-1] > noise_floor else float("inf")


def trace_share(values: Array, trace: float, k: tuple[int, ...]) -> Array:
    """Σ_{i≤k} λ_i/tr Θ at each k: how much of the kernel's size the first k modes hold. Baratin et al. 2021."""
    return np.asarray(np.cumsum(values)[np.asarray(k) - 1] / trace if trace else np.full(len(k), np.nan))


def square_share(values: Array, frobenius: float, k: tuple[int, ...]) -> Array:
    """Σ_{i≤k} λ_i²/‖Θ‖_F² at each k: the kernel's top mass. Tsilivis and Kempe 2022."""
    return np.asarray(np.cumsum(values**2)[np.asarray(k) - 1] / frobenius**2 if frobenius else np.full(len(k), np.nan))


def stable_rank(trace: float, largest: float) -> float:
    """Stable rank tr Θ/λ_1 = ‖J‖_F²/‖J‖₂², at most the rank. Rudelson and Vershynin 2007."""
    return trace / largest if largest else float("nan")


def _trace(state: State) -> float:
    return _known(state.eigensystem.trace, "the operator does not know its trace")


def _frobenius(state: State) -> float:
    return _known(state.eigensystem.frobenius, "a Frobenius norm needs the whole kernel")


def _known(value: float, otherwise: str) -> float:
    if np.isnan(value):
        raise ObservableError(otherwise)
    return value


OBSERVABLES = (
    observable(
        "trace",
        _trace,
        "tr Θ = Σ_n ‖J_n‖²",
        "size",
        source="Baratin et al. 2021",
        long_name="trace of the kernel matrix",
    ),
    observable(
        "frobenius", _frobenius, "‖Θ‖_F = (Σ_i λ_i²)^½", "size", long_name="Frobenius norm of the kernel matrix"
    ),
    observable(
        "condition_number",
        lambda s: condition_number(s.eigensystem.values, s.eigensystem.noise_floor),
        "λ_1/λ_M; ∞ where λ_M ≤ noise_floor",
        "spectrum",
        long_name="condition number of the kernel matrix",
    ),
    observable(
        "numerical_rank",
        lambda s: float(np.sum(s.eigensystem.values > s.eigensystem.noise_floor)),
        "#{i : λ_i > noise_floor}",
        "spectrum",
        long_name="number of eigenvalues above the noise floor, a conservative count",
    ),
    observable(
        "effective_rank",
        lambda s: effective_rank(s.eigensystem.values, s.eigensystem.noise_floor),
        "exp(−Σ_i p_i ln p_i) over λ_i > noise_floor, p_i = λ_i/tr Θ",
        "spectrum",
        source="Roy and Vetterli 2007",
        long_name="effective rank (entropy)",
        definition=2,
    ),
    observable(
        "participation_ratio",
        lambda s: participation_ratio(_trace(s), _frobenius(s)),
        "(tr Θ)²/‖Θ‖_F²",
        "size",
        long_name="participation ratio of the spectrum",
    ),
    observable(
        "stable_rank",
        lambda s: stable_rank(_trace(s), float(s.eigensystem.values[0])),
        "tr Θ/λ_1",
        "eigenvalues",
        source="Rudelson and Vershynin 2007",
        long_name="stable rank of the Jacobian",
    ),
    observable(
        "trace_share",
        lambda s: trace_share(s.eigensystem.values, _trace(s), energy_k(len(s.eigensystem.values))),
        "Σ_{i≤k} λ_i/tr Θ",
        "eigenvalues",
        source="Baratin et al. 2021",
        dims=("energy_k",),
        long_name="share of the first k eigenvalues in the trace",
    ),
    observable(
        "square_share",
        lambda s: square_share(s.eigensystem.values, _frobenius(s), energy_k(len(s.eigensystem.values))),
        "Σ_{i≤k} λ_i²/‖Θ‖_F²",
        "eigenvalues",
        source="Tsilivis and Kempe 2022",
        dims=("energy_k",),
        long_name="share of the first k eigenvalues in the squared Frobenius norm",
    ),
    observable(
        "noise_floor",
        lambda s: s.eigensystem.noise_floor,
        "8 (ε ‖Θ‖_F/√M + ε_64 max_i |λ_i|), ε the spacing of the kernel's dtype",
        "eigenvalues",
        long_name="eigenvalues below this are rounding",
    ),
    observable(
        "eigen_residual",
        lambda s: float(np.max(s.eigensystem.residuals)),
        "max_i ‖Θ v_i − λ_i v_i‖₂",
        "eigenvalues",
        long_name="largest residual of the eigenpairs",
    ),
)
