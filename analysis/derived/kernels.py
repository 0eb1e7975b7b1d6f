"""Kernels out of an archive: as stored, or put together from every eigenpair; and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerneltrack import EigenSystem
from kerneltrack.errors import AnalysisError
from kerneltrack.observables import similarity_bounds
from kerneltrack.spectrum import cluster_ends

from ..trajectory import Floats, Ints, Run
from ..withheld import missing


def rows_with_kernels(run: Run, count: int, *, why: str) -> list[int]:
    """At most ``count`` measured rows whose whole kernel is known, spread evenly over those, both ends among them.

    Raises:
        AnalysisError: no row has one: neither the kernel nor every eigenvector is stored.
    """
    measured = np.flatnonzero(run.measured)
    rows = measured if _all_vectors(run) else [row for row in measured if _stored(run, int(row))]
    if not len(rows):
        raise missing("kernel", why, run.path)
    picks = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [int(rows[i]) for i in picks]


def full_kernel(run: Run, row: int) -> Floats:
    """The kernel of one row, axes 0 and 1 over the probe, (N, N, K, K) or (N, N, O); float64 of what is stored.

    Raises:
        AnalysisError: neither the kernel nor every eigenvector is stored there.
    """
    if _stored(run, row):
        kernel = run.at("kernel", row)
        return kernel[..., 0] if kernel.shape[-1] == 1 and kernel.shape[-2] > 1 else kernel
    if not _all_vectors(run):
        raise missing("kernel", f"the kernel at step {run.steps[row]}", run.path)
    vectors = run.at("eigenvectors", row)
    samples, kept, _ = vectors.shape
    flat = vectors.reshape(samples * kept, -1)
    matrix = (flat * run.values("eigenvalues")[row]) @ flat.T
    return np.asarray(matrix.reshape(samples, kept, samples, kept).transpose(0, 2, 1, 3))


def kernel_matrix(kernel: Floats) -> Floats:
    """The same as a matrix (M, M), rows ordered (n, o)."""
    if kernel.ndim == 3:
        kernel = np.einsum("nmo,op->nmop", kernel, np.eye(kernel.shape[2]))
    samples, _, kept, _ = kernel.shape
    return np.ascontiguousarray(kernel.transpose(0, 2, 1, 3).reshape(samples * kept, -1))


def stored_modes(run: Run, row: int) -> tuple[Floats, Ints]:
    """The stored eigenvectors (M, k), and the numbers of modes that cut no cluster of equal eigenvalues."""
    vectors, values = run.at("eigenvectors", row), run.at("eigenvalues", row)
    kept = vectors.shape[-1]
    return vectors.reshape(-1, kept), cluster_ends(values[:kept], noise_floor(run, row))


def noise_floor(run: Run, row: int) -> float:
    """Below which an eigenvalue may be rounding; 0 where it is not stored."""
    return float(np.nan_to_num(run.at("noise_floor", row))) if "noise_floor" in run.dataset else 0.0


def similarities(run: Run, rows: Sequence[int]) -> tuple[Floats, Floats]:
    """Lower and upper bound (R, R) of cos(Θ_s, Θ_t) for every pair of rows; see ``observables.similarity_bounds``.

    From every eigenvalue and the stored eigenvectors; the bounds meet where all eigenvectors are stored, to the
    rounding of float32.

    Raises:
        AnalysisError: eigenvalues or eigenvectors are not stored, or not all eigenvalues are.
    """
    run.require("eigenvalues", "eigenvectors", why="the distance between kernels")
    values = run.values("eigenvalues")
    if values.shape[1] != run.dimension:
        raise AnalysisError(
            "the distance between kernels needs every eigenvalue",
            expected=run.dimension,
            got=values.shape[1],
            where=run.path or None,
        )
    systems = [EigenSystem.stored(values[row], run.at("eigenvectors", row)) for row in rows]
    low, high = np.ones((2, len(rows), len(rows)))
    for i, a in enumerate(systems):
        for j in range(i):
            low[i, j], high[i, j] = similarity_bounds(a, systems[j])
            low[j, i], high[j, i] = low[i, j], high[i, j]
    return low, high


def _stored(run: Run, row: int) -> bool:
    return "kernel" in run.dataset and bool(np.isfinite(run.dataset.variables["kernel"][row, 0, 0, 0, 0].values))


def _all_vectors(run: Run) -> bool:
    vectors = int(run.dataset.sizes.get("vector", 0))
    return "eigenvectors" in run.dataset and vectors == run.dimension
