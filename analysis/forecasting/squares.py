"""Squares: the modes of a mean of squares, each by itself: r_i ← (1 − sηλ_i/N) r_i, with the recursion of momentum.

A mode above the edge, sηλ_i/N > 2 for plain descent, does not grow in a network: its curvature is driven back, and the mode goes
to and fro (Cohen et al. 2021, arXiv 2103.00065). At the rate that is kept it is held: its size stays. It may as well be growing,
as |1 − sηλ_i/N|^k: that much the forecast may be wrong. Below the edge of another rate it dies out, and what it added to the
loss is gone. What momentum holds of modes that turn is not known: what they have of the loss is error while it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import Momentum

from ..text import count
from ..trajectory import Floats, Ints
from .law import Followed
from .recursion import factors, memory_of, radius, turning

Bools = NDArray[np.bool_]
#: A mode that 1 − sηλ/N leaves as it is to this share is at the edge, not above it.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Squares:
    """A state of a mean of squares.

    Attributes:
        values: (M,) λ_i.
        coefficients: (M,) ⟨v_i, m⟩.
        slope: s = ∂m/∂f.
        samples: N.
        kept: the rate that is kept.
        momentum: of the optimizer.
        begun: updates before the state.
        outside: the share of ‖m‖² that lies in modes which are not stored.
    """

    values: Floats
    coefficients: Floats
    slope: float
    samples: int
    kept: float
    momentum: Momentum
    begun: int
    outside: float = 0.0

    @property
    def speeds(self) -> Floats:
        """s λ_i/N; what is below 0 is rounding."""
        return np.asarray(self.slope * np.maximum(self.values, 0.0) / self.samples)

    @property
    def curvature(self) -> float:
        """s."""
        return self.slope

    @cached_property
    def held(self) -> Bools:
        """(M,) whether a mode stands above the edge at the rate that is kept."""
        return self._is_above(self.kept)

    @property
    def above(self) -> tuple[int, ...]:
        """The same as numbers from 1."""
        return tuple(int(i) + 1 for i in np.flatnonzero(self.held))

    @property
    def oscillation(self) -> float:
        """Σ of r_i² above the edge over Σ of all; NaN where modes are not stored."""
        if self.outside:
            return float("nan")
        with np.errstate(invalid="ignore"):
            return float(np.sum(self.coefficients[self.held] ** 2) / np.sum(self.coefficients**2))

    def follow(self, rate: float, updates: Ints, *, furthest: float) -> Followed:
        """In closed form, however far."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = factors(rate * self.speeds, updates, self.momentum, self._memory)
            away, slack = np.abs(found - 1), self._turned(rate, updates)
            if rate == self.kept:
                found[:, self.held] = (-1.0) ** updates[:, None]
                away[:, self.held], growth = self._grown(updates)
                slack = slack + growth
            unknown = self._unknown(rate) & (updates > 0)[:, None]
            found, away = (np.where(unknown, np.nan, each) for each in (found, away))
            residual = found * self.coefficients
            way = np.sqrt(np.nansum((away * self.coefficients) ** 2, axis=1)) / self.slope
            squares = np.sum(residual**2, axis=1)
            loss = squares / self._per_loss if not self.outside else np.full(len(updates), np.nan)
        return Followed(residual, way, loss, np.sqrt(squares) / self.samples, slack, self._reason(rate))

    @property
    def _per_loss(self) -> float:
        """‖m‖²/L."""
        return 2 * self.samples * self.slope

    @cached_property
    def _memory(self) -> Floats:
        return memory_of(self.kept * self.speeds, self.momentum, self.begun)

    def _grown(self, updates: Ints) -> tuple[Floats, Floats]:
        """Of the modes that are held: how far from the start each may be (K, held), and what growing would add to the loss (K,)."""
        size = radius(self.kept * self.speeds[self.held], self.momentum) ** updates[:, None]
        return 1 + size, np.asarray((size**2 - 1) @ self.coefficients[self.held] ** 2 / self._per_loss)

    def _turned(self, rate: float, updates: Ints) -> Floats:
        """What the modes hold whose phase is not known, as it dies out, (K,)."""
        which = turning(self.kept * self.speeds, self.momentum) & (self.begun > 0)
        left = radius(rate * self.speeds[which], self.momentum) ** (2 * updates[:, None])
        return np.where(updates > 0, left @ self.coefficients[which] ** 2 / self._per_loss, 0.0)

    def _is_above(self, rate: float) -> Bools:
        return np.asarray(radius(rate * self.speeds, self.momentum) > 1 + _ROUNDING)

    def _unknown(self, rate: float) -> Bools:
        """(M,) modes above the edge of a rate that has not held them."""
        return np.asarray(self._is_above(rate) & (self.coefficients != 0) & (rate != self.kept))

    def _reason(self, rate: float) -> str:
        if (over := self._unknown(rate)).any():
            return f"at {rate:g} {_modes(over)} above the edge of stability, where no linear forecast holds"
        if not self.outside:
            return ""
        share = 100 * self.outside
        return (
            f"{share:.2g} % of the residual lies outside the modes that are stored (eigenpairs='all' stores every one)"
        )


def _modes(which: Bools) -> str:
    """As in "mode 1 stands", "12 modes stand"."""
    found = np.flatnonzero(which) + 1
    return f"{count(len(found))} modes stand" if len(found) > 1 else f"mode {found[0]} stands"
