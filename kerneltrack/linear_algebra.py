"""Linear algebra of float64 arrays where they live: NumPy's on a CPU, and that of whatever library holds them on a card.

What is defined on arrays is written once, with these functions. Which library computes follows from the array that is given.
NumPy arrays go through NumPy's own calls, whose numbers on a CPU are those of before to the last bit. The others go through
the array API standard, whose namespace array-api-compat finds in an array: no library is imported here but NumPy. What comes
back as a number or as a NumPy array has left the device; all else stays where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Numbers of a block that is made and used while it stays in a core's cache.
_CACHED = 2**15


def is_numpy(array: Any) -> bool:
    """Whether an array is NumPy's, on the CPU; scalars and lists are taken for it."""
    return is_numpy_array(array) or not hasattr(array, "shape")


def to_numpy(array: Any) -> Array:
    """The array as NumPy has it, float64 where it is of another library."""
    if is_numpy(array):
        return np.asarray(array)
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()  # NumPy has no bfloat16: widened first
    return np.asarray(array, dtype=np.float64)


def beside(array: Any, other: Any) -> Any:
    """The array where ``other`` lives, in float64; the same where it is there already."""
    if is_numpy(other):
        return to_numpy(array)
    place, xp = device(other), array_namespace(other)
    if not is_numpy(array) and device(array) == place:
        return array
    if is_numpy(array):  # copied: torch shares no memory with an array that is not to be written to, or runs backwards
        return xp.asarray(np.ascontiguousarray(array), dtype=xp.float64, device=place, copy=True)
    return array.to(place)


def zeros(shape: Sequence[int], other: Any) -> Any:
    """Zeros of float64 where ``other`` lives."""
    if is_numpy(other):
        return np.zeros(shape)
    xp = array_namespace(other)
    return xp.zeros(tuple(shape), dtype=xp.float64, device=device(other))


def inner(a: Any, b: Any) -> float:
    """⟨A, B⟩, the sum of the products of the entries."""
    if is_numpy(a):
        return float(np.vdot(*_alongside(a, b)))
    xp = array_namespace(a)
    return float(xp.vecdot(xp.reshape(a, (-1,)), xp.reshape(b, (-1,))))


def _alongside(a: Array, b: Array) -> tuple[Array, Array]:
    """Two arrays of one layout with their axes as they lie in memory: of a kernel (N, N, O, O) that are rows (n, o)."""
    if np.ndim(a) < 3 or a.strides != np.asarray(b).strides:
        return a, b
    axes = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    return a.transpose(axes), b.transpose(axes)


def norm(a: Any) -> float:
    """‖A‖_F."""
    if is_numpy(a):
        return float(np.linalg.norm(a))
    xp = array_namespace(a)
    return float(xp.linalg.vector_norm(xp.reshape(a, (-1,))))


def norms(a: Any, axis: int | tuple[int, int]) -> Array:
    """The Euclidean norms over one axis or two, as NumPy."""
    if is_numpy(a):
        return np.asarray(np.linalg.norm(a, axis=axis))
    return to_numpy(array_namespace(a).linalg.vector_norm(a, axis=axis))


def trace(a: Any) -> float:
    """tr A of a matrix."""
    return float(np.trace(a)) if is_numpy(a) else float(array_namespace(a).linalg.trace(a))


def symmetric(a: Any) -> Any:
    """(A + Aᵀ)/2."""
    return (a + a.T) / 2


def permuted(a: Any, axes: Sequence[int]) -> Any:
    """The array with its axes in another order."""
    return a.transpose(*axes) if is_numpy(a) else array_namespace(a).permute_dims(a, tuple(axes))


def columns(a: Any, index: NDArray[np.int64]) -> Any:
    """The columns of a matrix that an index names, in its order."""
    if is_numpy(a):
        return a[:, index]
    xp = array_namespace(a)
    return xp.take(a, xp.asarray(index, device=device(a)), axis=1)


