"""Eigensystems of kernels, and how far they can be trusted. Float64 throughout; no torch.

A kernel comes as an array (or a tensor, taken by duck typing) or as an operator that only multiplies. Whatever it is,
the result says its own errors: one residual per eigenpair, the noise floor of the kernel's dtype, and whether all pairs
are there. A kernel on a CUDA device is solved there, any other by LAPACK; the checks, the signs, the residuals and the noise
floor are the same code for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse.linalg
from numpy.typing import NDArray

from kerneltrack.errors import KernelError
from kerneltrack.linear_algebra import (
    argmax,
    beside,
    columns,
    entries,
    is_numpy,
    norm,
    symmetric,
    to_numpy,
    trace,
    zeros,
)
from kerneltrack.memory_budget import ran_out, release
from kerneltrack.spectrum.clusters import cluster_ends
from kerneltrack.spectrum.dense import solve_dense
from kerneltrack.spectrum.kernel_matrix import (
    EPSILON,
    Place,
    as_float64,
    blocks_of,
    check_symmetric,
    frobenius,
    spacing,
)
from kerneltrack.spectrum.lanczos import leading_pairs, residuals_of, still_leading

Array = NDArray[np.float64]

#: From so many rows on, and for at most one pair in so many rows, Lanczos on a dense matrix is faster than LAPACK: three
#: times at 1,000 rows, five at 2,000, thirty at 3,000; with fewer rows, or more pairs, it is not.
LANCZOS_ROWS, LANCZOS_SHARE = 500, 8


@dataclass(frozen=True)
class EigenSystem:
    """Eigenpairs Θ v_i = λ_i v_i of a kernel matrix Θ (M×M), rows ordered (n, o).

    Attributes:
        values: (k,) eigenvalues λ_1 ≥ λ_2 ≥ …, never clipped: rounding leaves some of a positive kernel's below zero.
        vectors: (M, k) unit eigenvectors as columns; of each, the component of largest magnitude is positive. NumPy's, but
            within a measurement on a device.
        residuals: (k,) ‖Θ v_i − λ_i v_i‖₂. An eigenvalue of Θ lies within this distance of λ_i (Weyl).
        noise_floor: 8 (ε ‖Θ‖_F/√M + ε_64 max|λ|), ε the spacing of the dtype the kernel came in: eigenvalues below it
            may be rounding. A bound on what independent errors of the entries do, conservative for the tail of a kernel whose
            errors are common to its rows: there eigenvalues move by a few ε of themselves, λ_1 by up to 4ελ_1.
        trace: Σ_n Θ_nn; NaN if the operator has no trace().
        frobenius: ‖Θ‖_F; NaN where the whole kernel was not available.
        complete: whether all M pairs are here.
        solver: "lapack", "torch" (where the kernel lives on a device), "lanczos", "previous" (the previous vectors were
            still right), "stored" (from an archive), or "none" (no pair was computed).
        asymmetry: ‖Θ − Θᵀ‖_F / ‖Θ‖_F before it was symmetrised; NaN for an operator.
    """

    values: Array
    vectors: Array
    residuals: Array
    noise_floor: float
    trace: float
    frobenius: float
    complete: bool
    solver: str
    asymmetry: float = 0.0

    @property
    def size(self) -> int:
        """M, the number of rows of the kernel matrix."""
        return int(self.vectors.shape[0])

    @property
    def cluster_ends(self) -> NDArray[np.int64]:
        """The numbers of leading modes that cut no cluster: λ_i − λ_{i+1} above the noise floor and both residuals."""
        residuals = np.nan_to_num(self.residuals)
        return cluster_ends(self.values, np.nan_to_num(self.noise_floor) + residuals[:-1] + residuals[1:])

    def matrix(self) -> Array:
        """V diag(λ) Vᵀ (M, M): the kernel matrix itself, to rounding, when the system is complete."""
        whole: Array = (self.vectors * beside(self.values, self.vectors)) @ self.vectors.T
        return whole

    def on_host(self) -> EigenSystem:
        """The same in NumPy."""
        return self if is_numpy(self.vectors) else replace(self, vectors=to_numpy(self.vectors))

    @classmethod
    def stored(cls, eigenvalues: Array, eigenvectors: Array, *, noise_floor: float = np.nan) -> EigenSystem:
        """The eigensystem that one row of an archive holds: every eigenvalue, and the first eigenvectors.

        Args:
            eigenvalues: (M,) all of them, so that trace and Frobenius norm follow.
            eigenvectors: (N, K, k) or (M, k), float32 as stored: they are unit and orthogonal to 1e-7.
            noise_floor: the observable of that name.

        Raises:
            KernelError: the eigenvalues are not all there, as after an iterative solver.
        """
        values = np.asarray(eigenvalues, dtype=np.float64)
        vectors = np.asarray(eigenvectors, dtype=np.float64).reshape(-1, np.shape(eigenvectors)[-1])
        size, kept = vectors.shape
        if len(values) != size:
            raise KernelError("a stored eigensystem", expected=f"all {size} eigenvalues", got=len(values))
        return cls(
            values=values[:kept],
            vectors=vectors,
            residuals=np.full(kept, np.nan),
            noise_floor=noise_floor,
            trace=float(values.sum()),
            frobenius=float(np.linalg.norm(values)),
            complete=kept == size,
            solver="stored",
            asymmetry=np.nan,
        )

    def extend(self, cross: Array) -> Array:
        """v_i(x) = Θ(x, X) v_i/λ_i (M', k): the eigenfunctions at new points x (Nyström).

        On the points X themselves this is v_i again. NaN for modes that are not above the noise floor, some of which may be
        right all the same. The functions
        keep the norm they have on X: on M' points from the same distribution ‖v_i(x)‖² is near M'/M.

        Args:
            cross: (M', M) Θ(x, X), rows ordered (n, o) as everywhere.
        """
        values = np.where(self.values > self.noise_floor, self.values, np.nan)
        return to_numpy(beside(cross, self.vectors) @ self.vectors / beside(values, self.vectors))


def eigensystem(kernel_or_operator: Any, k: int | None = None, *, previous: EigenSystem | None = None) -> EigenSystem:
    """Eigenpairs of a kernel, largest eigenvalues first.

    Args:
        kernel_or_operator: a kernel array or tensor of shape (N, N) (one output, trace or sum), (N, N, O) (the diagonal
            of the outputs: a block-diagonal NO×NO matrix, whose eigenvectors live on one output each) or (N, N, O, O)
            (full: NO×NO); or an operator with ``shape`` and ``matmat`` (a SciPy ``LinearOperator``, a
            ``kerneltrack.NTKOperator``). A tensor on a CUDA device is solved there, where it fits; any other on the CPU.
        k: how many pairs; None for all of them (from an operator that takes M products). A few pairs of a large matrix
            come from Lanczos as well, with the same checks; ``solver`` says which it was.
        previous: an eigensystem of the same kernel a little earlier. Where its vectors still are the leading eigenvectors,
            which is checked by two products, Lanczos is spared; LAPACK ignores it.

    Returns:
        The eigensystem in float64 and NumPy, whatever the kernel came in.

    Raises:
        KernelError: the kernel is not square, not symmetric, not finite, or Lanczos did not converge.
    """
    return solved(kernel_or_operator, k, previous=previous).on_host()


def solved(
    kernel_or_operator: Any,
    k: int | None = None,
    *,
    previous: EigenSystem | None = None,
    place: Place = "auto",
    room: int | None = None,
) -> EigenSystem:
    """:func:`eigensystem`, whose vectors stay where the kernel was solved.

    Args:
        kernel_or_operator: as there, like ``k`` and ``previous``.
        k: how many pairs.
        previous: an earlier eigensystem.
        place: "auto"; "kept", also on a device that is no CUDA device, a CPU's tensors among them; or "host".
        room: bytes that a solver may take on the kernel's device; None asks the device. A larger kernel goes to the CPU, and so
            does one that runs out of memory all the same.
    """
    if k is not None and k < 1:
        raise KernelError("k, the number of eigenpairs", expected="at least 1, or None for all", got=k)
    if _is_operator(kernel_or_operator):
        return _solve_operator(kernel_or_operator, k, previous)
    try:
        return _solve_array(*as_float64(kernel_or_operator, place, room), k, previous)
    except Exception as error:  # looked at, and raised again unless a device ran out of memory
        if is_numpy(kernel_or_operator) or not ran_out(error):
            raise
    # Behind the handler, whose traceback would hold what the device was asked for.
    release(kernel_or_operator.device)
    return _solve_array(*as_float64(kernel_or_operator, "host"), k, previous)


def unsolved(kernel: Any | None, rows: int, place: Place = "host") -> EigenSystem:
    """No eigenpair, and what is read off the entries of a kernel: its trace and Frobenius norm; NaN where there is none.

    Args:
        kernel: of any shape that :func:`eigensystem` takes, or None.
        rows: M.
        place: where its entries are read.

    Raises:
        KernelError: as :func:`eigensystem`, from whose work nothing but the checks is done.
    """
    whole = size = asymmetry = np.nan
    if kernel is not None:
        array, epsilon = as_float64(kernel, place)
        blocks = blocks_of(array)
        asymmetry = check_symmetric(blocks, epsilon)
        whole = float(sum(trace(block) for block in blocks))
        size = float(np.sqrt(sum(norm(symmetric(block)) ** 2 for block in blocks)))
    none = np.zeros(0)
    return EigenSystem(none, np.zeros((rows, 0)), none, np.nan, whole, size, False, "none", asymmetry)


def _solve_array(array: Any, epsilon: float, k: int | None, previous: EigenSystem | None = None) -> EigenSystem:
    blocks = blocks_of(array)
    asymmetry = check_symmetric(blocks, epsilon)
    blocks = [symmetric(block) for block in blocks]
    if k is None or not is_few(k, len(blocks[0])):
        solver = "lapack" if is_numpy(array) else "torch"
        return _merge([solve_dense(block, k) for block in blocks], blocks, k, epsilon, asymmetry, solver)
    # The products are exact to float64, whatever the kernel came in. Earlier vectors are of the whole, not of a block.
    earlier = previous if len(blocks) == 1 else None
    few = [_leading(as_linear_operator(block), k, EPSILON["float64"], earlier) for block in blocks]
    pairs = [(values, beside(vectors, array)) for values, vectors, _, _ in few]
    return _merge(pairs, blocks, k, epsilon, asymmetry, few[0][3])


def is_few(k: int, rows: int) -> bool:
    """Whether k pairs of a matrix of so many rows come from Lanczos, which is faster there."""
    return rows >= LANCZOS_ROWS and LANCZOS_SHARE * k <= rows


def _leading(
    linear: scipy.sparse.linalg.LinearOperator, k: int, epsilon: float, previous: EigenSystem | None
) -> tuple[Array, Array, Array, str]:
    """The k largest pairs, their residuals, and whether they are the previous ones or Lanczos'."""
    warm = None if previous is None else still_leading(linear, k, to_numpy(previous.vectors), epsilon)
    return (*warm, "previous") if warm else (*leading_pairs(linear, k, epsilon), "lanczos")


@dataclass(frozen=True)
class _Product:
    """A matrix that only multiplies, where it lives."""

    matrix: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape)

    def matmat(self, block: Array) -> Array:
        return to_numpy(self.matrix @ beside(block, self.matrix))


def _is_operator(candidate: Any) -> bool:
    return hasattr(candidate, "matmat") or hasattr(candidate, "as_linear_operator")


def _merge(
    solutions: Sequence[tuple[Array, Any]],
    blocks: Sequence[Any],
    k: int | None,
    epsilon: float,
    asymmetry: float,
    solver: str,
) -> EigenSystem:
    """One eigensystem of the block-diagonal matrix, its rows ordered (n, o)."""
    size = len(blocks) * len(blocks[0])
    largest = np.max(np.abs(np.concatenate([block_values for block_values, _ in solutions])))
    if len(blocks) == 1:
        values, vectors = np.ascontiguousarray(solutions[0][0]), _fix_signs(solutions[0][1])
        residuals = residuals_of(blocks[0] @ vectors, values, vectors)
    else:
        values, vectors, residuals = _side_by_side(solutions, blocks, size if k is None else k)
    return EigenSystem(
        values=values,
        vectors=vectors,
        residuals=residuals,
        noise_floor=_noise_floor(largest, frobenius(blocks) / np.sqrt(size), epsilon),
        trace=float(sum(trace(block) for block in blocks)),
        frobenius=frobenius(blocks),
        complete=len(values) == size,
        solver=solver,
        asymmetry=asymmetry,
    )


def _side_by_side(solutions: Sequence[tuple[Array, Any]], blocks: Sequence[Any], k: int) -> tuple[Array, Any, Array]:
    """The k largest pairs of all blocks, each vector on the rows (n, o) of its own, and their residuals."""
    outputs, samples = len(blocks), len(blocks[0])
    values = np.concatenate([block_values for block_values, _ in solutions])
    owner = np.repeat(np.arange(outputs), [len(block_values) for block_values, _ in solutions])
    order = np.argsort(-values, kind="stable")[:k]
    vectors = zeros((samples, outputs, len(order)), blocks[0])
    residuals = np.empty(len(order))
    for output, (block_values, block_vectors) in enumerate(solutions):
        start = int(np.searchsorted(owner, output))
        mine = np.flatnonzero(owner[order] == output)
        chosen = order[mine] - start
        own = _fix_signs(columns(block_vectors, chosen))
        vectors[:, output, mine] = own
        residuals[mine] = residuals_of(blocks[output] @ own, block_values[chosen], own)
    return values[order], vectors.reshape(samples * outputs, len(order)), residuals


def _noise_floor(largest: float, rms: float, epsilon: float) -> float:
    """8 (ε · rms eigenvalue + ε_64 max|λ|): the kernel's own rounding, and that of the solver.

    Independent errors of relative size ε in the entries are a random matrix of norm 2ε‖Θ‖_F/√M, and ‖Θ‖_F/√M is the
    root mean square of the eigenvalues. Networks and Gram matrices computed in float32 and in float64 differ by 0.1 to
    4 times ε · rms in their small eigenvalues, singular float64 matrices by 2 ε max|λ|; 8 leaves a factor of two. The
    usual worst case, ε M λ_1, would call most of a float32 spectrum noise that is good to a percent.
    """
    return float(8 * (epsilon * rms + EPSILON["float64"] * largest))


def _fix_signs(vectors: Any) -> Any:
    """Of each column the component of largest magnitude is positive."""
    largest = entries(vectors, argmax(abs(vectors), axis=0), np.arange(vectors.shape[1]))
    signs = np.where(largest < 0, -1.0, 1.0)
    # Row by row, as LAPACK does not leave them: every product with them runs along rows.
    return np.multiply(vectors, signs, order="C") if is_numpy(vectors) else vectors * beside(signs, vectors)


def _solve_operator(operator: Any, k: int | None, previous: EigenSystem | None) -> EigenSystem:
    """The k largest pairs of one state of the operator."""
    with held_still(operator):
        return _solve_unchanging(operator, k, previous)


def held_still(operator: Any) -> AbstractContextManager[None]:
    """Within: one state of the operator. One that can change says how it is held still."""
    found: AbstractContextManager[None] = getattr(operator, "unchanging", nullcontext)()
    return found


def _solve_unchanging(operator: Any, k: int | None, previous: EigenSystem | None) -> EigenSystem:
    """The k largest pairs by Lanczos, each checked by its residual; all of them through products with I."""
    epsilon = spacing(getattr(operator, "dtype", None))
    linear = as_linear_operator(operator)
    size = linear.shape[0]
    # Lanczos needs two to three products a pair: from a third of the pairs on, the matrix itself costs no more.
    if k is None or 3 * k >= size:
        return _solve_array(linear.matmat(np.eye(size)), epsilon, k)
    values, vectors, residuals, solver = _leading(linear, k, epsilon, previous)
    trace = float(operator.trace()) if callable(getattr(operator, "trace", None)) else np.nan
    largest = float(np.max(np.abs(values)))
    # ‖Θ‖_F² ≤ λ_1 tr Θ for a positive kernel; without a trace, ‖Θ‖_F² ≤ M λ_1².
    rms = largest if np.isnan(trace) else float(np.sqrt(largest * max(trace, 0.0) / size))
    return EigenSystem(
        values=values,
        vectors=_fix_signs(vectors),
        residuals=residuals,
        noise_floor=_noise_floor(largest, rms, epsilon),
        trace=trace,
        frobenius=np.nan,
        complete=False,
        solver=solver,
        asymmetry=np.nan,
    )


def as_linear_operator(operator: Any) -> scipy.sparse.linalg.LinearOperator:
    """What multiplies float64 columns, for SciPy: an operator, whatever it takes, or a matrix where it lives."""
    if not _is_operator(operator):
        operator = scipy.sparse.linalg.aslinearoperator(operator) if is_numpy(operator) else _Product(operator)
    if hasattr(operator, "as_linear_operator"):
        operator = operator.as_linear_operator()
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise KernelError("the shape of the kernel operator", expected="(M, M)", got=shape)

    def matmat(block: Array) -> Array:
        found: Array = as_float64(operator.matmat(np.asarray(block, dtype=np.float64)))[0]
        return found

    return scipy.sparse.linalg.LinearOperator(
        shape, matvec=lambda v: matmat(np.reshape(v, (-1, 1)))[:, 0], matmat=matmat, dtype=np.float64
    )
