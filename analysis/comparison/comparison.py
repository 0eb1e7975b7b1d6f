"""Comparison: several runs side by side at common positions, as tables.

Nothing is interpolated: a run has a value at a position only if it was measured there (:mod:`.align`). Eigenvalues are
compared as λ_i/N, because the un-normalised kernel grows with the number of probe points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import across_sizes, key_of, nearest, title_of
from ..output import distinct
from ..text import BAND_RUNS, Table, count, finite_or_none, number, plain
from ..trajectory import Floats, Trajectory
from ..withheld import gauge_note, misleading
from .align import Alignment, aligned

#: What is compared where nothing else is asked for.
DEFAULT = (
    "eigenvalue_1",
    "stability_ratio",
    "effective_rank",
    "target_energy_20",
    "kernel_distance_from_initial",
    "probe_loss",
)
_HEADS = {"step": "step", "epoch": "epoch", "samples": "samples", "flow_time": "Ση ≤", "loss": "loss ≤"}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        by: what the positions are.
        positions: (P,) steps, epochs or losses.
        runs: names.
        values: quantity → (P, runs), NaN where a run has none.
        groups: name of a run → its metadata.
        notes: what a reader must know.
        trajectory: the runs themselves.
    """

    by: Alignment
    positions: Floats
    runs: tuple[str, ...]
    values: dict[str, Floats]
    groups: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    trajectory: Trajectory

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return {
            "by": self.by,
            "positions": self.positions.tolist(),
            "runs": list(self.runs),
            "metadata": self.groups,
            "values": {
                name: [[finite_or_none(v) for v in row] for row in values] for name, values in self.values.items()
            },
            "notes": list(self.notes),
        }


def compare(trajectory: Trajectory, *, by: Alignment = "step", quantities: Sequence[str] = ()) -> Comparison:
    """Put runs side by side.

    Args:
        trajectory: two runs or more.
        by: what to align on; see :mod:`.align`.
        quantities: names of stored scalars, ``eigenvalue_i`` (λ_i/N), or ``…_energy_k``; empty: a default set.

    Raises:
        AnalysisError: one run, mixed probes or reductions, no common position, an unknown quantity, or one that grows
            with N where probes differ in size.
    """
    if len(trajectory) < 2:
        raise AnalysisError("a comparison", expected="two archives or more", got=len(trajectory))
    notes = (*trajectory.comparable(), *filter(None, (gauge_note(trajectory[0]),)))
    labels = _labels(trajectory)
    chosen = list(quantities) or defaults(trajectory)
    data = aligned(trajectory, chosen, by=by)
    values = {name: np.asarray(data[name].values.T) for name in chosen}
    metadata = {label: dict(run.provenance.get("metadata", {})) for label, run in zip(labels, trajectory, strict=True)}
    notes += tuple(f"{run.name}: {n} is {words}" for run in trajectory for n, words in misleading(run) if n in chosen)
    return Comparison(by, np.asarray(data["position"].values), labels, values, metadata, notes, trajectory)


def grouped(comparison: Comparison, key: str) -> dict[str, list[int]]:
    """Columns of runs by their value of a key: numbers in their order, other values as they appear.

    Raises:
        AnalysisError: a run has no such key in its metadata or provenance.
    """
    values = [key_of(run, key) for run in comparison.trajectory]
    order = sorted(values) if all(isinstance(value, int | float) for value in values) else values
    found: dict[str, list[int]] = {plain(value): [] for value in order}
    for column, value in enumerate(values):
        found[plain(value)].append(column)
    return found


def group_tables(comparison: Comparison, key: str) -> list[Table]:
    """One table per quantity with a column per group: the mean over its runs, with their spread from six runs on."""
    groups = grouped(comparison, key)
    heads = [f"{plain(key)} {value} (n = {len(columns)})" for value, columns in groups.items()]
    where = _where(comparison)
    found = []
    for name, values in comparison.values.items():
        rows = [[at, *(_mean(values[i, columns]) for columns in groups.values())] for i, at in enumerate(where)]
        found.append(Table(title_of(name), [_HEADS[comparison.by], *heads], rows))
    few = min(len(columns) for columns in groups.values()) < BAND_RUNS
    note = (
        f"± is the standard deviation over runs; it is left out below {BAND_RUNS} runs."
        if few
        else ("± is the standard deviation over runs.")
    )
    return [*found, Table("", [""], [], (note, *comparison.notes))]


def _mean(values: Floats) -> str:
    mean = number(float(np.mean(values)))
    return mean if len(values) < BAND_RUNS else f"{mean} ± {number(float(np.std(values, ddof=1)), 2)}"


def _where(comparison: Comparison) -> list[str]:
    return [number(p) if comparison.by in ("loss", "flow_time") else count(int(p)) for p in comparison.positions]


def tables(comparison: Comparison) -> list[Table]:
    """One table per quantity: positions down, runs across."""
    where = _where(comparison)
    found = [
        Table(
            title_of(name),
            [_HEADS[comparison.by], *comparison.runs],
            [[at, *map(number, map(float, row))] for at, row in zip(where, values, strict=True)],
        )
        for name, values in comparison.values.items()
    ]
    return [*found, Table("", [""], [], comparison.notes)] if comparison.notes else found


def defaults(trajectory: Trajectory) -> list[str]:
    """What is compared where nothing is asked for: those of ``DEFAULT`` that every run holds, as far as sizes allow."""
    sizes = {run.count for run in trajectory}
    found = []
    for name in DEFAULT:
        if name == "target_energy_20":
            grid = (
                tuple(int(k) for k in trajectory[0].values("energy_k"))
                if "energy_k" in trajectory[0].dataset.coords
                else ()
            )
            name = f"target_energy_{nearest(grid, 20)}"
        stored = {"eigenvalue_1": "eigenvalues"}.get(
            name, "target_energy" if name.startswith("target_energy") else name
        )
        if all(run.has(stored) for run in trajectory):
            found.append(across_sizes(name) if len(sizes) > 1 else name)
    return [name for name in found if name]


def _labels(trajectory: Trajectory) -> tuple[str, ...]:
    names = [plain(run.name) for run in trajectory]
    return tuple(distinct([name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]))
