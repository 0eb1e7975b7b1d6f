"""Leading eigenpairs of a symmetric operator by Lanczos, each checked by its residual before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from kerneltrack.errors import KernelError
from kerneltrack.linear_algebra import beside, norms, symmetric

Array = NDArray[np.float64]


def leading_pairs(linear: LinearOperator, k: int, epsilon: float) -> tuple[Array, Array, Array]:
    """The k largest pairs with their residuals, which must be those of eigenpairs.

    Of a cluster of equal eigenvalues that reaches beyond the k-th Lanczos can leave vectors unconverged; a Ritz step
    within their span (whose products the residuals need anyway) and extra pairs fix this.
    """
    for asked in (k, min(2 * k + 8, linear.shape[0] - 1)):
        _, found = _lanczos(linear, asked, _tolerance(epsilon))
        values, vectors, residuals = (part[..., :k] for part in _ritz(linear, found))
        if np.max(residuals) <= (allowed := _allowed_residual(values, epsilon)):
            return values, vectors, residuals
    raise KernelError(
        "Lanczos returned pairs that are not eigenpairs",
        expected=f"residuals below {allowed:.1e}",
        got=f"{np.max(residuals):.1e}",
        remedy="Compute the operator's products in float64, or ask for fewer eigenpairs.",
    )


def _ritz(linear: LinearOperator, vectors: Array) -> tuple[Array, Array, Array]:
    """The best eigenpairs within the span of the vectors, descending, and their residuals."""
    basis, _ = np.linalg.qr(vectors)
    products = linear.matmat(basis)
    values, turns = scipy.linalg.eigh(symmetric(basis.T @ products))
    values, turns = values[::-1], turns[:, ::-1]
    return values, basis @ turns, residuals_of(products @ turns, values, basis @ turns)


def _tolerance(epsilon: float) -> float:
    # Products rounded at ε cannot give residuals below a few ε λ_1; asking for less never returns.
    return 32 * epsilon


def _allowed_residual(values: Array, epsilon: float) -> float:
    # Lanczos underestimates its residual, so allow ten times the requested tolerance.
    return float(10 * _tolerance(epsilon) * np.max(np.abs(values)))


def _lanczos(linear: LinearOperator, k: int, tolerance: float) -> tuple[Array, Array]:
    """The k largest eigenpairs, descending, to a relative tolerance of the residuals."""
    # A fixed random start makes two calls agree; starting from an earlier eigenvector saved no product when tried.
    start = np.random.default_rng(0).standard_normal(linear.shape[0])
    if not linear.matvec(start).any():
        return np.zeros(k), np.eye(linear.shape[0], k)
    try:
        values, vectors = eigsh(linear, k=k, which="LA", v0=start, tol=tolerance)
    except ArpackNoConvergence as error:
        raise KernelError(
            "Lanczos did not converge",
            expected=f"{k} eigenpairs",
            got=f"{len(error.eigenvalues)}",
            remedy="Ask for fewer eigenpairs, or for all of them from the kernel itself.",
        ) from error
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def still_leading(linear: LinearOperator, k: int, previous: Array, epsilon: float) -> tuple[Array, Array, Array] | None:
    """The k leading pairs within the span of the previous ones, if they are eigenpairs of this kernel; else None.

    Small residuals show that these are eigenpairs, not that they are the largest: a direction new to the kernel is
    orthogonal to all of them. One loose Lanczos on what is left of the kernel shows that there is none.
    """
    if previous.shape[0] != linear.shape[0] or previous.shape[1] < k:
        return None
    basis, _ = np.linalg.qr(previous[:, :k])
    outermost = basis[:, [0, k - 1]]
    products = linear.matmat(outermost)
    quotients = np.sum(outermost * products, axis=0)
    allowed = _allowed_residual(quotients, epsilon)
    if np.max(residuals_of(products, quotients, outermost)) > allowed:
        return None
    values, vectors, residuals = _ritz(linear, basis)
    if np.max(residuals) > allowed:
        return None

    def beyond(v: Array) -> Array:
        outside = v - basis @ (basis.T @ v)
        moved = linear.matvec(outside)
        return np.asarray(moved - basis @ (basis.T @ moved))

    rest = LinearOperator(linear.shape, matvec=beyond, dtype=np.float64)
    largest, _ = _lanczos(rest, 1, 1e-2)
    return (values, vectors, residuals) if largest[0] <= values[-1] + allowed else None


def residuals_of(products: Any, values: Array, vectors: Any) -> Array:
    """‖Θ v_i − λ_i v_i‖₂ (k,) from the products Θ v_i, which may live where the kernel does."""
    return norms(products - vectors * beside(values, vectors), 0)


#: Products before a residual is believed: each multiplies what the start has of v_1, against the rest, by its ratio of eigenvalues.
_FEWEST = 5
#: What is left of a product outside the basis, relative to the eigenvalues, when the basis holds all that the start can reach.
_INVARIANT = 1e-10


def largest_eigenvalue(product: Callable[[Array], Array], start: Array, tolerance: float) -> float:
    """λ_1 of a symmetric operator, from as few products as its residual admits.

    Lanczos with a basis that is kept orthogonal, which looks at its residual after every product. Where λ_1 stands apart,
    as a kernel's does, five to ten products are enough; ARPACK, which returns vectors too, makes twenty before it looks.

    It does not begin with an earlier top vector. Mixed half and half with the random start, that vector spared a third of the
    products of a run (7 instead of 11). Of 600 operators with a new direction a tenth above the old one 51 then gave the old
    eigenvalue, where the random start missed none: the residual of an old vector is small long before the new one shows. As a
    further vector beside the random start's space it missed fewer, and spared nothing.

    Args:
        product: v ↦ A v on (M,) float64.
        start: (M,) the first vector, not zero; one at random misses no eigenvector, but may have little of one.
        tolerance: of ‖A u − θ u‖/|θ|, the Ritz pair's residual; θ is within it of an eigenvalue.

    Returns:
        θ; 0.0 where the operator maps the start to zero.
    """
    (found,) = largest_eigenvalues(lambda vectors: {0: product(vectors[0])}, [start], tolerance)
    return found


def largest_eigenvalues(
    products: Callable[[Mapping[int, Array]], Mapping[int, Array]], starts: Sequence[Array], tolerance: float
) -> list[float]:
    """λ_1 of several symmetric operators whose products cost less together than one by one.

    Args:
        products: {i: v_i} ↦ {i: A_i v_i}, of the operators whose λ_1 is not known yet.
        starts: of each, as of :func:`largest_eigenvalue`; they may differ in length.
        tolerance: as there.

    Returns:
        Each operator's θ.
    """
    runs, found = [_ritz_value(start, tolerance) for start in starts], [0.0] * len(starts)
    waiting = {i: next(run) for i, run in enumerate(runs)}
    while waiting:
        moved, waiting = products(waiting), {}
        for i, image in moved.items():
            try:
                waiting[i] = runs[i].send(image)
            except StopIteration as end:
                found[i] = end.value
    return found


def _ritz_value(start: Array, tolerance: float) -> Generator[Array, Array, float]:
    """Gives the vectors v of which it is sent A v, and returns θ."""
    basis = start[None] / np.linalg.norm(start)
    diagonal: list[float] = []
    beside: list[float] = []
    while True:  # a start with little of v_1 is an eigenvector to the tolerance where all others share one eigenvalue
        moved = yield basis[-1]
        diagonal.append(float(basis[-1] @ moved))
        for _ in range(2):  # one pass leaves the rounding of what it takes away
            moved = moved - basis.T @ (basis @ moved)
        beside.append(float(np.linalg.norm(moved)))
        values, turns = scipy.linalg.eigh_tridiagonal(diagonal, beside[:-1])
        whole = len(basis) == len(start) or beside[-1] <= _INVARIANT * np.max(np.abs(values))
        if whole or (len(basis) >= _FEWEST and beside[-1] * abs(turns[-1, -1]) <= tolerance * abs(values[-1])):
            return float(values[-1])
        basis = np.vstack([basis, moved / beside[-1]])
