"""SeedEffects: what a learning-rate change did over several seeds, as paired differences of each run and its own control.

A control is matched by state, not by name: it is the one archive that was in the same state at the change (equal λ_1)
and kept the rate. Seeds are then the unit: the difference of run and control is one number per seed. Below six seeds
their range is given, from six on also Student's 95 % interval of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from kerneltrack.errors import AnalysisError

from ..derived import nearest
from ..text import BAND_RUNS, Table, count, finite_or_none, number, signed
from ..trajectory import Floats, Run, Trajectory
from .change_effects import ChangeEffects
from .effects import lr_decay_effects
from .wording import quantities


@dataclass(frozen=True)
class PairedDifference:
    """Run less control of one quantity at one moment, over seeds.

    Attributes:
        name: the quantity.
        offset: updates since the change.
        differences: (seeds,).
        mean: their mean.
        interval: Student's 95 % interval of the mean; NaN below six seeds.
    """

    name: str
    offset: int
    differences: Floats
    mean: float
    interval: tuple[float, float]

    @property
    def same_sign(self) -> int:
        """How many seeds have the sign of the mean."""
        return int(np.sum(np.sign(self.differences) == np.sign(self.mean)))


@dataclass(frozen=True)
class SeedEffects:
    """One change that every seed made, with its paired differences.

    Attributes:
        step: the step of the change, the same in every run.
        old: rates before.
        new: rates after.
        pairs: names of (run, control).
        differences: one per quantity and moment that all pairs share.
    """

    step: int
    old: tuple[float, ...]
    new: tuple[float, ...]
    pairs: tuple[tuple[str, str], ...]
    differences: tuple[PairedDifference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return {
            "step": self.step,
            "old_learning_rates": list(self.old),
            "new_learning_rates": list(self.new),
            "pairs": [list(pair) for pair in self.pairs],
            "differences": [
                {
                    "quantity": d.name,
                    "offset": d.offset,
                    "differences": d.differences.tolist(),
                    "mean": d.mean,
                    "interval_95": [finite_or_none(v) for v in d.interval],
                    "same_sign": d.same_sign,
                }
                for d in self.differences
            ],
        }


def matched_control(run: Run, controls: Sequence[Run]) -> Run | None:
    """The control that shares the state at one of the run's changes and kept the rate, or None."""
    for control in controls:
        if any(change.has_control for change in lr_decay_effects(run, control).changes):
            return control
    return None


def effects_over_seeds(runs: Trajectory, controls: Trajectory) -> tuple[SeedEffects, ...]:
    """Paired differences over seeds, for every change that all runs made at the same step.

    Raises:
        AnalysisError: fewer than two runs, a run whose control is not there, or no change in common.
    """
    if len(runs) < 2:
        raise AnalysisError("paired differences over seeds", expected="two runs or more", got=len(runs))
    runs.comparable()
    found: list[tuple[ChangeEffects, ...]] = []
    pairs: list[tuple[str, str]] = []
    for run in runs:
        control = matched_control(run, list(controls))
        if control is None:
            raise AnalysisError(
                f"{run.name} has no control",
                expected="an archive in the same state at the change that kept the rate",
                got=", ".join(c.name for c in controls),
                remedy="Give --control for every seed.",
            )
        pairs.append((run.name, control.name))
        found.append(lr_decay_effects(run, control).changes)
    places = [{(c.change.step, c.change.old, c.change.new): c for c in changes if c.has_control} for changes in found]
    common = sorted(set.intersection(*(set(place) for place in places)))
    if not common:
        raise AnalysisError("the runs changed their learning rates at no common step", got=[*map(list, places)])
    return tuple(
        SeedEffects(*place, tuple(pairs), tuple(_differences([known[place] for known in places]))) for place in common
    )


def _differences(changes: Sequence[ChangeEffects]) -> list[PairedDifference]:
    by_offset = [{m.offset: m.difference for m in change.after} for change in changes]
    found = []
    for offset in sorted(set.intersection(*(set(known) for known in by_offset))):
        moments = [known[offset] for known in by_offset]
        for name in moments[0]:
            values = np.array([moment.get(name, np.nan) for moment in moments])
            if np.isfinite(values).all():
                found.append(PairedDifference(name, offset, values, float(values.mean()), _interval(values)))
    return found


def _interval(values: Floats) -> tuple[float, float]:
    if len(values) < BAND_RUNS:
        return float("nan"), float("nan")
    reach = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - reach, float(values.mean()) + reach


def seed_table(effects: SeedEffects, energy_k: tuple[int, ...]) -> Table:
    """Mean difference of run and control at each common moment, with its range or interval."""
    offsets = sorted({d.offset for d in effects.differences})
    at = {(d.name, d.offset): d for d in effects.differences}
    rows = [
        [label, *(_cell(at.get((name, offset))) for offset in offsets)]
        for name, label in quantities(energy_k)
        if any((name, offset) in at for offset in offsets)
    ]
    seeds = len(effects.pairs)
    kind = "range over seeds" if seeds < BAND_RUNS else "95 % interval of the mean"
    rates = "; ".join(f"{old:g} → {new:g}" for old, new in zip(effects.old, effects.new, strict=True))
    return Table(
        f"Effect of the learning rate {rates} at step {count(effects.step)}, {seeds} seeds",
        ["run less control", *(f"+{count(offset)}" for offset in offsets)],
        rows,
        (f"Mean over {seeds} paired differences [{kind}].",),
    )


def seed_sentence(effects: SeedEffects, energy_k: tuple[int, ...]) -> str:
    """The effect in words: residual energy one update after, λ_1 at the last common moment."""
    k = nearest(energy_k, 20)
    parts = []
    for name, label, first in (
        (f"residual_energy_{k}", f"the residual energy in the first {k} modes", True),
        ("eigenvalue_1", "λ₁", False),
    ):
        known = [d for d in effects.differences if d.name == name]
        if known:
            d = known[0] if first else known[-1]
            when = "one step" if d.offset == 1 else f"{count(d.offset)} steps"
            parts.append(
                f"{label} by {signed(d.mean, 2)} ({when} after; {d.same_sign} of {len(d.differences)} seeds in this "
                "direction)"
            )
    rates = f"{effects.old[0]:g} to {effects.new[0]:g}"
    changed = " and ".join(parts) if parts else "nothing that both archives hold"
    return (
        f"Over {len(effects.pairs)} seeds, each against its own control, the change of the learning rate from {rates} at "
        f"step {count(effects.step)} moved {changed}."
    )


def _cell(d: PairedDifference | None) -> str:
    if d is None:
        return "–"
    low, high = d.interval if np.isfinite(d.interval[0]) else (float(d.differences.min()), float(d.differences.max()))
    return f"{signed(d.mean, 2)} [{number(low, 2)}, {number(high, 2)}]"
