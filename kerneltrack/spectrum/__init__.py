"""Eigensystems of kernels, dense and leading, with their residuals and noise floor. No torch here."""

from __future__ import annotations

from kerneltrack.spectrum.blas_threads import threads_for
from kerneltrack.spectrum.clusters import across_clusters, cluster_ends
from kerneltrack.spectrum.decomposition import EigenSystem, eigensystem, is_few, solved, unsolved
from kerneltrack.spectrum.estimates import Estimate, KernelEstimates, kernel_estimates
from kerneltrack.spectrum.kernel_matrix import EPSILON, Place
from kerneltrack.spectrum.lanczos import largest_eigenvalue, largest_eigenvalues

__all__ = [
    "EPSILON",
    "EigenSystem",
    "Estimate",
    "KernelEstimates",
    "Place",
    "across_clusters",
    "cluster_ends",
    "eigensystem",
    "is_few",
    "kernel_estimates",
    "largest_eigenvalue",
    "largest_eigenvalues",
    "solved",
    "threads_for",
    "unsolved",
]
