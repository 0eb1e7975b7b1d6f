"""How spectrum and target decay over the modes, and how complex that makes the target.

Learning curves of kernel methods follow from two exponents, λ_i ∝ i^(−a) and ⟨v_i, y⟩² ∝ i^(−b), and from the target's
norm in the kernel's own space. Exponents are read between the tenth mode, where outliers end, and a quarter of all modes: beyond
that a sample's spectrum falls faster than the operator's, as fast spectra do most (a flat one, a near 1, stays biased low). They
end earlier at the last mode above the noise floor, a conservative one. Means over bins that are equally wide in log i are fitted.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.regression import ridge_of
from kerneltrack.observables.state import Array, State

#: The share of a sample's modes whose eigenvalues are those of the operator that was sampled.
_SAMPLED = 1 / 4
_FIRST_MODE, _BINS_PER_DECADE, _FEWEST_BINS = 10, 8, 4
_CURVES = "Bordelon, Canatar and Pehlevan 2020"


def decay_exponent(values: Array, first: int, last: int) -> float:
    """a of the least-squares fit log v_i = c − a log i over modes first ≤ i ≤ last (from 1), each bin of log i once.

    A bin stands at the mean of log i with the logarithm of its mean value, so that the thousands of last modes do not
    decide alone, and a squared coefficient near zero does not either.

    Args:
        values: (M,) positive on the window, such as eigenvalues.
        first: the first mode of the window.
        last: the last one.

    Raises:
        ObservableError: fewer than four bins, or a bin without a positive value.
    """
    if last <= first:
        raise ObservableError("an exponent needs more modes", expected=f"{_FEWEST_BINS} bins", got=0)
    edges = np.unique(np.round(np.geomspace(first, last + 1, int(np.log10((last + 1) / first) * _BINS_PER_DECADE) + 2)))
    starts = edges[:-1].astype(int)
    if len(starts) < _FEWEST_BINS:
        raise ObservableError("an exponent needs more modes", expected=f"{_FEWEST_BINS} bins", got=len(starts))
    index = np.arange(1, last + 1)
    counts = np.diff(np.append(starts, last + 1))
    means = np.add.reduceat(values[:last], starts - 1) / counts
    places = np.add.reduceat(np.log(index), starts - 1) / counts
    if not np.all(means > 0):
        raise ObservableError("a decay has no exponent where it is not positive")
    return -float(np.polyfit(places, np.log(means), 1)[0])


def target_complexity(values: Array, coefficients: Array, ridge: float, squared_norm: float) -> float:
    """(tr Θ/M) yᵀ(Θ + γI)⁻¹y/‖y‖²: the target's squared norm in the kernel's space; 1 for Θ ∝ I, small if aligned.

    Without its scale and for γ → 0 this is yᵀΘ⁻¹y, whose root bounds the test error (Arora et al. 2019).

    Args:
        values: (M,) every eigenvalue.
        coefficients: (M, C) ⟨v_i, y⟩.
        ridge: γ > 0.
        squared_norm: ‖y‖².
    """
    inverse = 1 / (np.maximum(values, 0.0) + ridge)
    return float(values.mean() * (inverse @ (coefficients**2).sum(axis=1)) / squared_norm)


def effective_dimension(values: Array, ridge: float) -> float:
    """Σ_i λ_i/(λ_i + γ): how many modes ridge regression uses. Zhang 2005."""
    kept = np.maximum(values, 0.0)
    return float(np.sum(kept / (kept + ridge)))


def modes_for(coefficients: Array, squared_norm: float, share: float) -> float:
    """min{k : E(φ, k) ≥ share}; NaN where not even all modes hold that much."""
    energies = np.cumsum((coefficients**2).sum(axis=1)) / squared_norm
    reached = np.flatnonzero(energies >= share)
    return float(reached[0] + 1) if reached.size else float("nan")


def _window(state: State) -> tuple[int, int]:
    pairs = state.eigensystem
    return _FIRST_MODE, min(int(np.sum(pairs.values > pairs.noise_floor)), int(_SAMPLED * pairs.size))


def _target(state: State) -> tuple[Array, float]:
    if state.targets is None:
        raise ObservableError("there are no targets")
    columns = state.project(state.targets)
    if not (norm := float(np.vdot(columns, columns))) > 0:
        raise ObservableError("the targets are zero")
    return state.coefficients(state.targets), norm


def _target_exponent(state: State) -> float:
    coefficients, _ = _target(state)
    return decay_exponent((coefficients**2).sum(axis=1), *_window(state))


def _complexity(state: State) -> float:
    coefficients, norm = _target(state)
    return target_complexity(state.eigensystem.values, coefficients, ridge_of(state), norm)


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "spectrum_exponent",
        lambda s: decay_exponent(s.eigensystem.values, *_window(s)),
        "a of λ_i ∝ i^(−a), 10 ≤ i ≤ M/4, λ_i > noise_floor, fitted on bins of log i",
        "spectrum",
        source=_CURVES,
        default=False,
        long_name="exponent of the spectrum's decay",
        definition=2,
    ),
    observable(
        "target_exponent",
        _target_exponent,
        "b of ⟨v_i, y⟩² ∝ i^(−b), 10 ≤ i ≤ M/4, λ_i > noise_floor, fitted on bins of log i",
        "spectrum",
        "targets",
        source=_CURVES,
        default=False,
        long_name="exponent of the target's decay over the modes",
        definition=2,
    ),
    observable(
        "target_complexity",
        _complexity,
        "(tr Θ/M) yᵀ(Θ + γI)⁻¹y/‖y‖², γ = 0.001 tr Θ/M",
        "spectrum",
        "targets",
        source="Arora et al. 2019",
        default=False,
        long_name="the target's norm in the kernel's own space",
    ),
    observable(
        "target_modes_90",
        lambda s: modes_for(*_target(s), 0.9),
        "min{k : E(y, k) ≥ 0.9}",
        "spectrum",
        "targets",
        default=False,
        long_name="modes that hold nine tenths of the target",
    ),
    observable(
        "effective_dimension",
        lambda s: effective_dimension(s.eigensystem.values, ridge_of(s)),
        "Σ_i λ_i/(λ_i + γ), γ = 0.001 tr Θ/M",
        "spectrum",
        source="Zhang 2005",
        default=False,
        long_name="effective dimension of ridge regression",
    ),
)
