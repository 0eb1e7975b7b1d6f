"""The covariances of one layer's pre-activations, and what an activation makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Covariances:
    """Of the centred normal pair u = h(x), v = h(x'), for all pairs of points.

    1 − ρ is carried beside c: of c it would cancel where points are near, and what tells such points apart is all in it.

    Attributes:
        one: p = E[u²], (N1, 1, …); dots are the pixels of a convolutional layer, none else.
        two: q = E[v²], (1, N2, …).
        both: c = E[uv], (N1, N2, …).
        apart: 1 − ρ = 1 − c/√(pq), (N1, N2, …).
    """

    one: Tensor
    two: Tensor
    both: Tensor
    apart: Tensor

    @classmethod
    def at_distance(cls, one: Tensor, two: Tensor, both: Tensor, squared: Tensor) -> Covariances:
        """Those of E[(u − v)²] = ``squared``."""
        return cls(one, two, both, safe_ratio(gap_of(one, two, squared), (one * two).sqrt()).clamp(0, 2))

    @property
    def scale(self) -> Tensor:
        """√(pq), (N1, N2, …)."""
        return (self.one * self.two).sqrt()


class Moments(NamedTuple):
    """Of φ(u) and φ(v), shapes as in :class:`Covariances`.

    Attributes:
        one: E[φ(u)²].
        two: E[φ(v)²].
        both: E[φ(u)φ(v)].
        gap: √(E[φ(u)²] E[φ(v)²]) − E[φ(u)φ(v)], to its own digits where it is small.
        slopes: E[φ'(u)φ'(v)], which is ∂E[φ(u)φ(v)]/∂c.
    """

    one: Tensor
    two: Tensor
    both: Tensor
    gap: Tensor
    slopes: Tensor


class Dual(Protocol):
    """An activation, as far as infinitely wide networks know it."""

    def moments(self, layer: Covariances) -> Moments:
        """Of φ at these pre-activations."""


def gap_of(one: Tensor, two: Tensor, squared: Tensor) -> Tensor:
    """√(pq) − c = (E[(u − v)²] − (√p − √q)²)/2, without a difference of large numbers."""
    return (squared - (one.sqrt() - two.sqrt()).square()) / 2


def safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A point of norm zero has no angle.

    It is taken as its own direction, ρ = 1 (its kernel entries are zero anyway).
    """
    ratio: Tensor = numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)
    return ratio.where(denominator > 0, 0.0)
