"""Estimates: what products with random vectors tell of a kernel that no memory holds, each number with its standard error.

The leading eigenpairs are known, from Lanczos; of what is left, A = (I − VVᵀ)Θ(I − VVᵀ), random signs g tell the rest:

    tr Θ = Σ_i λ_i + E gᵀAg,    ‖Θ‖_F² = Σ_i (λ_i² + 2‖Θv_i − λ_iv_i‖²) + E‖Ag‖².

Without the first step a kernel, which a few eigenvalues dominate, would need thousands of vectors, and the spread of some tens
would say too little of the error. It is the step that Hutch++ makes by a random sketch (Meyer et al. 2021, arXiv 2010.09649).
The signs are the same in every call with one seed: of two snapshots of a run, the difference means more than either number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import KernelError
from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.spectrum.decomposition import EigenSystem, as_linear_operator, held_still, solved

Array = NDArray[np.float64]
#: Random vectors: the standard error is known to 1/√(2·31), an eighth, and ±2 of it holds the number in 94.6 % of draws.
VECTORS = 32
#: Leading pairs that are computed where none are given.
LEADING = 16
#: Columns of one product: of 10⁵ rows they are 6 MB, and each further copy of them in a pass as much.
_TOGETHER = 8


@dataclass(frozen=True)
class Estimate:
    """One number that was not computed exactly.

    Attributes:
        value: of the number.
        error: one standard error over the random vectors; 0 where every eigenpair is known.
    """

    value: float
    error: float


@dataclass(frozen=True)
class KernelEstimates:
    """Sizes of a kernel matrix Θ (M×M) from products.

    Attributes:
        trace: tr Θ.
        frobenius: ‖Θ‖_F.
        participation_ratio: (tr Θ)²/‖Θ‖_F², with the exact trace where the eigenpairs' ``trace`` is one.
        alignment: Σ_c y_cᵀΘy_c/(‖Θ‖_F ‖YYᵀ‖_F) of the targets' columns, whose numerator is exact; None without targets.
        largest: λ_1, by Lanczos.
        residual: ‖Θv_1 − λ_1v_1‖₂, by which λ_1 may be off; no standard error, for nothing in it is random.
        vectors: how many random vectors were used.
    """

    trace: Estimate
    frobenius: Estimate
    participation_ratio: Estimate
    alignment: Estimate | None
    largest: float
    residual: float
    vectors: int


def kernel_estimates(
    operator: Any,
    leading: EigenSystem | int = LEADING,
    *,
    targets: Array | None = None,
    vectors: int = VECTORS,
    seed: int = 0,
) -> KernelEstimates:
    """Trace, Frobenius norm, participation ratio, alignment and λ_1 of Θ from ``vectors`` products, beside those of Lanczos.

    Memory: M × (leading pairs + 8) numbers, and what a product takes.

    Args:
        operator: with ``shape`` and ``matmat``: a :class:`kerneltrack.NTKOperator`, a SciPy ``LinearOperator``, a matrix.
        leading: the leading eigenpairs of the same kernel, or how many of them to compute: the more, the smaller the errors.
        targets: y as the columns that Θ acts on, (M, C) or (M,); of a full kernel (N·O, 1), of a trace kernel (N, O).
        vectors: random vectors, at least 2.
        seed: of the signs.

    Raises:
        KernelError: fewer than two vectors, pairs or targets of another size, targets that are not finite, or what
            :func:`kerneltrack.eigensystem` refuses.
    """
    if vectors < 2:
        raise KernelError("a standard error needs random vectors", expected="at least 2", got=vectors)
    with held_still(operator):
        linear = as_linear_operator(operator)
        pairs = solved(operator, leading).on_host() if isinstance(leading, int) else leading
        size = linear.shape[0]
        if pairs.size != size:
            raise KernelError("rows of eigenvectors", expected=f"{size}, those of the kernel", got=pairs.size)
        if not np.isfinite(pairs.residuals).all():
            raise KernelError("the eigenpairs do not tell their residuals", remedy="Solve the kernel: kt.eigensystem.")
        columns = None if targets is None else _columns(targets, size)
        quadratic, squares = _beyond(linear.matmat, pairs, vectors, seed)
        aligned = None if columns is None else _numerator(linear.matmat, columns)
    trace = float(pairs.values.sum()) + quadratic
    square = float(np.sum(pairs.values**2 + 2 * pairs.residuals**2)) + squares
    return KernelEstimates(
        trace=_of(lambda t, s: t, trace, square),
        frobenius=_of(lambda t, s: math.sqrt(s), trace, square),
        participation_ratio=_of(lambda t, s: t**2 / s if s else math.nan, _exact(pairs.trace, trace), square),
        alignment=None
        if aligned is None
        else _of(lambda t, s: aligned / math.sqrt(s) if s else math.nan, trace, square),
        largest=float(pairs.values[0]),
        residual=float(pairs.residuals[0]),
        vectors=vectors,
    )


def _columns(targets: Array, size: int) -> Array:
    """Targets as (M, C), checked."""
    columns = np.asarray(targets, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or len(columns) != size:
        raise KernelError(
            "targets as columns",
            expected=f"({size}, C) or ({size},)",
            got=np.shape(targets),
            remedy="Of N samples with O outputs they are (N·O, 1) for a full kernel, (N, O) for a trace kernel.",
        )
    if not np.isfinite(columns).all():
        raise KernelError(
            "the targets hold entries that are not finite", expected="finite numbers", remedy="Leave these samples out."
        )
    return columns


def _beyond(product: Callable[[Array], Array], pairs: EigenSystem, vectors: int, seed: int) -> tuple[Array, Array]:
    """gᵀAg and ‖Ag‖² (vectors,) of random signs g; zeros where nothing is left."""
    if pairs.complete:
        return np.zeros(vectors), np.zeros(vectors)
    rng, basis = np.random.default_rng(seed), pairs.vectors
    quadratic, squares = [], []
    for first in range(0, vectors, _TOGETHER):
        signs = rng.choice([-1.0, 1.0], size=(min(_TOGETHER, vectors - first), pairs.size)).T
        outside = _outside(basis, signs)
        moved = _outside(basis, product(outside))
        quadratic.append(np.sum(outside * moved, axis=0))
        squares.append(np.sum(moved**2, axis=0))
    return np.concatenate(quadratic), np.concatenate(squares)


def _outside(basis: Any, columns: Array) -> Array:
    """(I − VVᵀ) of columns."""
    there = beside(columns, basis)
    return to_numpy(there - basis @ (basis.T @ there))


def _numerator(product: Callable[[Array], Array], targets: Array) -> float:
    """Σ_c y_cᵀΘy_c/‖YYᵀ‖_F; NaN of targets that are zero."""
    scale = float(np.linalg.norm(targets.T @ targets))
    columns = (targets[:, i : i + _TOGETHER] for i in range(0, targets.shape[1], _TOGETHER))
    return sum(float(np.vdot(y, product(y))) for y in columns) / scale if scale else math.nan


def _exact(known: float, estimates: Array) -> Array:
    return estimates if math.isnan(known) else np.full_like(estimates, known)


def _of(number: Callable[[float, float], float], traces: Array, squares: Array) -> Estimate:
    """A function of tr Θ and ‖Θ‖_F² at their means, and its standard error by leaving one vector out (the jackknife).

    The vectors tell both numbers at once, and the jackknife knows what the two errors have in common.
    """
    n = len(traces)
    value = number(float(traces.mean()), float(squares.mean()))
    others = [
        number(t, s)
        for t, s in zip((traces.sum() - traces) / (n - 1), (squares.sum() - squares) / (n - 1), strict=True)
    ]
    spread = np.asarray(others) - np.mean(others)
    return Estimate(value, float(np.sqrt((n - 1) / n * np.sum(spread**2))))
