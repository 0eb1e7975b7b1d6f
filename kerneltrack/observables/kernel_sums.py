"""KernelSums: what comparing two kernels asks of each of them, and the passes over both.

A kernel has N² numbers, and to make an array of that size anew takes longer than what is done with it. So none is made here:
rows are taken a few at a time, as many as stay in a cache. What one kernel tells alone is kept with it: the initial one is
compared with every later one.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kerneltrack.linear_algebra import einsum, hollow, inner, norm, row_blocks, to_numpy, trace_over_points

Array = NDArray[np.float64]


class KernelSums:
    """Sums over one kernel, each made at the first question.

    Args:
        kernel: (N, N, …), axes 0 and 1 over the probe.
        symmetric: whether it is known to be, as a matrix and to the last bit.
    """

    def __init__(self, kernel: Array, *, symmetric: bool = False) -> None:
        self.kernel = kernel
        #: Whether it is its own transpose over the points; of several outputs on both sides only these change places too.
        self.even = symmetric and (kernel.ndim < 4 or kernel.shape[2] == 1)

    def __len__(self) -> int:
        return len(self.kernel)

    @cached_property
    def norm(self) -> float:
        """‖Θ‖_F."""
        return norm(self.kernel)

    @cached_property
    def rows(self) -> Array:
        """Σ_m Θ(n, m), (N, …)."""
        found: Array = self.kernel.sum(axis=1)
        return found

    @cached_property
    def columns(self) -> Array:
        """Σ_n Θ(n, m), (N, …)."""
        found: Array = self.kernel.sum(axis=0)
        return found

    @property
    def row_means(self) -> Array:
        """The mean of each row (N, 1, …)."""
        return self.rows[:, None] / len(self)

    @property
    def other_means(self) -> Array:
        """The mean of each column less that of all (1, N, …): with :attr:`row_means`, what H takes off on both sides."""
        means = self.columns / len(self)
        found: Array = (means - means.mean(axis=0))[None]
        return found

    @cached_property
    def centred_norm(self) -> float:
        """‖HΘH‖_F."""
        rows, others, total = self.row_means, self.other_means, 0.0
        for place in row_blocks(self.kernel):
            block = self.kernel[place] - rows[place]
            block -= others
            total += inner(block, block)
        return float(np.sqrt(total))

    @cached_property
    def centred_trace(self) -> Array:
        """Σ_n (HΘH)(n, n) = Σ_n Θ(n, n) − Σ_nm Θ(n, m)/N, as NumPy."""
        return trace_over_points(self.kernel) - to_numpy(self.rows.sum(axis=0)) / len(self)

    @cached_property
    def hollow_rows(self) -> Array:
        """Σ_{m≠n} Θ(n, m)."""
        return self.rows - self._diagonal

    @cached_property
    def hollow_columns(self) -> Array:
        """Σ_{n≠m} Θ(n, m)."""
        return self.columns - self._diagonal

    @cached_property
    def independence(self) -> float:
        """HSIC_1(Θ, Θ)."""
        return independence(self, self)

    @property
    def _diagonal(self) -> Array:
        found: Array = einsum("nn...->n...", self.kernel)
        return found


def squared_difference(a: KernelSums, b: KernelSums, ratio: float = 1.0, *, centred: bool = False) -> float:
    """‖A − rB‖_F², or ‖H(A − rB)H‖_F² where it is ``centred``: entry by entry, so that nothing cancels."""
    means = (a.row_means - ratio * b.row_means, a.other_means - ratio * b.other_means) if centred else None
    total = 0.0
    for place in row_blocks(a.kernel):
        block = a.kernel[place] - ratio * b.kernel[place]
        if means is not None:
            block -= means[0][place]
            block -= means[1]
        total += inner(block, block)
    return total


def independence(a: KernelSums, b: KernelSums) -> float:
    """HSIC_1(A, B), the mean over quadruples of different points, by inclusion and exclusion. Song et al. 2012.

    The block of two outputs need not be symmetric: every sum is over both orders of the points.
    """
    n, straight, turned = len(a), 0.0, 0.0
    for place in row_blocks(a.kernel):
        block = b.kernel[place]
        straight += inner(hollow(a.kernel[place], block, place.start), block)
        if not (a.even or b.even):
            turned += inner(hollow(a.kernel[:, place].swapaxes(0, 1), block, place.start), block)
    along = inner(a.hollow_rows, b.hollow_rows) + inner(a.hollow_columns, b.hollow_columns)
    across = inner(a.hollow_rows, b.hollow_columns) + inner(a.hollow_columns, b.hollow_rows)
    total = inner(a.hollow_rows.sum(axis=0), b.hollow_rows.sum(axis=0))
    products = (n * (n - 3) + 1) * straight + (straight if a.even or b.even else turned)
    return float((products + total - (n - 2) * along - across) / (n * (n - 1) * (n - 2) * (n - 3)))