def chosen(a: Any, mask: NDArray[np.bool_]) -> Any:
    """The entries that a mask of the same shape names, one after the other."""
    return a[mask] if is_numpy(a) else a[array_namespace(a).asarray(mask, device=device(a))]


def reordered(a: Any, order: NDArray[np.int64]) -> Any:
    """Rows and columns of a matrix in another order."""
    if is_numpy(a):
        return a[order][:, order]
    index = array_namespace(a).asarray(order, device=device(a))
    return a[index][:, index]


def finite_count(a: Any) -> int:
    """How many entries are finite."""
    if is_numpy(a):
        return int(np.isfinite(a).sum())
    xp = array_namespace(a)
    return int(xp.count_nonzero(xp.isfinite(a)))


def argmax(a: Any, axis: int) -> NDArray[np.int64]:
    """Where the largest entries along an axis are, the first of equal ones, as NumPy."""
    if is_numpy(a):
        return np.asarray(np.argmax(a, axis=axis))
    found: NDArray[np.int64] = array_namespace(a).argmax(a, axis=axis).cpu().numpy()
    return found


def entries(a: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """The entries of a matrix at these places, as NumPy."""
    if is_numpy(a):
        return np.asarray(a[rows, columns])
    xp, place = array_namespace(a), device(a)
    return to_numpy(a[xp.asarray(rows, device=place), xp.asarray(columns, device=place)])


def eigenvalues(a: Any) -> Array:
    """λ_i of a symmetric matrix, ascending, as NumPy."""
    if is_numpy(a):
        return np.asarray(np.linalg.eigvalsh(a), np.float64)
    return to_numpy(array_namespace(a).linalg.eigvalsh(a))


def singular_values(a: Any) -> Array:
    """σ_i, descending, as NumPy."""
    if is_numpy(a):
        return np.asarray(np.linalg.svd(a, compute_uv=False))
    return to_numpy(array_namespace(a).linalg.svdvals(a))


def einsum(subscripts: str, *arrays: Any, optimize: bool = False) -> Any:
    """Σ over products, where the last array lives; the others are brought there.

    Args:
        subscripts: as of ``numpy.einsum``.
        arrays: what is multiplied.
        optimize: whether NumPy looks for a good order; other libraries always do.
    """
    if all(is_numpy(array) for array in arrays):
        return np.asarray(np.einsum(subscripts, *arrays, optimize=optimize))
    there = next(array for array in arrays if not is_numpy(array))
    return array_namespace(there).einsum(subscripts, *(beside(array, there) for array in arrays))


def trace_over_points(a: Any) -> Array:
    """Σ_n A[n, n, …], as NumPy."""
    return np.asarray(np.trace(a)) if is_numpy(a) else to_numpy(einsum("nn...->...", a))


def hollow(a: Any, like: Any = None, first: int = 0) -> Any:
    """A copy with zeros where the first two axes agree.

    Args:
        a: a kernel, or rows of one.
        like: of the same shape, laid out as the copy is to be; None: ``a``.
        first: which of all rows is the first one.
    """
    rows = np.arange(len(a))
    if is_numpy(a):
        found = np.empty_like(a if like is None else like)
        found[...] = a
        found[rows, first + rows] = 0.0
        return found
    xp = array_namespace(a)
    a, rows = xp.asarray(a, copy=True), xp.asarray(rows, device=device(a))
    a[rows, first + rows] = 0.0
    return a


def row_blocks(a: Any) -> list[slice]:
    """Slices over the first axis: of NumPy's as many rows as stay in a core's cache, of other libraries' arrays all."""
    count = len(a)
    each = max(1, _CACHED // max(1, a.size // max(count, 1))) if is_numpy(a) else count
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]


def diagonal_blocks(a: Any, size: int) -> Array:
    """The square blocks (M/size, size, size) along the diagonal of a matrix, as NumPy."""
    if is_numpy(a):
        return np.stack([a[i : i + size, i : i + size] for i in range(0, len(a), size)])
    count = len(a) // size
    return to_numpy(einsum("nanb->nab", a.reshape(count, size, count, size)))
