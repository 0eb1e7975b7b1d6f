"""Training a linear model with a fixed kernel: gradient flow at time t, gradient descent after k updates, an ensemble.

Of squares, ½‖f − y‖² over n rows divided by N, with learning rate η: time t is η·updates/N. By eigenpairs, and never through
Θ⁻¹: a duplicated sample makes it singular, and the filters are finite there.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import RegressionError
from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.regression.ridge import Array, check_complete
from kerneltrack.spectrum import EigenSystem


def flow_filter(values: Array, time: float, *, noise_floor: float = 0.0) -> Array:
    """w(λ) = (1 − e^{−λt})/λ, w(0) = t; at t = ∞ 1/λ, and 0 below the noise floor.

    Args:
        values: (M,) eigenvalues; those below zero are rounding, and count as 0.
        time: t ≥ 0, η·updates/N.
        noise_floor: below it no eigenvalue is inverted.

    Raises:
        RegressionError: a time below zero.
    """
    if not time >= 0:
        raise RegressionError("time runs forward", expected="t ≥ 0", got=time)
    kept = np.maximum(values, 0.0)
    above = kept > (noise_floor if np.isinf(time) else 0.0)
    safe = np.where(above, kept, 1.0)
    if np.isinf(time):
        return np.where(above, 1 / safe, 0.0)
    return np.where(above, -np.expm1(-safe * time) / safe, time)


def descent_filter(values: Array, rate: float, updates: int) -> Array:
    """w(λ) = (1 − (1 − ηλ)^k)/λ, w(0) = kη: gradient descent with η/N in the place of η. Above ηλ = 2 it grows with k.

    Args:
        values: (M,) eigenvalues; those below zero are rounding, and count as 0.
        rate: η/N > 0.
        updates: k ≥ 0.

    Raises:
        RegressionError: a rate that is not positive, or a number of updates below zero.
    """
    if not (rate > 0 and updates >= 0):
        raise RegressionError("the rate or the number of updates", expected="η > 0, k ≥ 0", got=(rate, updates))
    kept = np.maximum(values, 0.0)
    step = rate * kept
    # Below 1 the power is close to 1 − kηλ for small λ: log1p and expm1 keep the difference.
    slow = np.minimum(step, 0.5)
    missing = np.where(step <= 0.5, -np.expm1(updates * np.log1p(-slow)), 1 - (1 - step) ** updates)
    return np.where(kept > 0, missing / np.where(kept > 0, kept, 1.0), updates * rate)


def trained(
    cross: Array, pairs: EigenSystem, targets: Array, filters: Array, *, offset: tuple[Array, Array] | None = None
) -> Array:
    """f(X') = f_0(X') + Θ(X', X) Σ_i w(λ_i) v_i ⟨v_i, y − f_0(X)⟩.

    Args:
        cross: (M', M) Θ(X', X); Θ(X, X) for the training points themselves.
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y.
        filters: (M,) w(λ_i), of :func:`flow_filter` or :func:`descent_filter`.
        offset: f_0(X') (M', C) and f_0(X) (M, C); 0 where left out.

    Returns:
        (M', C).

    Raises:
        RegressionError: the eigensystem is not complete.
    """
    check_complete(pairs)
    start, residual = (0.0, targets) if offset is None else (offset[0], targets - offset[1])
    return np.asarray(start + to_numpy(beside(cross, pairs.vectors) @ _filtered(pairs, filters, residual)))


def ensemble_covariance(cross: Array, pairs: EigenSystem, filters: Array, priors: tuple[Array, Array, Array]) -> Array:
    """Covariance (M', M') over initialisations of the trained linear models: 𝒦_x'x' + A𝒦_XXAᵀ − (A𝒦_Xx' + its transpose).

    A = Θ(X', X) Σ_i w(λ_i) v_iv_iᵀ, 𝒦 the covariance of outputs at initialisation (the NNGP kernel). It is no posterior: Lee et
    al. 2019 (arXiv 1902.06720, section 2.3.1).

    Args:
        cross: (M', M) Θ(X', X).
        pairs: the complete eigensystem of Θ(X, X).
        filters: (M,) w(λ_i).
        priors: 𝒦(X', X') (M', M'), 𝒦(X, X') (M, M'), 𝒦(X, X) (M, M).

    Raises:
        RegressionError: the eigensystem is not complete.
    """
    check_complete(pairs)
    new, between, old = priors
    reach = to_numpy(_filtered(pairs, filters, np.asarray(cross).T)).T
    mixed = reach @ between
    return np.asarray(new + reach @ old @ reach.T - mixed - mixed.T)


def _filtered(pairs: EigenSystem, filters: Array, columns: Array) -> Array:
    """Σ_i w_i v_i ⟨v_i, columns⟩, where the eigenvectors live."""
    vectors = pairs.vectors
    return vectors @ (beside(np.asarray(filters)[:, None], vectors) * (vectors.T @ beside(columns, vectors)))  # type: ignore[no-any-return]
