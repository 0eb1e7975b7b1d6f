"""Alignment: which snapshots of several runs stand side by side. Nothing is interpolated.

By step, epoch and samples runs meet where both were measured at the same number. By gΣη, the time of gradient flow, and by
loss they never coincide exactly: levels are laid between what all runs reached, and each run is taken at the last
snapshot that is not beyond a level of gΣη, or at the first one at or below a level of the loss.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError

from ..derived import check_across_sizes, check_one_clock, flow_time, quantity
from ..text import number
from ..trajectory import Floats, Run, Trajectory

if TYPE_CHECKING:
    import xarray as xr

Alignment = Literal["step", "epoch", "samples", "flow_time", "loss"]
Rows = NDArray[np.int64]

#: Levels of gΣη or of the loss at which runs are compared: half a decade is finer than most runs' scatter needs.
LEVELS = 8
_STORED = {"step": "step", "epoch": "epoch", "samples": "samples_seen"}


def positions(trajectory: Trajectory, by: Alignment) -> tuple[Floats, list[Rows]]:
    """Common positions (P,) and, for each run, the rows that stand there.

    Raises:
        AnalysisError: the runs have no position in common; what each has is named.
    """
    if by == "loss":
        found = _loss_levels(trajectory)
    elif by == "flow_time":
        found = _flow_levels(trajectory)
    else:
        found = _common(trajectory, by)
    if not len(found[0]):
        spans = "; ".join(f"{run.name}: {_span(run, by)}" for run in trajectory)
        raise AnalysisError(
            f"the runs have no common {'sum of learning rates' if by == 'flow_time' else by}",
            got=spans,
            remedy="Measure with schedules whose steps nest, or align by loss.",
        )
    return found


def aligned(trajectory: Trajectory, names: list[str], *, by: Alignment = "step") -> xr.Dataset:
    """Quantities of several runs at common positions, as a dataset with the dimensions ``run`` and ``position``.

    Args:
        trajectory: the runs.
        names: see :mod:`.quantities`.
        by: what the positions are.

    Raises:
        AnalysisError: mixed probes or reductions, no common position, an unknown quantity, or one that grows with N
            where probes differ in size.
    """
    import xarray

    trajectory.comparable()
    check_across_sizes(trajectory, names)
    at, rows = positions(trajectory, by)
    values = {
        name: (("run", "position"), np.stack([quantity(run, name)[r] for run, r in zip(trajectory, rows, strict=True)]))
        for name in names
    }
    places = {
        "position": at,
        "run": [run.name for run in trajectory],
        "step": (("run", "position"), np.stack([run.steps[r] for run, r in zip(trajectory, rows, strict=True)])),
    }
    return xarray.Dataset(values, coords=places, attrs={"by": by})


def stacked(trajectory: Trajectory, names: list[str]) -> xr.Dataset:
    """Quantities of all snapshots of all runs (``run``, ``snapshot``), shorter runs filled up with NaN.

    With dask installed nothing is read before it is computed, archive by archive: for thousands of them.

    Raises:
        AnalysisError: mixed probes or reductions. An unknown quantity is refused when it is read.
    """
    import xarray

    trajectory.comparable()
    check_across_sizes(trajectory, names)
    longest = max(len(run) for run in trajectory)

    def padded(run: Run, name: str) -> Floats:
        values = run.steps.astype(np.float64) if name == "step" else quantity(run, name)
        return np.pad(values, (0, longest - len(values)), constant_values=np.nan)

    data = {name: (("run", "snapshot"), _per_run(trajectory, name, longest, padded)) for name in [*names, "step"]}
    return xarray.Dataset(data, coords={"run": [run.name for run in trajectory]}).set_coords("step")


def _per_run(trajectory: Trajectory, name: str, length: int, read: Callable[[Run, str], Floats]) -> Any:
    try:
        lazy, arrays = (importlib.import_module(f"dask.{part}") for part in ("delayed", "array"))
    except ImportError:  # needed only by users with thousands of archives
        return np.stack([read(run, name) for run in trajectory])
    rows = [arrays.from_delayed(lazy.delayed(read)(run, name), (length,), dtype=np.float64) for run in trajectory]
    return arrays.stack(rows)


def _common(trajectory: Trajectory, by: Alignment) -> tuple[Floats, list[Rows]]:
    rows = [_first_rows(run, _STORED[by]) for run in trajectory]
    common = sorted(set.intersection(*(set(found) for found in rows)))
    return np.asarray(common, dtype=np.float64), [np.array([found[p] for p in common], dtype=int) for found in rows]


def _first_rows(run: Run, name: str) -> dict[int, int]:
    """Position → its first measured row: the first state of an epoch, the state of a step; −1 means unknown."""
    found: dict[int, int] = {}
    for row in np.flatnonzero(run.measured):
        if (value := int(run.dataset[name].values[row])) >= 0:
            found.setdefault(value, int(row))
    return found


def _loss_levels(trajectory: Trajectory) -> tuple[Floats, list[Rows]]:
    losses = [quantity(run, "probe_loss") for run in trajectory]
    ends = [_ends(c) for c in losses]
    start, end = min(highest for _, highest in ends), max(lowest for lowest, _ in ends)
    if not 0 < end < start:
        return np.empty(0), [np.empty(0, int) for _ in losses]
    # The best loss of the worst run is a level of its own: rounding must not push it out of reach.
    levels = np.append(np.geomspace(start, end, LEVELS)[:-1], end)
    return levels, [np.array([int(np.argmax(loss <= level)) for level in levels]) for loss in losses]


def _flow_levels(trajectory: Trajectory) -> tuple[Floats, list[Rows]]:
    check_one_clock(trajectory)
    times = [np.where(run.measured, flow_time(run), np.nan) for run in trajectory]
    ends = [_ends(t) for t in times]
    start, end = max(first for first, _ in ends), min(last for _, last in ends)
    if not start < end:
        return np.empty(0), [np.empty(0, int) for _ in times]
    levels = np.append(np.linspace(start, end, LEVELS)[:-1], end)
    return levels, [np.array([int(np.flatnonzero(t <= level)[-1]) for level in levels]) for t in times]


def _span(run: Run, by: Alignment) -> str:
    if by == "flow_time":
        values = flow_time(run)[run.measured]
    else:
        name = "probe_loss" if by == "loss" else _STORED[by]
        stored = run.dataset[name].values if name in run.dataset else np.full(len(run), np.nan)
        values = np.asarray(stored, dtype=np.float64)[run.measured]
        values = values[values >= 0] if by == "samples" else values
    return f"{number(_ends(values)[0])} to {number(_ends(values)[1])}" if np.isfinite(values).any() else "none"


def _ends(values: Floats) -> tuple[float, float]:
    """The least and the greatest finite value; where there is none +∞ and −∞, between which nothing lies."""
    known = values[np.isfinite(values)]
    return float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
