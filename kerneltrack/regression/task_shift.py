"""Task shift: what two sets of points have of one tangent space in common, from kernels alone.

With Θ_AB = J_AJ_Bᵀ between the points of an old task and those of a new one. What training on B does to the outputs at A, the
kernel held, is :func:`kerneltrack.regression.trained` with Θ_AB as ``cross``. Bennani et al. 2020 (arXiv 2006.11942), Doan et al.
2021 (arXiv 2010.04003).
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import RegressionError
from kerneltrack.regression.ridge import Array
from kerneltrack.spectrum import EigenSystem


def cross_size(cross: float, first: float, second: float) -> float:
    """‖Θ_AB‖_F/√(‖Θ_AA‖_F ‖Θ_BB‖_F), in [0, 1]: 0 for orthogonal gradients, 1 for the same points. NaN where a kernel is zero.

    Args:
        cross: ‖Θ_AB‖_F.
        first: ‖Θ_AA‖_F.
        second: ‖Θ_BB‖_F.
    """
    return float(cross / np.sqrt(first * second)) if first * second > 0 else float("nan")


def tangent_angles(carried: Array, first: EigenSystem, values: Array, k: int) -> Array:
    """Principal angles (k,), ascending, in radians, of the spans that the k leading modes of A and of B have in parameter space.

    Mode i of Θ_BB is the direction Jᵀ_Bu_i/√λ_i of the parameters, so that the cosines are the singular values of
    Λ_A^−½ U_Aᵀ Θ_AB U_B Λ_B^−½. Angles below some 1e-8 are rounding of an arc cosine, in float32 below 1e-3.

    Args:
        carried: (M_A, ≥ k) Θ_ABU_B, B's leading modes carried to A.
        first: leading eigenpairs of Θ_AA.
        values: (≥ k,) leading eigenvalues of Θ_BB.
        k: how many modes of each.

    Raises:
        RegressionError: fewer modes than k, or one of them not above zero.
    """
    known = min(len(first.values), len(values), np.shape(carried)[1])
    if not 1 <= k <= known:
        raise RegressionError("angles between the leading modes of two sets", expected=f"k from 1 to {known}", got=k)
    roots = np.sqrt(np.maximum(first.values[:k], 0.0)), np.sqrt(np.maximum(values[:k], 0.0))
    if not (roots[0].min() > 0 and roots[1].min() > 0):
        raise RegressionError("a mode without an eigenvalue has no direction", expected="λ_k > 0", got=f"k = {k}")
    inner = first.vectors[:, :k].T @ np.asarray(carried)[:, :k] / np.outer(*roots)
    return np.asarray(np.arccos(np.clip(np.linalg.svd(inner, compute_uv=False), 0.0, 1.0)))


def epsilon_rank(values: Array, epsilon: float = 1e-2) -> int:
    """#{i : λ_i > ελ_1}: how many directions the points move the network in, up to ε of the largest.

    Raises:
        RegressionError: ε that is not in (0, 1).
    """
    if not 0 < epsilon < 1:
        raise RegressionError("ε of the ε-rank", expected="0 < ε < 1", got=epsilon)
    values = np.asarray(values)
    return int(np.sum(values > epsilon * values.max(initial=0.0)))
