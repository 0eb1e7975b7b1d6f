"""Eigensystems of kernels, dense and leading, with their residuals and noise floor. No torch here."""

from __future__ import annotations

from kerneltrack.spectrum.blas_threads import threads_for
from kerneltrack.spectrum.clusters import across_clusters, cluster_ends
from kerneltrack.spectrum.decomposition import EPSILON, EigenSystem, eigensystem, unsolved
from kerneltrack.spectrum.lanczos import largest_eigenvalue

__all__ = [
    "EPSILON",
    "EigenSystem",
    "across_clusters",
    "cluster_ends",
    "eigensystem",
    "largest_eigenvalue",
    "threads_for",
    "unsolved",
]
