"""How far the neurons of the last hidden layer go in the infinitely wide network, trained at the rates its layers have at width m.

h = σ W φ(σ V x/√d)/√m, f = σ a·φ(h)/√m. A step of rate η in standard parametrisation is one of η n/σ² in this one, in each layer
by its fan-in n: d, m and m; the first layer's part falls behind as 1/m. With Σ^l and Θ^(l) of ``kerneltrack.analytic``, e^l for
σ² E[φ'φ'] of Σ^l, and rates r of the first layer and s of the others, T steps of η = N/(2λ_1) of the linearised network leave

    K = r Θ^(1) + s (Θ^(2) + Θ^(3)),   S = η/N Σ_t (f_t − y) = B (f_0 − y),   B = (1 − (1 − ηK/N)^T) K^−1,
    −Δh_i(x) = m^−½ Σ_x' S(x') σ [a_i φ'(h_i(x')) G(x, x') + r Σ_j≠i a_j φ'(h_j(x')) M_ij(x, x')],   G = r e^1 Σ^1 + s Σ^2,

with M_ij = σ²/m Σ_k W_ik W_jk φ'_k(x) φ'_k(x') Σ^1(x, x'). For j ≠ i its mean is 0 and its size m^−½, and there are m of them. So
E[Δh_i²] is a sum over pairs of points of E[S Sᵀ] = B (Σ^3 + yyᵀ) B and e^2, times G G and, of the others, r² σ⁴ Σ^1 Σ^1 times
E[φ'(x)² φ'(x') φ'(x'')], which is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from wide_networks import GAIN, Activation, Parametrisation

from kerneltrack import analytic

#: Neurons of the first layer by which E[φ'(x)² φ'(x') φ'(x'')] is sampled
NEURONS = 2000


@dataclass(frozen=True)
class Lazy:
    """The linearised network of two hidden layers on one training set.

    Attributes:
        x: (N, d).
        y: (N,).
        activation: φ.
        parametrisation: "ntk" or "standard".
        steps: T.
    """

    x: Tensor
    y: Tensor
    activation: Activation
    parametrisation: Parametrisation
    steps: int

    def deviation(self, width: int) -> float:
        """The root of the mean of Δh_i(x)² over neurons, training points and initialisations."""
        gain, inputs = GAIN[self.activation], self.x.shape[1]
        first, other = (1.0, 1.0) if self.parametrisation == "ntk" else (inputs / gain, width / gain)
        options = {"activation": self.activation, "weight_variance": gain}
        one, two, three = (analytic.nngp(self.x, depth=depth, **options) for depth in (1, 2, 3))
        parts = analytic.ntk(self.x, depth=3, by_layer=True, **options)
        values, vectors = torch.linalg.eigh(first * parts[0] + other * (parts[1] + parts[2]))
        gone = 1 - (1 - values / (2 * values[-1])) ** self.steps
        learned = vectors @ torch.diag(gone / values) @ vectors.T
        moved = learned @ (three + torch.outer(self.y, self.y)) @ learned * self._gates(two, gain)
        own = first * self._gates(one, gain) * one + other * two
        squares = torch.einsum("xa,ab,xb->x", own, moved, own) + (first * gain) ** 2 * self._others(one, moved)
        return float((squares.mean() / width).sqrt())

    def _gates(self, sigma: Tensor, gain: float) -> Tensor:
        """σ² E[φ'φ']."""
        size = sigma.diagonal()
        return gain * analytic.dual_pair(size[:, None], size, sigma, activation=self.activation)[1]

    def _others(self, one: Tensor, moved: Tensor) -> Tensor:
        """Σ_x'x'' C(x', x'') Σ^1(x, x') Σ^1(x, x'') E[φ'(x)² φ'(x') φ'(x'')] at every x, (N,)."""
        return torch.einsum("xab,ab,xa,xb->x", self._fourth, moved, one, one)

    @cached_property
    def _fourth(self) -> Tensor:
        """E[φ'(x)² φ'(x') φ'(x'')] of the first layer, (N, N, N), by :data:`NEURONS` of its neurons."""
        one = analytic.nngp(self.x, depth=1, activation=self.activation, weight_variance=GAIN[self.activation])
        values, vectors = torch.linalg.eigh(one)
        noise = torch.randn(NEURONS, len(one), generator=torch.Generator().manual_seed(0), dtype=one.dtype)
        h = noise * values.clamp_min(0).sqrt() @ vectors.T
        slopes = (1 - torch.tanh(h) ** 2) if self.activation == "tanh" else (h > 0).to(h.dtype)
        return torch.stack([(slopes * row.square().unsqueeze(1)).T @ slopes for row in slopes.T]) / NEURONS
