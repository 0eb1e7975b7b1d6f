"""The Gaussian process whose covariance is a tangent kernel: posterior, evidence, information gain.

Prior f ~ N(f_0, Θ/δ) with prior precision δ, noise of variance σ². By eigenpairs of Θ(X, X), never by an inverse: with
k = Θ(x, X) and c_i = ⟨v_i, y − f_0(X)⟩,

    mean(x) = f_0(x) + Σ_i (kv_i) c_i/(λ_i + δσ²),   var(x) = [Θ(x, x) − Σ_i (kv_i)²/(λ_i + δσ²)]/δ.

With Θ_0, δ = 1 and f_0 the network at its start it is the NTK-GP. With Θ at trained parameters θ* and targets
y − f* + J(X)θ*, f_0 = 0, it is the Laplace approximation of the network linearised at θ*, whose prior is N(0, I/δ) (Immer et
al. 2021, arXiv 2008.08400); its mean at x, less J(x)θ* − f*(x), is that of the network's outputs. Of an output's Hessian Λ that
is no multiple of the identity take Λ^½ΘΛ^½, Λ^½Θ(X, x) and σ² = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from kerneltrack.errors import RegressionError
from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.regression.ridge import Array, check_complete, inverse_filters, solve
from kerneltrack.spectrum import EigenSystem

#: δσ² is looked for between these multiples of λ_1, so many a decade, and then between its neighbours.
_RANGE, _A_DECADE = (1e-12, 1e6), 8
#: An eigenvalue so many times γ has a hundredth of its logarithm's unit, ln(1 + γ/λ), left to gain.
_FAR = 100


@dataclass(frozen=True)
class Posterior:
    """What the process says of new points.

    Attributes:
        mean: (M', C).
        variance: (M',) of f(x), of each column alike; that of an observation is larger by σ².
    """

    mean: Array
    variance: Array

    def negative_log_likelihood(self, targets: Array, *, noise: float) -> float:
        """Mean over points and columns of −ln N(y; mean, variance + σ²), in nats.

        Args:
            targets: (M', C) y on the new points.
            noise: σ² ≥ 0.
        """
        variance = (self.variance + noise)[:, None]
        return float(np.mean(np.log(2 * np.pi * variance) + (np.asarray(targets) - self.mean) ** 2 / variance) / 2)


@dataclass(frozen=True)
class Evidence:
    """Where the evidence is largest.

    Attributes:
        precision: δ.
        noise: σ².
        log_evidence: ln p(y) there, in nats.
        inside: whether it is a maximum; at the end of what was searched the data ask for no noise, or for nothing else.
        unbounded: whether it grows without end as the noise vanishes, so that what is told here is where the search ended: the
            kernel has fewer modes than the targets have numbers, and explains them all the same.
    """

    precision: float
    noise: float
    log_evidence: float
    inside: bool
    unbounded: bool = False


@dataclass(frozen=True)
class Laplace:
    """The linearised network's posterior at new points, with the prior and the noise of the largest evidence.

    Attributes:
        posterior: of J(x)θ.
        evidence: δ and σ².
    """

    posterior: Posterior
    evidence: Evidence


def laplace(cross: Array, diagonal: Array, pairs: EigenSystem, targets: Array) -> Laplace:
    """The Laplace approximation of a network linearised at its trained parameters θ*, of squares; prior and noise by evidence.

    Args:
        cross: (M', M) Θ(X', X) at θ*.
        diagonal: (M',) Θ(x, x) of the new points.
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y − f*(X) + J(X)θ*.

    Raises:
        RegressionError: as :func:`most_evident`.
    """
    evidence = most_evident(pairs, targets)
    found = posterior(cross, diagonal, pairs, targets, noise=evidence.noise, precision=evidence.precision)
    return Laplace(found, evidence)


def posterior(
    cross: Array,
    diagonal: Array,
    pairs: EigenSystem,
    targets: Array,
    *,
    noise: float,
    precision: float = 1.0,
    offset: tuple[Array, Array] | None = None,
) -> Posterior:
    """Mean and variance at new points.

    Args:
        cross: (M', M) Θ(X', X).
        diagonal: (M',) Θ(x, x) of the new points.
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y.
        noise: σ² ≥ 0; without noise, modes below the noise floor of Θ are left out.
        precision: δ > 0.
        offset: f_0(X') (M', C) and f_0(X) (M, C); 0 where left out.

    Raises:
        RegressionError: an incomplete eigensystem, δ that is not positive, or σ² that is negative.
    """
    _check(noise, precision)
    start, residual = (0.0, targets) if offset is None else (offset[0], targets - offset[1])
    vectors, ridge = pairs.vectors, precision * noise
    mean = to_numpy(beside(cross, vectors) @ solve(pairs, beside(residual, vectors), ridge))
    explained = to_numpy(beside(cross, vectors) @ vectors) ** 2 @ inverse_filters(pairs, ridge)
    return Posterior(np.asarray(start + mean), np.maximum(np.asarray(diagonal) - explained, 0.0) / precision)


def log_evidence(pairs: EigenSystem, targets: Array, *, noise: float, precision: float = 1.0) -> float:
    """ln p(y) = −½ Σ_i [c_i²/(λ_i/δ + σ²) + ln(λ_i/δ + σ²)] − (M/2) ln 2π, summed over columns; in nats.

    Args:
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y − f_0(X).
        noise: σ² > 0.
        precision: δ > 0.

    Raises:
        RegressionError: an incomplete eigensystem, or δ or σ² that is not positive.
    """
    check_complete(pairs)
    _check(noise, precision)
    if not noise > 0:
        raise RegressionError("evidence is of data with noise", expected="σ² > 0", got=noise)
    variances = np.maximum(pairs.values, 0.0)[:, None] / precision + noise
    c = _coefficients(pairs, targets)
    return float(-np.sum(c**2 / variances + np.log(2 * np.pi * variances)) / 2)


def most_evident(pairs: EigenSystem, targets: Array) -> Evidence:
    """The precision δ and noise σ² of the largest evidence.

    For one γ = δσ² the best noise is σ² = mean of c_i² γ/(λ_i + γ), in closed form. γ is searched on a logarithmic grid, then
    between its neighbours.

    Args:
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y − f_0(X).

    Raises:
        RegressionError: an incomplete eigensystem, a kernel without a positive eigenvalue, or targets that are zero.
    """
    check_complete(pairs)
    c, values = _coefficients(pairs, targets), np.maximum(pairs.values, 0.0)
    if not (values.max(initial=0.0) > 0 and np.any(c)):
        raise RegressionError("nothing to explain, or nothing to explain it by", got="a kernel or targets of zeros")
    # In units of λ_1 and of the largest coefficient, so that what is found does not depend on the units of f at all.
    largest, size = float(values.max()), float(np.abs(c).max())
    values, c = values / largest, c / size

    def noise(log_ridge: float) -> float:
        share = 1 / (values / np.exp(log_ridge) + 1)
        return float(np.mean(c**2 * share[:, None]))

    def missing(log_ridge: float) -> float:
        spread = float(np.sum(np.log1p(values / np.exp(log_ridge))))
        return float(c.size * math.log(noise(log_ridge)) + c.shape[1] * spread)

    low, high = np.log(_RANGE)
    grid = np.linspace(low, high, round((high - low) / np.log(10) * _A_DECADE) + 1)
    place = int(np.argmin([missing(x) for x in grid]))
    inside = 0 < place < len(grid) - 1
    best = float(grid[place])
    if inside:
        between = float(grid[place - 1]), float(grid[place + 1])
        best = float(minimize_scalar(missing, bounds=between, method="bounded").x)
    found = noise(best) * size**2
    precision = float(np.exp(best)) * largest / found
    # Where every eigenvalue is far above γ, less noise would change nothing.
    unbounded = place == 0 and float(values.min()) < _FAR * _RANGE[0]
    told = log_evidence(pairs, targets, noise=found, precision=precision)
    return Evidence(precision, found, told, inside, unbounded)


def information_gain(values: Array, ridge: float) -> float:
    """½ Σ_i ln(1 + λ_i/γ), in nats: what observing all points with noise γ says of f ~ N(0, Θ). Srinivas et al. 2010.

    Args:
        values: (M,) every eigenvalue; those below zero are rounding, and count as 0.
        ridge: γ = δσ² > 0.

    Raises:
        RegressionError: γ is not positive.
    """
    if not ridge > 0:
        raise RegressionError("without noise the information has no bound", expected="γ > 0", got=ridge)
    return float(np.sum(np.log1p(np.maximum(values, 0.0) / ridge)) / 2)


def _coefficients(pairs: EigenSystem, targets: Array) -> Array:
    """⟨v_i, y⟩ (M, C)."""
    return to_numpy(pairs.vectors.T @ beside(np.asarray(targets).reshape(pairs.size, -1), pairs.vectors))


def _check(noise: float, precision: float) -> None:
    if not (noise >= 0 and 0 < precision < np.inf):
        raise RegressionError(
            "the noise is negative, or the prior's precision not positive",
            expected="σ² ≥ 0, δ > 0",
            got=(noise, precision),
        )
