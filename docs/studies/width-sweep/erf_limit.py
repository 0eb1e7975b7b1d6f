"""The infinitely wide network of erf as it gets deep: whether what is true of ReLU carries over.

Near ρ = 1 on a critical line 1 − ρ' = (1 − ρ) − a(1 − ρ)^p; then Θ(x, x')/Θ(x, x) → (p − 1)/(2p − 1): ¼ for ReLU (p = 3/2),
⅓ where the activation is smooth (p = 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import brentq

from kerneltrack import analytic


def after(size: float) -> tuple[float, float]:
    """E[erf²] and E[erf'²] of pre-activations of variance q."""
    covariance, slopes = analytic.dual_pair(size, size, size, activation="erf")
    return float(covariance), float(slopes)


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

        def excess(q: float) -> float:
            covariance, slopes = after(q)
            return q - covariance / slopes - bias

        if bias == 0:
            return cls(1 / after(0.0)[1], 0.0, 1.0)
        size = float(brentq(excess, 1e-9, 1e3, xtol=1e-14))
        return cls(1 / after(size)[1], bias, size)

    def ratio(self, correlation: float, depth: int) -> float:
        """Θ(x, x')/Θ(x, x) after so many layers, of inputs of the kept size and this correlation."""
        wanted = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64) * self.size - self.bias
        x = torch.linalg.cholesky(wanted * 2 / self.weight)  # Σ^1 = σ_w² x·x'/2 + σ_b²
        theta = analytic.ntk(
            x[:1], x, depth=depth, activation="erf", weight_variance=self.weight, bias_variance=self.bias
        )
        return float(theta[0, 1] / theta[0, 0])
