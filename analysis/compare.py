"""Comparison: several runs at common positions, by step, by epoch or by the loss they have reached.

Nothing is interpolated: a run has a value at a position only if it was measured there. Eigenvalues are compared as
λ_i/N, because the un-normalised kernel grows with the number of probe points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kerneltrack.errors import AnalysisError

from .lr_decay_text import nearest
from .text import Table, count, number, plain, subscript
from .trajectory import Floats, Run, Trajectory

Alignment = Literal["step", "epoch", "loss"]
#: What is compared where nothing else is asked for.
DEFAULT = (
    "eigenvalue_1",
    "stability_ratio",
    "effective_rank",
    "target_energy_20",
    "kernel_distance_from_initial",
    "probe_loss",
)
#: From so many runs on a spread is worth drawing; below, single lines say more than a band over them.
BAND_RUNS = 6
_HEADS = {"step": "step", "epoch": "epoch", "loss": "loss ≤"}
#: Levels of the loss at which runs are compared: half a decade is finer than most runs' scatter needs.
_LOSS_LEVELS = 8


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
    """

    by: Alignment
    positions: Floats
    runs: tuple[str, ...]
    values: dict[str, Floats]
    groups: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return {
            "by": self.by,
            "positions": self.positions.tolist(),
            "runs": list(self.runs),
            "metadata": self.groups,
            "values": {
                name: [[float(v) if np.isfinite(v) else None for v in row] for row in values]
                for name, values in self.values.items()
            },
            "notes": list(self.notes),
        }  # fmt: skip


def compare(trajectory: Trajectory, *, by: Alignment = "step", quantities: Sequence[str] = ()) -> Comparison:
    """Put runs side by side.

    Args:
        trajectory: two runs or more.
        by: what to align on; "loss" takes in each run the first snapshot at or below each level.
        quantities: names of stored scalars, ``eigenvalue_i`` (λ_i/N), or ``…_energy_k``; empty: a default set.

    Raises:
        AnalysisError: one run, mixed probes or reductions, no common position, or an unknown quantity.
    """
    if len(trajectory) < 2:
        raise AnalysisError("a comparison", expected="two archives or more", got=len(trajectory))
    notes = trajectory.comparable()
    labels = _labels(trajectory)
    positions, rows = _positions(trajectory, by)
    if not len(positions):
        spans = "; ".join(f"{label}: {_span(run, by)}" for label, run in zip(labels, trajectory, strict=True))
        raise AnalysisError(
            f"the runs have no common {by}",
            got=spans,
            remedy="Measure with schedules whose steps nest, or align by loss.",
        )
    chosen = list(quantities) or _defaults(trajectory)
    values = {
        name: np.column_stack([_taken(run, name, r) for run, r in zip(trajectory, rows, strict=True)])
        for name in chosen
    }
    metadata = {label: dict(run.provenance.get("metadata", {})) for label, run in zip(labels, trajectory, strict=True)}
    return Comparison(by, positions, labels, values, metadata, notes)


def grouped(comparison: Comparison, key: str) -> dict[str, list[int]]:
    """Columns of runs by their value of a metadata key: numbers in their order, other values as they appear.

    Raises:
        AnalysisError: a run has no such key.
    """
    found: dict[str, list[int]] = {}
    for column, name in enumerate(comparison.runs):
        if key not in comparison.groups[name]:
            raise AnalysisError(
                f"grouping by {key!r}", expected="a key of every run's metadata",
                got=f"{name} has {', '.join(map(plain, comparison.groups[name])) or 'none'}",
                remedy="Give the tracker metadata={...}.",
            )  # fmt: skip
        found.setdefault(plain(comparison.groups[name][key]), []).append(column)
    values = {plain(metadata[key]): metadata[key] for metadata in comparison.groups.values()}
    if all(isinstance(value, int | float) for value in values.values()):
        return {label: found[label] for label in sorted(found, key=lambda label: float(values[label]))}
    return found


def group_tables(comparison: Comparison, key: str) -> list[Table]:
    """One table per quantity with a column per group: the mean over its runs, with their spread from six runs on."""
    groups = grouped(comparison, key)
    heads = [f"{plain(key)} {value} (n = {len(columns)})" for value, columns in groups.items()]
    where = _where(comparison)
    found = []
    for name, values in comparison.values.items():
        rows = [
            [at, *(_mean(values[i, columns]) for columns in groups.values())] for i, at in enumerate(where)
        ]  # fmt: skip
        found.append(Table(title_of(name), [_HEADS[comparison.by], *heads], rows))
    few = min(len(columns) for columns in groups.values()) < BAND_RUNS
    note = f"± is the standard deviation over runs; it is left out below {BAND_RUNS} runs." if few else (
        "± is the standard deviation over runs."
    )  # fmt: skip
    return [*found, Table("", [""], [], (note, *comparison.notes))]


