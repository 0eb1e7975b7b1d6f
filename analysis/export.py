"""Exports for other tools: a table of numbers per snapshot (csv), or everything as netCDF."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .text import plain
from .trajectory import Floats, Run
from .withheld import told

#: Columns that locate a snapshot.
_INDEX = (
    "step",
    "epoch",
    "batch",
    "samples_seen",
    "wall_time",
    "train_seconds",
    "snapshot_seconds",
    "training_loss",
    "status",
)
#: Eigenvalues beyond these do not fit a spreadsheet; netCDF has them all.
_EIGENVALUES = 100


def to_csv(run: Run, path: str | os.PathLike[str]) -> Path:
    """One row per snapshot: where it is, learning rates, scalar observables, energies at each k, leading eigenvalues.

    Names are those of the catalogue; ``NAME_k`` is an energy in the first k modes, ``eigenvalue_i`` counts from 1. NaN
    is an empty cell. Numbers are written so that reading them back gives the same float64.
    """
    columns = list(_columns(run))
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([name for name, _ in columns])
        for row in range(len(run)):
            writer.writerow([_cell(values[row]) for _, values in columns])
    partial.replace(target)
    return target


def to_netcdf(run: Run, path: str | os.PathLike[str]) -> Path:
    """The whole dataset of the probe, with its attributes as JSON text, as netCDF-4."""
    target = Path(path)
    dataset = run.dataset.copy()
    for name, _ in told(run):  # what misleads is NaN here as everywhere
        masked = np.array(dataset[name].values)
        masked[run.withheld(name).rows] = np.nan
        dataset[name] = dataset[name].copy(data=masked)
    dataset.attrs = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in dataset.attrs.items()
        if key != "path"  # a path says who ran it
    }
    dataset.attrs["provenance"] = json.dumps(
        {key: value for key, value in run.provenance.items() if key != "private"}, ensure_ascii=False, default=str
    )
    dataset = dataset.rename({name: str(name).replace("/", "_") for name in dataset.variables if "/" in str(name)})
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    dataset.to_netcdf(partial, engine="h5netcdf")
    partial.replace(target)
    return target


def _columns(run: Run) -> Iterator[tuple[str, Floats]]:
    for name in _INDEX:
        if name in run.dataset:
            yield name, np.asarray(run.dataset[name].values)
    rates = run.learning_rates
    for group in range(rates.shape[1]):
        yield ("learning_rate" if rates.shape[1] == 1 else f"learning_rate_{group}"), rates[:, group]
    for name in sorted(map(str, run.dataset.data_vars)):
        data = run.dataset[name]
        if data.dims == ("snapshot",) and name not in _INDEX and data.dtype.kind == "f":
            yield plain(name), run.values(name)
        elif data.dims == ("snapshot", "energy_k"):
            grid = run.values("energy_k").astype(int)
            yield from ((f"{plain(name)}_{k}", run.values(name)[:, i]) for i, k in enumerate(grid))
    if "eigenvalues" in run.dataset:
        values = run.values("eigenvalues")
        yield from ((f"eigenvalue_{i + 1}", values[:, i]) for i in range(min(values.shape[1], _EIGENVALUES)))


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)
