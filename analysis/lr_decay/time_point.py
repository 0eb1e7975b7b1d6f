"""TimePoint: what is reported of one snapshot near a change of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..trajectory import Run

#: Scalars reported at every moment, where the archive holds them.
SCALARS = (
    "stability_ratio", "stability_bound", "trace", "effective_rank", "participation_ratio", "kernel_target_alignment",
    "kernel_target_alignment_null", "kernel_distance_from_initial", "kernel_angular_velocity", "linearization_error",
    "kernel_flow_error",
    "anchored_linearization_error", "probe_loss", "training_loss",
)  # fmt: skip
#: Energies reported at every moment: E(·, k) at the archive's own energy_k.
ENERGIES = ("residual_energy", "target_energy", "output_energy")
#: Eigenvalues reported at every moment, counted from 1.
MODES = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class TimePoint:
    """What was measured at one snapshot near a change.

    Attributes:
        row: the snapshot.
        step: its step.
        offset: updates since the first update at the new rates was due; negative before.
        numbers: name → value, as ``NAME``, ``eigenvalue_1``, ``residual_energy_20``.
        control: the same names in the control at the same step; empty without one.
    """

    row: int
    step: int
    offset: int
    numbers: Mapping[str, float]
    control: Mapping[str, float] = field(default_factory=dict)

    @property
    def difference(self) -> dict[str, float]:
        """Run minus control, for each name that both hold."""
        return {name: value - self.control[name] for name, value in self.numbers.items() if name in self.control}


def moment(run: Run, row: int, *, origin: int) -> TimePoint:
    """Everything reported at ``row``, counted from step ``origin``."""
    step = int(run.steps[row])
    return TimePoint(row, step, step - origin, numbers_of(run, row))


def numbers_of(run: Run, row: int) -> dict[str, float]:
    """Every number that is reported at ``row``."""
    eigenvalues = run.values("eigenvalues")[row]
    numbers = {f"eigenvalue_{i}": float(eigenvalues[i - 1]) for i in MODES if i <= eigenvalues.size}
    numbers |= {name: float(run.values(name)[row]) for name in SCALARS if name in run.dataset}
    if "kernel_angular_velocity" in numbers:
        numbers["kernel_angular_velocity"] = _angular_velocity(run, row)
    for name in ENERGIES:
        if name in run.dataset:
            values = run.values(name)[row]
            numbers |= {f"{name}_{k}": float(v) for k, v in zip(energy_k(run), values, strict=True)}
    return numbers


def _angular_velocity(run: Run, row: int) -> float:
    """Of the pair that begins at the row, which holds it in its second state; else of the way that led there."""
    begun = np.flatnonzero(run.groups.first == row)
    values = run.values("kernel_angular_velocity")
    paired = float(values[run.groups.second[begun[0]]]) if begun.size else float("nan")
    return paired if np.isfinite(paired) else float(values[row])


def energy_k(run: Run) -> tuple[int, ...]:
    """The k of the energies that are reported."""
    return tuple(int(k) for k in run.values("energy_k")) if "energy_k" in run.dataset.coords else ()
