"""Small matrices are solved by one BLAS thread, and the user's setting comes back. Oracle: the libraries' own counters."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from kerneltrack.spectrum.blas_threads import ONE_THREAD_ROWS, threads_for


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize(("rows", "inside"), [(10, {1}), (ONE_THREAD_ROWS, {1}), (ONE_THREAD_ROWS + 1, {2})])
@pytest.mark.parametrize("fails", [False, True])
def test_small_matrices_have_one_thread(rows, inside, fails):
    np.linalg.eigvalsh(np.eye(2))  # whatever library there is is loaded
    with threadpool_limits(2, user_api="blas"):
        try:
            with threads_for(rows):
                assert blas_threads() == inside
                if fails:
                    raise ValueError
        except ValueError:
            pass
        assert blas_threads() == {2}
