"""Dense solvers: every eigenpair of a symmetric matrix in float64, by the library that holds it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.linalg
from array_api_compat import array_namespace
from numpy.typing import NDArray

from kerneltrack.linear_algebra import is_numpy, to_numpy

Array = NDArray[np.float64]


def solve_dense(matrix: Any, k: int | None) -> tuple[Array, Any]:
    """Eigenvalues (descending, NumPy) and eigenvectors (where the matrix is) of a symmetric matrix: all, or the k largest."""
    return _by_lapack(matrix, k) if is_numpy(matrix) else _in_place(matrix, k)


def _by_lapack(matrix: Array, k: int | None) -> tuple[Array, Array]:
    size = len(matrix)
    if k is None or k >= size:
        # Divide and conquer keeps a rank-deficient kernel's vectors orthogonal to 1e-15, "evr" to 1e-12, and is 2 to 7 % faster on
        # one core at 256, 1,000 and 2,560 rows, for one more copy of the matrix.
        # Of one row SciPy 1.13 gives "evd" too little memory.
        driver: Literal["evd", "evr"] = "evd" if size > 1 else "evr"
        values, vectors = scipy.linalg.eigh(_columnwise(matrix), driver=driver, check_finite=False)
    else:
        wanted = (size - k, size - 1)
        values, vectors = scipy.linalg.eigh(
            _columnwise(matrix), driver="evr", subset_by_index=wanted, check_finite=False
        )
    return values[::-1], vectors[:, ::-1]


def _columnwise(matrix: Array) -> Array:
    """A symmetric matrix in the order that LAPACK reads, without a copy that exchanges rows and columns; it was checked."""
    return matrix.T if matrix.flags.c_contiguous else matrix


def _in_place(matrix: Any, k: int | None) -> tuple[Array, Any]:
    """By the library's own ``eigh``. There is no solver of a part there: the whole takes a second at 10,000 rows."""
    xp = array_namespace(matrix)
    values, vectors = xp.linalg.eigh(matrix)
    wanted = len(matrix) if k is None else min(k, len(matrix))
    return to_numpy(values)[::-1][:wanted], xp.flip(vectors, axis=1)[:, :wanted]
