"""From layer to layer of an infinitely wide network: its Σ and Θ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.covariances import Covariances, Dual, safe_ratio

#: The mean over what a neuron of the next layer sees at each of its places: a window of pixels. None where it sees all as one.
Window = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """h^{l+1} = σ_w/√n Σ W φ(h^l) + σ_b b over the n entries that are seen; every parameter N(0, 1).

        Σ^{l+1} = σ_w² ⟨E[φ(u)φ(v)]⟩ + σ_b²,   Θ^{l+1} = Σ^{l+1} + σ_w² ⟨E[φ'(u)φ'(v)] Θ^l⟩,   (u, v) ~ N(0, Σ^l)

    with ⟨⟩ the mean over the window, and Θ^1 = Σ^1. Layer l's own part of Θ is Σ^l, carried through the layers above.

    Attributes:
        first: the covariances of the first layer.
        windows: of each layer after it.
        activation: φ.
        weight: σ_w².
        bias: σ_b².
    """

    first: Covariances
    windows: Iterable[Window | None]
    activation: Dual
    weight: float
    bias: float

    def nngp(self) -> Tensor:
        """Σ of the last layer."""
        sigma = self.first.both
        for above, _ in self._above():
            sigma = above
        return sigma

    def ntk(self) -> Tensor:
        """Θ of the last layer."""
        theta = self.first.both
        for sigma, carried in self._above():
            theta = sigma + carried(theta)
        return theta

    def layer_ntks(self) -> Tensor:
        """Each layer's part of Θ, the first one first: (L, …)."""
        parts = [self.first.both]
        for sigma, carried in self._above():
            parts = [*map(carried, parts), sigma]
        return torch.stack(parts)

    def _above(self) -> Iterator[tuple[Tensor, Window]]:
        """For each layer after the first, its Σ and what it makes of the kernel below."""
        layer = self.first
        for window in self.windows:
            layer, slopes = self._next(layer, window)
            yield layer.both, self._carrier(slopes, window)

    def _carrier(self, slopes: Tensor, window: Window | None) -> Window:
        mean = window or _alone
        return lambda theta: self.weight * mean(slopes * theta)

    def _next(self, layer: Covariances, window: Window | None) -> tuple[Covariances, Tensor]:
        found, mean = self.activation.moments(layer), window or _alone
        p, q, gap = (self.weight * mean(part) for part in (found.one, found.two, found.gap))
        if window is not None:
            gap = gap + self.weight * _unequal(found.one, found.two, window)
        one, two, both = p + self.bias, q + self.bias, self.weight * mean(found.both) + self.bias
        scale = (one * two).sqrt()
        # 1 − ρ' from 1 − ρ: the bias term b adds (√(p q) − s − b) with p = s_1 + b, q = s_2 + b, kept
        # positive by its own form.
        gap = gap + _bias_gap(p, q, self.bias, scale)
        return Covariances(one, two, both, safe_ratio(gap, scale).clamp(0, 2)), found.slopes


def checked(depth: int, weight_variance: float, bias_variance: float) -> None:
    """Whether there is a network of these.

    Raises:
        KernelError: there is none.
    """
    if depth < 1:
        raise KernelError("the analytic kernel needs a depth", expected="depth >= 1", got=depth)
    if not (weight_variance >= 0 and bias_variance >= 0):
        raise KernelError(
            "variances are not negative",
            expected=">= 0",
            got=(weight_variance, bias_variance),
            remedy="Pass the squares of σ_w and σ_b.",
        )


def _alone(value: Tensor) -> Tensor:
    return value


def _unequal(one: Tensor, two: Tensor, window: Window) -> Tensor:
    """√(⟨p⟩⟨q⟩) − ⟨√(pq)⟩ = (⟨(√p − √q)²⟩ − (√⟨p⟩ − √⟨q⟩)²)/2: windows whose pixels differ are not parallel."""
    within = window((one.sqrt() - two.sqrt()).square())
    return (within - (window(one).sqrt() - window(two).sqrt()).square()) / 2


def _bias_gap(s1: Tensor, s2: Tensor, bias: float, scale: Tensor) -> Tensor:
    """√((s_1+b)(s_2+b)) − √(s_1 s_2) − b = b (√s_1 − √s_2)² / (√((s_1+b)(s_2+b)) + √(s_1 s_2) + b)."""
    if bias == 0:
        return torch.zeros_like(scale)
    return bias * (s1.sqrt() - s2.sqrt()).square() / (scale + (s1 * s2).sqrt() + bias)
