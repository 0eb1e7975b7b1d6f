"""Kernel ridge regression with Θ: predictions, what each point adds to them, and what they would be without it.

With an offset f_t it is the network linearised at θ_t and trained to the end; without, the kernel's own prediction.
Which of the two is meant is never left open. Matrices have rows (n, o) for a full kernel and n for trace and sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import RegressionError
from kerneltrack.linear_algebra import beside, diagonal_blocks, to_numpy
from kerneltrack.spectrum import EigenSystem

Array = NDArray[np.float64]


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
        RegressionError: the eigensystem is not complete.
    """
    start, residual = (0.0, targets) if offset is None else (offset[0], targets - offset[1])
    vectors = pairs.vectors
    return np.asarray(start + to_numpy(beside(cross, vectors) @ solve(pairs, beside(residual, vectors), ridge)))


def leave_one_out(pairs: EigenSystem, targets: Array, samples: int, *, ridge: float) -> Array:
    """Errors y − f^{(−n)}(x_n) (M, C) at each point of the regression that has not seen it, without refitting.

    With A = (Θ + γI)⁻¹ and A_nn its block at point n (one row per output that the kernel keeps), the error at n is
    A_nn⁻¹ (A y)_n.

    Raises:
        RegressionError: an incomplete eigensystem, γ < 0, or rows that are no multiple of the samples.
    """
    outputs = _rows_each(pairs.size, samples)
    inverse = solve(pairs, beside(np.eye(pairs.size), pairs.vectors), ridge)
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


def solve(pairs: EigenSystem, columns: Any, ridge: float) -> Any:
    """(Θ + γI)⁻¹ applied to columns where the eigenvectors live; with γ = 0 the pseudo-inverse above the noise floor.

    Raises:
        RegressionError: the eigensystem is not complete, or γ < 0.
    """
    check_complete(pairs)
    if not ridge >= 0:
        raise RegressionError("the ridge is negative, or NaN", expected="γ ≥ 0", got=ridge)
    return pairs.vectors @ (beside(inverse_filters(pairs, ridge)[:, None], columns) * (pairs.vectors.T @ columns))


def inverse_filters(pairs: EigenSystem, ridge: float) -> Array:
    """1/(λ_i + γ) (M,); with γ = 0 zero at and below the noise floor."""
    kept = np.maximum(pairs.values, 0.0) + ridge
    return np.where((pairs.values > pairs.noise_floor) | (ridge > 0), 1 / np.where(kept > 0, kept, 1.0), 0.0)


def check_complete(pairs: EigenSystem) -> None:
    """Raise RegressionError where eigenpairs are missing."""
    if not pairs.complete:
        raise RegressionError(
            "regression needs every eigenpair of the kernel",
            expected=pairs.size,
            got=len(pairs.values),
            remedy="Solve the whole kernel: kt.eigensystem(kernel), without k.",
        )


def influence(cross: Array, pairs: EigenSystem, targets: Array, *, ridge: float, samples: int | None = None) -> Array:
    """τ_i(x) = [Θ(x, X)(Θ + γI)⁻¹]_i r_i, r = y − f(X): how f(x) answers to more weight on point i.

    Of training with weights 1 + ε_i it is ∂f(x)/∂ε_i at ε = 0. Park et al. 2023 (arXiv 2303.14186, TRAK), for squares. Of a full
    kernel [·]_i and r_i are the block and the rows of point i, and its outputs go together.

    Args:
        cross: (M', M) Θ(X', X).
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y.
        ridge: γ > 0.
        samples: N, where M/N rows are of one point; None: every row is a point of its own.

    Returns:
        (M', N, C).

    Raises:
        RegressionError: an incomplete eigensystem, γ that is not positive, or rows that are no multiple of N.
    """
    return _by_point(_rows(cross, pairs, ridge), _residuals(pairs, targets, ridge), samples)


def removal(cross: Array, pairs: EigenSystem, targets: Array, *, ridge: float, samples: int | None = None) -> Array:
    """Δ_i(x) = τ_i(x)/(1 − h_i), h = diag Θ(Θ + γI)⁻¹: f(x) less what it is without point i, without refitting.

    With A = (Θ + γI)⁻¹ and A_ii its block at point i, [Θ(x, X)A]_i A_ii⁻¹ (Ay)_i: of one row a point that is τ_i/(1 − h_i).

    Args:
        cross: (M', M) Θ(X', X).
        pairs: the complete eigensystem of Θ(X, X).
        targets: (M, C) y.
        ridge: γ > 0.
        samples: N, where M/N rows are of one point; None: every row is a point of its own.

    Returns:
        (M', N, C).

    Raises:
        RegressionError: an incomplete eigensystem, γ that is not positive, or rows that are no multiple of N.
    """
    rows = _rows(cross, pairs, ridge)
    return _by_point(rows, leave_one_out(pairs, targets, samples or pairs.size, ridge=ridge), samples)


def _by_point(rows: Array, moved: Array, samples: int | None) -> Array:
    """Σ over the rows of each point of what x takes of them: (M', M) and (M, C) to (M', N, C)."""
    count = samples or len(moved)
    outputs = _rows_each(len(moved), count)
    parts = rows.reshape(len(rows), count, outputs), moved.reshape(count, outputs, -1)
    return np.asarray(np.einsum("xno,noc->xnc", *parts))


def _rows_each(rows: int, samples: int) -> int:
    if rows % samples:
        raise RegressionError("rows of a kernel", expected=f"a multiple of {samples}, the points", got=rows)
    return rows // samples


def _rows(cross: Array, pairs: EigenSystem, ridge: float) -> Array:
    """Θ(X', X)(Θ + γI)⁻¹ (M', M)."""
    if not ridge > 0:
        raise RegressionError("what one point adds is told of a regression with a ridge", expected="γ > 0", got=ridge)
    return to_numpy(solve(pairs, beside(np.asarray(cross).T, pairs.vectors), ridge)).T


def _residuals(pairs: EigenSystem, targets: Array, ridge: float) -> Array:
    """y − f(X) = γ(Θ + γI)⁻¹y (M, C)."""
    return ridge * to_numpy(solve(pairs, beside(targets, pairs.vectors), ridge))
