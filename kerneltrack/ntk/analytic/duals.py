"""Activations whose E[φ(u)φ(v)] has a closed form, u and v centred normal with variances p, q and covariance c = ρ√(pq)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.analytic.covariances import Covariances, Moments, gap_of, safe_ratio


@dataclass(frozen=True)
class PiecewiseLinear:
    """φ(u) = u for u > 0 and s·u below: the ReLU (s = 0), leaky ones, u itself (s = 1) and |u| (s = −1).

        E[φφ] = a √(pq) (ρ + b (κ_1(ρ) − ρ)),   E[φ'φ'] = a (1 − b θ/π),   a = (1 + s²)/2,  b = (1 − s)²/(1 + s²)

    with ρ = cos θ and κ_1 − ρ = (sin θ − θ cos θ)/π, the arc-cosine kernel of degree 1 (Cho & Saul 2009): φ is (1 + s)/2 of u and
    (1 − s)/2 of |u|, and these two are uncorrelated.

    Attributes:
        slope: s.
    """

    slope: float = 0.0

    def moments(self, layer: Covariances) -> Moments:
        """Of φ at these pre-activations."""
        size, bend = (1 + self.slope**2) / 2, (1 - self.slope) ** 2 / (1 + self.slope**2)
        angle = 2 * torch.asin((layer.apart / 2).sqrt())
        growth = bend * _kappa1_gap(angle)
        return Moments(
            size * layer.one,
            size * layer.two,
            size * layer.scale * (1 - layer.apart + growth),
            size * layer.scale * (layer.apart - growth),
            size * (1 - bend * angle / torch.pi),
        )


@dataclass(frozen=True)
class Erf:
    """φ(u) = erf(u) (Williams 1998, "Computation with infinite neural networks").

    E[φφ] = (2/π) asin(2c/√((1 + 2p)(1 + 2q))),   E[φ'φ'] = (4/π)/√((1 + 2p)(1 + 2q) − 4c²)
    """

    def moments(self, layer: Covariances) -> Moments:
        """Of φ at these pre-activations."""
        p, q = layer.one, layer.two
        root_p, root_q = (1 + 4 * p).sqrt(), (1 + 4 * q).sqrt()
        # E[φ(u)²] = 2α/π, E[φ(v)²] = 2β/π, E[φφ] = 2γ/π; pq − c² is pq(1 − ρ)(1 + ρ)
        cross = p * q * layer.apart * (2 - layer.apart)
        rest = (1 + 2 * p + 2 * q + 4 * cross).sqrt()
        alpha, beta = torch.atan2(2 * p, root_p), torch.atan2(2 * q, root_q)
        gamma, mean = torch.atan2(2 * layer.both, rest), (alpha + beta) / 2
        # sin²((α + β)/2) − sin²γ = sin((α + β)/2 − γ) sin((α + β)/2 + γ) is a sum of what is positive
        squares = (4 * (p - q).square() / (root_p + root_q).square() + 4 * cross) / ((1 + 2 * p) * (1 + 2 * q))
        near = torch.asin(safe_ratio(squares, torch.sin(mean + gamma)).clamp(0, 1))
        half = near.where(layer.apart < 0.5, mean - gamma)
        one, two = 2 / torch.pi * alpha, 2 / torch.pi * beta
        return Moments(one, two, 2 / torch.pi * gamma, gap_of(one, two, 4 / torch.pi * half), 4 / torch.pi / rest)


@dataclass(frozen=True)
class Wave:
    """φ(u) = sin(u) with ``odd``, else cos(u); E[φ'φ'] of one is E[φφ] of the other.

    E[sin u sin v] = (e^{−(p+q)/2+c} − e^{−(p+q)/2−c})/2,   E[cos u cos v] = (e^{−(p+q)/2+c} + e^{−(p+q)/2−c})/2
    """

    odd: bool

    def moments(self, layer: Covariances) -> Moments:
        """Of φ at these pre-activations."""
        sign, p, q = -1 if self.odd else 1, layer.one, layer.two
        between = (p.sqrt() - q.sqrt()).square() / 2 + layer.scale * layer.apart  # E[(u − v)²]/2
        near, far = torch.exp(-between), torch.exp(between - p - q)
        one, two = (1 + sign * torch.exp(-2 * p)) / 2, (1 + sign * torch.exp(-2 * q)) / 2
        if self.odd:  # of small p, to its own digits
            one, two = -torch.expm1(-2 * p) / 2, -torch.expm1(-2 * q) / 2
        tilt = (torch.exp(-p) * torch.expm1(p - q)).square() / 2
        squared = -torch.expm1(-between) * (1 - sign * far) + sign * tilt
        return Moments(one, two, (near + sign * far) / 2, gap_of(one, two, squared), (near - sign * far) / 2)


def _kappa1_gap(angle: Tensor) -> Tensor:
    """κ_1(cos θ) − cos θ = (sin θ − θ cos θ)/π.

    By its series below θ = 0.05 where the difference would cancel.
    """
    series = angle**3 * (1 / 3 - angle**2 / 30 + angle**4 / 840)
    gap: Tensor = series.where(angle < 0.05, torch.sin(angle) - angle * torch.cos(angle)) / torch.pi
    return gap
