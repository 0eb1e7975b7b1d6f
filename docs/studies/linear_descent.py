"""Gradient descent on squares in a linear model, from the kernel's spectrum alone."""

from __future__ import annotations

import numpy as np

#: More updates than this are "never": modes that decide so late are not above the rounding of λ_1 in float64.
NEVER = 2**44


def updates_to(share: float, values: np.ndarray, squares: np.ndarray, rate: float) -> int:
    """The smallest k with Σ_i ⟨v_i, r_0⟩²(1 − aλ_i)^{2k} ≤ share · ‖r_0‖²; the sum falls with k, so k is found by halving.

    Args:
        share: of the first loss.
        values: (N,) λ_i of the kernel.
        squares: (N,) ⟨v_i, r_0⟩².
        rate: a = η/N, at most 1/λ_1.

    Raises:
        ValueError: a mode grows, or the share is not reached within :data:`NEVER` updates.
    """
    kept = 1 - rate * np.clip(values, 0.0, None)  # rounding of a zero eigenvalue must not grow
    if kept.min() < -1e-12:
        raise ValueError(f"the rate {rate:g} is above 1/λ_1 = {1 / values.max():g}")

    def reached(k: int) -> bool:
        return bool(np.sum(squares * np.clip(kept, 0.0, 1.0) ** (2.0 * k)) <= share * np.sum(squares))

    high = 1
    while not reached(high):
        high *= 2
        if high > NEVER:
            raise ValueError(f"a share of {share:g} is not reached in {NEVER:,} updates")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
