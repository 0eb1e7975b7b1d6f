"""The network of a bandit: one hidden ReLU layer on e_k ⊗ x, of which only the d entries of arm k are multiplied.

    f(x, k) = √(2/m) Σ_r a_r relu(⟨w_kr, x⟩)

Its gradient has few entries, so the kernel of two pairs (x, k), (x', k'), each with the parameters of its own moment, is

    ⟨g, g'⟩ = 1{k = k'} ⟨x, x'⟩ ⟨b, b'⟩ + ⟨h, h'⟩,   b_r = √(2/m) a_r 1{⟨w_kr, x⟩ > 0},   h_r = √(2/m) relu(⟨w_kr, x⟩).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: of the heavy ball
MOMENTUM = 0.9


@dataclass(frozen=True)
class Tangents:
    """Gradients of n outputs, as their factors.

    Attributes:
        x: (n, d).
        arms: (n,).
        back: (n, m) b.
        hidden: (n, m) h.
    """

    x: np.ndarray
    arms: np.ndarray
    back: np.ndarray
    hidden: np.ndarray

    def kernel(self, other: Tangents) -> np.ndarray:
        """(n, n') ⟨g, g'⟩."""
        first = (self.x @ other.x.T) * (self.back @ other.back.T) * (self.arms[:, None] == other.arms)
        return np.asarray(first + self.hidden @ other.hidden.T)

    @property
    def squares(self) -> np.ndarray:
        """(n,) ‖g‖²."""
        x, back, hidden = (np.einsum("ij,ij->i", part, part) for part in (self.x, self.back, self.hidden))
        return np.asarray(x * back + hidden)

    def __getitem__(self, rows: slice) -> Tangents:
        return Tangents(self.x[rows], self.arms[rows], self.back[rows], self.hidden[rows])

    @classmethod
    def join(cls, parts: list[Tangents]) -> Tangents:
        x, arms, back, hidden = (np.concatenate([getattr(part, name) for part in parts]) for name in _FACTORS)
        return cls(x, arms, back, hidden)


_FACTORS = ("x", "arms", "back", "hidden")


@dataclass(frozen=True)
class Arm:
    """What an arm has seen. The gradients of its w are in the span of its contexts: w = w_0 + Cᵀx, and C is what is updated.

    Attributes:
        rows: (n,) of all that was chosen.
        gram: (n, n) ⟨x, x'⟩.
        outputs: (n, m) ⟨w_0r, x⟩.
        rewards: (n,).
        along: (n, m) C.
        velocity: (n, m).
    """

    rows: np.ndarray
    gram: np.ndarray
    outputs: np.ndarray
    rewards: np.ndarray
    along: np.ndarray
    velocity: np.ndarray


class ArmNetwork:
    """Weights of a half of the units are N(0, 1); the other half has the same w and −a, so that f = 0 at the start.

    Args:
        arms: K.
        inputs: d.
        width: m, even.
        seed: of the weights.
    """

    def __init__(self, arms: int, inputs: int, width: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        w, a = rng.standard_normal((arms, width // 2, inputs)), rng.standard_normal(width // 2)
        self.first, self.readout = np.concatenate([w, w], axis=1), np.concatenate([a, -a])
        self.scale = np.sqrt(2 / width)
        self.start = self.first.copy(), self.readout.copy()
        # C and its velocity, a row for each pair that was learned from; the velocity of the readout
        self._along, self._velocity = np.zeros((2, 0, width))
        self._pace = np.zeros(width)
        self.updates = 0

    @property
    def width(self) -> int:
        return len(self.readout)

    def look(self, x: np.ndarray, arms: np.ndarray) -> tuple[np.ndarray, Tangents]:
        """Outputs (n,) at pairs of contexts (n, d) and arms (n,), and their gradients."""
        before = np.empty((len(x), self.width))
        for arm in np.unique(arms):
            rows = arms == arm
            before[rows] = x[rows] @ self.first[arm].T
        hidden = self.scale * np.maximum(before, 0.0)
        return hidden @ self.readout, Tangents(x, arms, self.scale * self.readout * (before > 0), hidden)

    def along(self, tangents: Tangents, parameters: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(n,) ⟨g, θ'⟩ of parameters (first layer, readout)."""
        first, readout = parameters
        moved = np.empty_like(tangents.back)
        for arm in np.unique(tangents.arms):
            rows = tangents.arms == arm
            moved[rows] = tangents.x[rows] @ first[arm].T
        return np.asarray(np.einsum("ij,ij->i", tangents.back, moved) + tangents.hidden @ readout)

    def prior_mean(self, values: np.ndarray, tangents: Tangents, centre: Literal["zero", "start"]) -> np.ndarray:
        """(n,) f + J(θ_p − θ): what the network linearised at θ says at θ_p = 0 or θ_0, given its outputs f and gradients."""
        first, readout = self.start if centre == "start" else (0.0, 0.0)
        return np.asarray(values - self.along(tangents, (self.first - first, self.readout - readout)))

    def learn(
        self, x: np.ndarray, arms: np.ndarray, rewards: np.ndarray, *, ridge: float, rate: float, updates: int
    ) -> None:
        """Full-batch heavy ball on ½ Σ (f − y)² + ½ λ‖θ − θ_0‖², from where the network is.

        Args:
            x: (n, d), those of the last call before new ones.
            arms: (n,), likewise.
            rewards: (n,) y.
            ridge: λ.
            rate: of descent.
            updates: how many.

        Raises:
            RuntimeError: weights that are not finite.
        """
        unseen = np.zeros((len(x) - len(self._along), self.width))
        self._along, self._velocity = (np.vstack([old, unseen]) for old in (self._along, self._velocity))
        some = {arm: self._arm(arm, np.flatnonzero(arms == arm), x, rewards) for arm in np.unique(arms).tolist()}
        for _ in range(updates):
            self._update(some.values(), ridge, rate)
        for arm, seen in some.items():
            self._along[seen.rows], self._velocity[seen.rows] = seen.along, seen.velocity
            self.first[arm] = self.start[0][arm] + seen.along.T @ x[seen.rows]
        self.updates += updates
        if not np.isfinite(self.readout).all():
            raise RuntimeError(f"descent at rate {rate:g} diverged; take a smaller share")

    def _arm(self, arm: int, rows: np.ndarray, x: np.ndarray, rewards: np.ndarray) -> Arm:
        outputs = x[rows] @ self.start[0][arm].T
        return Arm(rows, x[rows] @ x[rows].T, outputs, rewards[rows], self._along[rows], self._velocity[rows])

    def _update(self, some: Iterable[Arm], ridge: float, rate: float) -> None:
        change = ridge * (self.readout - self.start[1])
        for arm in some:
            along, velocity = arm.along, arm.velocity
            before = arm.outputs + arm.gram @ along
            hidden = self.scale * np.maximum(before, 0.0)
            residual = hidden @ self.readout - arm.rewards
            change += residual @ hidden
            velocity *= MOMENTUM
            velocity -= (rate * self.scale * residual)[:, None] * (before > 0) * self.readout
            velocity -= (rate * ridge) * along
            along += velocity
        self._pace *= MOMENTUM
        self._pace -= rate * change
        self.readout += self._pace
