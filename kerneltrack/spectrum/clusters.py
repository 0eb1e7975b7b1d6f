"""Clusters: eigenvalues that cannot be told apart, whose eigenvectors are an arbitrary basis of what they span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cluster_ends(values: Array, tolerance: float | Array) -> NDArray[np.int64]:
    """The numbers k of leading eigenvalues that cut no cluster, ascending; the last is all of them.

    Neighbours are of one cluster where λ_i − λ_{i+1} ≤ tolerance. A wide network's kernel at initialisation is near
    k ⊗ I_O: every eigenvalue comes O times.

    Args:
        values: (M,) descending.
        tolerance: what separates rounding from a gap, one number or (M − 1,).
    """
    steps = values[:-1] - values[1:]
    return np.append(np.flatnonzero(steps > tolerance) + 1, len(values)).astype(np.int64)


def across_clusters(cumulative: Array, ends: NDArray[np.int64]) -> Array:
    """Sums over leading modes, linear in k inside a cluster: their mean over all bases of what the cluster spans.

    Args:
        cumulative: (M,) or (M, C) sums over the first k modes, k = 1, …, M.
        ends: the numbers of modes that cut no cluster.
    """
    k, known = np.arange(1, len(cumulative) + 1), np.append(0, ends)
    cluster = np.searchsorted(ends, k)
    below, above = known[cluster], known[cluster + 1]
    sums = np.concatenate([np.zeros_like(cumulative[:1]), cumulative])
    way = ((k - below) / (above - below)).reshape(-1, *(1,) * (cumulative.ndim - 1))
    return np.asarray(np.where(way == 1, cumulative, sums[below] + way * (sums[above] - sums[below])))
