"""Forecast: what a run would do from one of its states at a rate that is held, and at another one. Nothing is computed here.

A run gives its own forecast, and what makes one stands above runs: so it is put here when the analysis is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Course:
    """What follows a state at one learning rate.

    Attributes:
        rate: η, held.
        loss: (K,) L on the probe after each number of updates; NaN where ``reason`` says why.
        loss_error: (K,) bound on |forecast − loss| that the linearisation errors support; NaN with ``loss``.
        residual: (K, M) ⟨v_i, m⟩ after each, v_i the eigenvectors of the state; NaN with ``loss``, or of single modes.
        way_error: (K,) E, the relative error of the outputs' way f_{t+k} − f_t; known beyond the horizon too.
        horizon: the last of the updates that the linearisation errors support.
        reason: why there is NaN; "" where there is none.
    """

    rate: float
    loss: Floats
    loss_error: Floats
    residual: Floats
    way_error: Floats
    horizon: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become None."""
        return {
            "rate": self.rate,
            "loss": _listed(self.loss),
            "loss_error": _listed(self.loss_error),
            "residual_coefficients": [_listed(row) for row in self.residual],
            "way_error": _listed(self.way_error),
            "horizon": self.horizon,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, eq=False)
class Forecast:
    """Two learning rates from one state on: the one that is kept, and the one it is changed to.

    ``run.forecast(rate)`` makes one. While the kernel stands still, k updates of gradient descent at η leave of the residual along
    eigenvector v_i r_i ← (1 − sηλ_i/N)^k r_i (Kopitkov and Indelman 2020, §3); with momentum and for a cross-entropy see there.

    Attributes:
        run: the run's name.
        probe: the probe's name.
        step: t of the state.
        updates: (K,) numbers of updates after it, ascending from 0.
        eigenvalues: (M,) λ_i of the state's kernel.
        speeds: (M,) λ_i s/N, of which η times is what an update takes off mode i; s = 1 for a cross-entropy.
        loss: L of the state.
        kept: what follows at the rate that is kept.
        changed: what follows at the other.
        above: modes, from 1, that stand above the edge at the rate that is kept: they oscillate, and go on while it is.
        oscillation: the share of the loss that is theirs; NaN where it is not known.
        notes: what a reader must know.
    """

    run: str
    probe: str
    step: int
    updates: Ints
    eigenvalues: Floats
    speeds: Floats
    loss: float
    kept: Course
    changed: Course
    above: tuple[int, ...]
    oscillation: float
    notes: tuple[str, ...] = ()

    @property
    def effect(self) -> Floats:
        """(K,) loss at the changed rate less that at the kept one."""
        return self.changed.loss - self.kept.loss

    @property
    def effect_error(self) -> Floats:
        """(K,) the sum of both errors."""
        return self.changed.loss_error + self.kept.loss_error

    @property
    def horizon(self) -> int:
        """The last update that both rates support."""
        return min(self.kept.horizon, self.changed.horizon)

    def at(self, updates: int) -> int:
        """The index of a number of updates along K.

        Raises:
            KeyError: it is none of ``updates``.
        """
        told = [int(k) for k in self.updates]
        if updates not in told:
            raise KeyError(f"{updates} updates; forecast: {told}")
        return told.index(updates)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become None."""
        return {
            "run": self.run,
            "probe": self.probe,
            "step": self.step,
            "updates": [int(k) for k in self.updates],
            "eigenvalues": _listed(self.eigenvalues),
            "loss": _number(self.loss),
            "kept": self.kept.to_dict(),
            "changed": self.changed.to_dict(),
            "effect": _listed(self.effect),
            "effect_error": _listed(self.effect_error),
            "horizon": self.horizon,
            "modes_above_the_edge": list(self.above),
            "oscillation": _number(self.oscillation),
            "notes": list(self.notes),
        }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(values: Floats) -> list[float | None]:
    return [_number(value) for value in values]


_maker: list[Callable[..., Forecast]] = []


def forecast_by(maker: Callable[..., Forecast]) -> None:
    """Say what makes a forecast of (run, rate, steps, at, kept)."""
    _maker[:] = [maker]


def forecasting(
    run: object, rate: str | float, steps: int | Sequence[int], at: int | None, kept: float | None
) -> Forecast:
    """The forecast of a run, by what :func:`forecast_by` named."""
    return _maker[0](run, rate, steps=steps, at=at, kept=kept)
