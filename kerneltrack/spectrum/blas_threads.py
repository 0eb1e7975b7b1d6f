"""One BLAS thread for small matrices: NumPy's and SciPy's threads and torch's own get into each other's way.

OpenBLAS waits for its threads by spinning. Beside a training's OpenMP threads, or on a machine with other jobs, an
eigensystem of 1000 rows then takes some eight times as long as with one thread (7 s and 0.8 s, measured on two busy
cores), and seven times the processor time. Only large matrices are worth more threads than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

#: Rows up to which one thread solves an eigensystem in about a second and a half.
ONE_THREAD_ROWS = 2048


@contextmanager
def threads_for(rows: int) -> Iterator[None]:
    """Within: one BLAS thread for matrices of so many rows, or as many as there are. Put back on leaving."""
    if rows > ONE_THREAD_ROWS:
        yield
        return
    with _pools().limit(limits=1, user_api="blas"):
        yield


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; looking for them takes milliseconds."""
    return ThreadpoolController()