def _mean(values: Floats) -> str:
    mean = number(float(np.mean(values)))
    return mean if len(values) < BAND_RUNS else f"{mean} ± {number(float(np.std(values, ddof=1)), 2)}"


def _where(comparison: Comparison) -> list[str]:
    return [number(p) if comparison.by == "loss" else count(int(p)) for p in comparison.positions]


def tables(comparison: Comparison) -> list[Table]:
    """One table per quantity: positions down, runs across."""
    where = _where(comparison)
    found = [
        Table(
            title_of(name), [_HEADS[comparison.by], *comparison.runs],
            [[at, *map(number, map(float, row))] for at, row in zip(where, values, strict=True)],
        )
        for name, values in comparison.values.items()
    ]  # fmt: skip
    return [*found, Table("", [""], [], comparison.notes)] if comparison.notes else found


def quantity(run: Run, name: str) -> Floats:
    """A named quantity over the snapshots of a run, (S,).

    Raises:
        AnalysisError: the archive does not hold it.
    """
    stem, _, last = name.rpartition("_")
    if stem == "eigenvalue" and last.isdigit():
        values = run.values("eigenvalues", why=name)
        if not 1 <= int(last) <= values.shape[1]:
            raise AnalysisError(
                f"the quantity {name!r}", expected=f"a mode from 1 to {values.shape[1]}", got=last, where=run.path
            )
        return np.asarray(values[:, int(last) - 1] / run.count)
    if stem.endswith("_energy") and last.isdigit():
        grid = [int(k) for k in run.values("energy_k", why=name)]
        if int(last) not in grid:
            raise AnalysisError(f"the quantity {name!r}", expected=f"k in {grid}", got=last, where=run.path)
        return run.values(stem, why=name)[:, grid.index(int(last))]
    values = run.values(name, why="the comparison")
    if values.ndim != 1:
        raise AnalysisError(
            f"the quantity {name!r}", expected="one number per snapshot", got=f"shape {values.shape}", where=run.path
        )
    return values


def _defaults(trajectory: Trajectory) -> list[str]:
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
            found.append(name)
    return found


def _positions(trajectory: Trajectory, by: Alignment) -> tuple[Floats, list[np.ndarray]]:
    if by == "loss":
        return _loss_positions(trajectory)
    rows = [_last_rows(run, by) for run in trajectory]
    common = sorted(set.intersection(*(set(found) for found in rows)))
    return np.asarray(common, dtype=np.float64), [np.array([found[p] for p in common], dtype=int) for found in rows]


def _last_rows(run: Run, by: Literal["step", "epoch"]) -> dict[int, int]:
    """Position → its first measured row: the first state of an epoch, the state of a step."""
    found: dict[int, int] = {}
    for row in np.flatnonzero(run.measured):
        found.setdefault(int(run.dataset[by].values[row]), int(row))
    return found


def _loss_positions(trajectory: Trajectory) -> tuple[Floats, list[np.ndarray]]:
    losses = [np.where(run.measured, quantity(run, "probe_loss"), np.nan) for run in trajectory]
    start, end = min(float(np.nanmax(l)) for l in losses), max(float(np.nanmin(l)) for l in losses)  # noqa: E741
    if not 0 < end < start:
        return np.empty(0), [np.empty(0, int) for _ in losses]
    # The best loss of the worst run is a level of its own: rounding must not push it out of reach.
    levels = np.append(np.geomspace(start, end, _LOSS_LEVELS)[:-1], end)
    return levels, [np.array([int(np.argmax(loss <= level)) for level in levels]) for loss in losses]


def _taken(run: Run, name: str, rows: np.ndarray) -> Floats:
    return np.asarray(quantity(run, name)[rows])


def _labels(trajectory: Trajectory) -> tuple[str, ...]:
    names = [plain(run.name) for run in trajectory]
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1))


def _span(run: Run, by: Alignment) -> str:
    name = "probe_loss" if by == "loss" else by
    values = (
        np.asarray(run.dataset[name].values, dtype=np.float64)[run.measured] if name in run.dataset else np.array([])
    )
    return f"{number(float(np.nanmin(values)))} to {number(float(np.nanmax(values)))}" if values.size else "none"


def title_of(name: str) -> str:
    """How a quantity is called in tables and figures."""
    stem, _, last = name.rpartition("_")
    return f"λ{subscript(int(last))} / N" if stem == "eigenvalue" else name.replace("_", " ")
