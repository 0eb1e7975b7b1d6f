"""A run beside its control after a change of the rate: by what factor each number differs, and which of these tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..derived import MOVED, nearest
from ..lr_decay import ChangeEffects, TimePoint, TrendCurve


def factors(change: ChangeEffects | TrendCurve, energy_k: tuple[int, ...]) -> dict[str, float]:
    """Run over control: of the residual's energy one step after the change, of λ_1 and the loss at the last common moment."""
    looked = looked_at(change, energy_k)
    return {name: m.numbers[stored] / m.control[stored] for name, (m, stored) in looked.items()}


def looked_at(change: ChangeEffects | TrendCurve, energy_k: tuple[int, ...]) -> dict[str, tuple[TimePoint, str]]:
    """Where each of these is looked at, and what it is called there."""
    wanted = [("eigenvalue_1", "eigenvalue_1", -1), ("probe_loss", "probe_loss", -1)]
    k = nearest(energy_k, 20)
    wanted += [("residual_energy", f"residual_energy_{k}", 0)] if k is not None else []
    found = {}
    for name, stored, which in wanted:
        both = [m for m in change.after if stored in m.numbers and stored in m.control]
        both = [m for m in both if np.isfinite(m.numbers[stored] + m.control[stored]) and m.control[stored] > 0]
        if both:
            found[name] = both[which], stored
    return found


def differs(factor: float) -> bool:
    """Whether a factor is far enough from 1 to be told at all."""
    # a factor of 1.1 in the decimal numbers of a file is 1.1 less a rounding after the division
    return max(factor, 1 / factor if factor > 0 else np.inf) >= MOVED * (1 - 1e-12)


def differing(change: ChangeEffects | TrendCurve, energy_k: tuple[int, ...], found: Mapping[str, float]) -> list[str]:
    """Of what differs, what differs by more than other batches alone make it."""
    at = looked_at(change, energy_k)
    return [name for name, factor in found.items() if differs(factor) and change.tells(*at[name])]
