"""The infinitely wide network of erf as it gets deep: whether what is true of ReLU carries over.

h^{l+1} = σ_w erf(h^l) Wᵀ/√m + σ_b b. With a = Σ(x, x), b = Σ(x', x'), c = Σ(x, x') of one layer (Williams 1998):

    E[erf u erf v] = (2/π) asin(2c/√((1 + 2a)(1 + 2b))),   E[erf' u erf' v] = (4/π)/√((1 + 2a)(1 + 2b) − 4c²),
    Σ ← σ_w² E[erf u erf v] + σ_b²,   Θ ← Σ + σ_w² E[erf' u erf' v] Θ.

Near ρ = 1 on a critical line 1 − ρ' = (1 − ρ) − a(1 − ρ)^p; then Θ(x, x')/Θ(x, x) → (p − 1)/(2p − 1): ¼ for ReLU (p = 3/2),
⅓ where the activation is smooth (p = 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq


def covariance(a: float, b: float, c: float) -> float:
    """E[erf u erf v]."""
    return 2 / math.pi * math.asin(2 * c / math.sqrt((1 + 2 * a) * (1 + 2 * b)))


def slopes(a: float, b: float, c: float) -> float:
    """E[erf' u erf' v]."""
    return 4 / math.pi / math.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c**2)


@dataclass(frozen=True)
class Critical:
    """A point of the critical line, where σ_w² E[erf'²] = 1.

    Attributes:
        weight: σ_w².
        bias: σ_b².
        size: q, Σ(x, x) that a layer keeps.
    """

    weight: float
    bias: float
    size: float

    @classmethod
    def of(cls, bias: float) -> Critical:
        """That of σ_b²; at σ_b² = 0 no size but 0 is kept, and 1 is where it starts."""

        def weight(q: float) -> float:
            return 1 / slopes(q, q, q)

        if bias == 0:
            return cls(weight(0.0), 0.0, 1.0)
        size = float(brentq(lambda q: q - weight(q) * covariance(q, q, q) - bias, 1e-9, 1e3, xtol=1e-14))
        return cls(weight(size), bias, size)

    def ratio(self, correlation: float, depth: int) -> float:
        """Θ(x, x')/Θ(x, x) after so many layers, of inputs of the kept size and this correlation."""
        q, c = self.size, correlation * self.size
        one, two = q, c
        for _ in range(depth - 1):
            spread, mixed = slopes(q, q, q), slopes(q, q, c)
            q, c = (self.weight * covariance(q, q, x) + self.bias for x in (q, c))
            one, two = q + self.weight * spread * one, c + self.weight * mixed * two
        return two / one
