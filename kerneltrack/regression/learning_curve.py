"""Eigenlearning: the test error that kernel ridge regression of n samples has on average, from one spectrum.

For eigenvalues λ_i and coefficients c_i of the kernel's operator, estimated on a large probe of M_p points (λ_i(Θ)/M_p,
c_i² = ⟨v_i, y⟩²/M_p), n samples and ridge γ:

    n = Σ_i L_i + γ/κ,   L_i = λ_i/(λ_i + κ),   E(n) = (Σ_i (1 − L_i)² c_i² + σ²)/(1 − Σ_i L_i²/n).

Simon et al. 2023 (arXiv 2110.03922, eigenlearning), Canatar et al. 2021 (arXiv 2006.13198).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from kerneltrack.errors import RegressionError
from kerneltrack.regression.ridge import Array

#: ln κ is solved to this.
_TOLERANCE = 1e-13


def learning_curve(values: Array, powers: Array, counts: Array, *, ridge: float = 0.0, noise: float = 0.0) -> Array:
    """E(n), mean squared error on new points, for each n.

    Args:
        values: (M,) λ_i of the operator; those below zero are rounding, and count as 0.
        powers: (M,) c_i².
        counts: (K,) n > 0; a prediction from a probe of M_p points holds for n well below M_p, say M_p/4.
        ridge: γ ≥ 0 of the operator, that is that of the kernel matrix of n samples.
        noise: σ² of the labels.

    Returns:
        (K,); ∞ where n is the rank of the kernel and γ = 0.

    Raises:
        RegressionError: n that is not positive, a negative ridge or noise, or n above the rank of the kernel without a ridge.
    """
    kept = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
    kept, own = kept[kept > 0], np.asarray(powers, dtype=np.float64)[kept > 0]
    lost = float(np.sum(powers) - np.sum(own))
    if not (ridge >= 0 and noise >= 0):
        raise RegressionError("the ridge or the noise is negative", expected="γ ≥ 0, σ² ≥ 0", got=(ridge, noise))
    return np.array([_error(kept, own, lost, float(n), ridge, noise) for n in np.asarray(counts).ravel()])


def effective_regularisation(values: Array, count: float, ridge: float = 0.0) -> float:
    """κ with n = Σ_i λ_i/(λ_i + κ) + γ/κ.

    Args:
        values: (M,) λ_i > 0.
        count: n > 0; below the number of eigenvalues unless γ > 0.
        ridge: γ ≥ 0.

    Raises:
        RegressionError: no κ > 0 solves it.
    """
    values = np.asarray(values, dtype=np.float64)
    if not count > 0 or (ridge == 0 and count >= len(values)):
        raise RegressionError(
            "so many samples leave nothing to regularise",
            expected=f"0 < n < {len(values)}, the rank of the kernel, or a ridge",
            got=count,
        )

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(np.sum(values / (values + kappa)) + ridge / kappa - count)

    # At κ = (Σλ + γ)/n each term is below its bound, so the sum is; towards 0 it grows to the rank, or without bound.
    high = np.log((values.sum() + ridge) / count)
    low = high - 1.0
    while excess(low) < 0:
        low -= 2 * (high - low)
    return float(np.exp(brentq(excess, low, high, xtol=_TOLERANCE)))


def _error(values: Array, powers: Array, lost: float, count: float, ridge: float, noise: float) -> float:
    if ridge == 0 and count == len(values):
        return float("inf")
    kappa = effective_regularisation(values, count, ridge)
    learned = values / (values + kappa)
    return float((np.sum((1 - learned) ** 2 * powers) + lost + noise) / (1 - np.sum(learned**2) / count))
