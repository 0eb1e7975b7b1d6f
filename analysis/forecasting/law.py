"""Law: how the residual of a state goes on while its kernel stands still; one for squares, one for cross-entropies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..trajectory import Floats, Ints


@dataclass(frozen=True, eq=False)
class Followed:
    """What a law makes of a state at one learning rate, before it is asked how far that can be believed.

    Attributes:
        residual: (K, M) ⟨v_i, m⟩ after each number of updates; NaN where ``reason`` says why.
        way: (K,) ‖f_{t+k} − f_t‖ of what is known.
        loss: (K,); NaN where ``reason`` says why.
        pull: (K,) ‖m‖/N, the norm of the loss's gradient by the outputs.
        slack: (K,) what else the loss may be off by, beside what a kernel that moves would do.
        reason: why something is NaN; "" where nothing is.
    """

    residual: Floats
    way: Floats
    loss: Floats
    pull: Floats
    slack: Floats | float = 0.0
    reason: str = ""


class Law(Protocol):
    """A state with its kernel."""

    @property
    def values(self) -> Floats:
        """(M,) λ_i."""
        ...

    @property
    def speeds(self) -> Floats:
        """(M,) s λ_i/N."""
        ...

    @property
    def curvature(self) -> float:
        """A bound on the loss's second derivative along any direction of the outputs, times N."""
        ...

    @property
    def above(self) -> tuple[int, ...]:
        """Modes, from 1, that stand above the edge at the rate that is kept."""
        ...

    @property
    def oscillation(self) -> float:
        """Their share of the loss."""
        ...

    def follow(self, rate: float, updates: Ints, *, furthest: float) -> Followed:
        """What follows at a rate; beyond a way of ``furthest`` nothing need be told."""
        ...
