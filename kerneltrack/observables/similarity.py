"""How similar two kernels are when only their leading eigenpairs and their Frobenius norms were kept."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.spectrum import EigenSystem


def similarity_bounds(a: EigenSystem, b: EigenSystem) -> tuple[float, float]:
    """Bounds of cos(A, B) = ⟨A, B⟩_F/(‖A‖_F ‖B‖_F) for positive semi-definite kernels, from what an archive keeps.

    A = UΛUᵀ + R_A with R_A ⪰ 0 on the complement of U, ‖R_A‖_F² = ‖A‖_F² − Σ_{i≤k} λ_i²; the same for B with W. Of the
    four parts of ⟨A, B⟩ the leading one, ⟨UΛUᵀ, WMWᵀ⟩, is known, and the other three are not negative: the lower bound.
    ⟨UΛUᵀ, R_B⟩ is at most ‖R_B‖_F ‖(I − WWᵀ)UΛUᵀ(I − WWᵀ)‖_F, and at most μ_k tr((I − WWᵀ)UΛUᵀ), since no eigenvalue of
    R_B exceeds the last one kept, μ_k; the same with A and B exchanged; ⟨R_A, R_B⟩ ≤ ‖R_A‖_F ‖R_B‖_F.

    Args:
        a: leading eigenpairs of A, with ``frobenius``.
        b: leading eigenpairs of B, with ``frobenius``, on the same probe.

    Returns:
        (low, high), 0 ≤ low ≤ cos ≤ high ≤ 1. They meet where both systems are complete.

    Raises:
        ObservableError: the systems are of different size, or a Frobenius norm is unknown or zero.
    """
    if a.size != b.size:
        raise ObservableError("kernels of different probes have no similarity", expected=a.size, got=b.size)
    scale = a.frobenius * b.frobenius
    if not scale > 0:
        raise ObservableError("similarity needs both Frobenius norms", got=(a.frobenius, b.frobenius))
    overlaps = a.vectors.T @ b.vectors
    known = float(a.values @ overlaps**2 @ b.values)
    beyond_a, beyond_b = _remainder(a), _remainder(b)
    unknown = beyond_a * beyond_b + _cross(a, b, overlaps, beyond_b) + _cross(b, a, overlaps.T, beyond_a)
    return max(0.0, known / scale), min(1.0, (known + unknown) / scale)


def _remainder(system: EigenSystem) -> float:
    """‖R‖_F, of which a complete system has none."""
    if system.complete:
        return 0.0
    squared = system.frobenius**2
    # The difference of two sums of M squares is only known to M roundings of them: an upper bound must include those.
    rounding = system.size * np.finfo(np.float64).eps * squared
    return float(np.sqrt(max(0.0, squared - float(np.sum(system.values**2))) + rounding))


def _cross(a: EigenSystem, b: EigenSystem, overlaps: np.ndarray, beyond: float) -> float:
    """The largest that ⟨UΛUᵀ, R_B⟩ can be."""
    if b.complete:
        return 0.0
    outside = np.eye(len(a.values)) - overlaps @ overlaps.T
    weighted = a.values[:, None] * outside
    by_norm = beyond * float(np.sqrt(max(0.0, np.sum(weighted * weighted.T))))
    return min(by_norm, max(0.0, float(b.values[-1])) * max(0.0, float(np.trace(weighted))))
