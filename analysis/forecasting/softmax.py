"""Softmax: the network linearised at a state, trained on its cross-entropy: f ← f − (η/N) Θ (p(f) − y).

It is the S-weighted flow m ← m − (η/N) SΘm, S = diag(p) − ppᵀ at every point, with S as it is after each update: exact for a model
that is linear, at every rate below its edge. The modes do not go on one by one, and so the whole kernel is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.conventions import Momentum
from kerneltrack.regression import MeanLoss

from ..trajectory import Floats, Ints
from .law import Followed


@dataclass(frozen=True, eq=False)
class Softmax:
    """A state of a cross-entropy.

    Attributes:
        values: (M,) λ_i, descending.
        vectors: (M, M) v_i, rows ordered (sample, output).
        outputs: (N, C) f_t as the kernel meets them.
        loss: L of such functions.
        momentum: of the optimizer.
        ratio: ρ per unit of the rate; NaN where it is not known.
    """

    values: Floats
    vectors: Floats
    outputs: Floats
    loss: MeanLoss
    momentum: Momentum
    ratio: float = float("nan")

    @property
    def speeds(self) -> Floats:
        """λ_i/N."""
        return np.asarray(np.maximum(self.values, 0.0) / len(self.outputs))

    @property
    def curvature(self) -> float:
        """½: diag(p) − ppᵀ has no larger eigenvalue."""
        return 0.5

    @property
    def above(self) -> tuple[int, ...]:
        """None is told: modes are mixed by S."""
        return ()

    @property
    def oscillation(self) -> float:
        """Not told either."""
        return float("nan")

    def follow(self, rate: float, updates: Ints, *, furthest: float) -> Followed:
        """Update by update, as far as ``furthest``; the memory of momentum is empty at the start."""
        if self.ratio * rate > 1:
            return self._nothing(
                updates, f"at {rate:g} the state stands above the edge of stability (ρ = {self.ratio * rate:.2g})"
            )
        outputs, memory = self.outputs, np.zeros_like(self.outputs)
        found = np.full((len(updates), len(self.values) + 3), np.nan)
        for k in range(int(updates[-1]) + 1):
            gradient = self.loss.gradient(outputs)
            if (here := np.flatnonzero(updates == k)).size:
                found[here[0]] = self._told(outputs, gradient)
                if found[here[0], 0] > furthest:
                    break
            memory, taken = self._remembered(memory, gradient, first=k == 0)
            outputs = outputs - rate * self._product(taken)
        way, loss, pull = found[:, :3].T
        return Followed(found[:, 3:], way, loss, pull)

    def _told(self, outputs: Floats, gradient: Floats) -> Floats:
        """Way, loss, ‖m‖/N, and m along the modes."""
        numbers = [np.linalg.norm(outputs - self.outputs), self.loss.value(outputs), np.linalg.norm(gradient)]
        return np.concatenate([numbers, self.vectors.T @ gradient.ravel() * len(outputs)])

    def _remembered(self, memory: Floats, gradient: Floats, *, first: bool) -> tuple[Floats, Floats]:
        """The memory after an update, and what it steps along."""
        rule = self.momentum
        if not rule.beta:
            return memory, gradient
        memory = gradient if first else rule.beta * memory + (1 - rule.dampening) * gradient
        return memory, gradient + rule.beta * memory if rule.nesterov else memory

    def _product(self, phi: Floats) -> Floats:
        """Θφ."""
        return np.asarray((self.vectors @ (self.values * (self.vectors.T @ phi.ravel()))).reshape(phi.shape))

    def _nothing(self, updates: Ints, reason: str) -> Followed:
        found = np.full((len(updates), len(self.values) + 3), np.nan)
        found[0] = self._told(self.outputs, self.loss.gradient(self.outputs))
        way, loss, pull = found[:, :3].T
        return Followed(found[:, 3:], way, loss, pull, reason=reason)
