"""Exports for other tools: a table of numbers per snapshot (csv), or everything as netCDF."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5netcdf
import numpy as np
import xarray
from xarray.backends import H5NetCDFStore

from kerneltrack.archive import Column, Field, Stream, chunk_shape

from ..derived import pair_numbers
from ..output import NETCDF, TABLE, distinct, may_write, whole, write
from ..text import plain
from ..trajectory import Floats, Run
from ..withheld import misleading

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
    "window",
    "lag",
)
#: Arrays beyond this are written row by row: a kernel that was kept at both ends of a run is mostly rows of NaN.
_AT_ONCE_BYTES = 1 << 26
#: Of such an array, what is written at once: a call for each row of thousands was most of the time.
_BLOCK_BYTES = 2**22
#: Eigenvalues beyond these do not fit a spreadsheet; netCDF has them all.
_EIGENVALUES = 100


def to_csv(run: Run, path: str | os.PathLike[str]) -> Path:
    """One row per snapshot: where it is, learning rates, scalar observables, energies at each k, leading eigenvalues.

    Names are those of the catalogue; ``NAME_k`` is an energy in the first k modes, ``eigenvalue_i`` counts from 1;
    ``NAME_pair_mean`` and ``NAME_pair_half_difference`` stand in the row of a pair's first state, ``window`` says which state
    of a pair or triple a row is. NaN is an empty cell. Numbers are written so that reading them back gives the same float64.

    Raises:
        OutputError: neither a .csv nor a stream ("-": standard output), or nothing may be written there.
        OSError: the file cannot be written.
    """
    may_write(path, TABLE)  # before anything is read
    columns, stream = list(_columns(run)), io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(distinct([name for name, _ in columns]))
    for row in range(len(run)):
        writer.writerow([_cell(values[row]) for _, values in columns])
    write(path, TABLE, stream.getvalue().encode())
    return Path(path)


def to_netcdf(run: Run, path: str | os.PathLike[str]) -> Path:
    """The whole dataset of the probe, and the means and half-differences of its pairs, with attributes as JSON, as netCDF-4.

    Raises:
        OutputError: neither .nc nor .nc4, or nothing may be written there.
        OSError: the file cannot be written.
    """
    dataset = run.dataset.copy()
    for name, _ in misleading(run):  # what misleads is NaN here as everywhere
        masked = np.array(dataset[name].values)
        masked[run.withheld(name).rows] = np.nan
        dataset[name] = dataset[name].copy(data=masked)
    for name, values in _of_pairs(run):
        dataset[name] = ("snapshot", values)
    public = {key: value for key, value in run.provenance.items() if key != "private"}
    dataset.attrs = {key: value for key, value in dataset.attrs.items() if key != "path"}  # a path says who ran it
    dataset.attrs["provenance"] = json.dumps(public, ensure_ascii=False)
    large = [name for name in map(str, dataset.data_vars) if _is_large(dataset[name])]
    with whole(path, NETCDF) as partial, _stream(partial) as stream, h5netcdf.File(stream, "w") as file:
        dataset.drop_vars(large).dump_to_store(H5NetCDFStore(file))
        for name in large:
            _write_rows(file, name, dataset.variables[name])
    return Path(path)


@contextmanager
def _stream(path: Path) -> Iterator[Stream]:
    """What HDF5 writes to: on a full disk HDF5 would take the process down, and the temporary file would stay."""
    with path.open("r+b", buffering=0) as file:
        stream = Stream(file.fileno())
        yield stream
        if stream.error is not None:
            raise stream.error
        file.truncate(stream.end)


def _is_large(data: xarray.DataArray) -> bool:
    return data.dims[:1] == ("snapshot",) and data.dtype.kind == "f" and data.nbytes > _AT_ONCE_BYTES


def _write_rows(file: h5netcdf.File, name: str, data: xarray.Variable) -> None:
    """A few rows at a time, as xarray writes the whole; rows that were never measured take no space."""
    for dim, size in zip(data.dims, data.shape, strict=True):
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    row = data.shape[1:]
    chunks = chunk_shape(Column(Field(name, tuple(map(str, data.dims)), data.dtype.str[1:], "", ""), row), 1)
    variable = file.create_variable(name, data.dims, data.dtype, fillvalue=np.nan, chunks=chunks)
    coordinates = file.variables["status"].attrs["coordinates"]  # those of every variable along the snapshots
    variable.attrs.update({**data.attrs, "coordinates": coordinates})
    together = max(1, _BLOCK_BYTES * data.shape[0] // max(data.nbytes, 1))
    for start in range(0, data.shape[0], together):
        values = np.asarray(data[start : start + together].values)
        known = ~np.isnan(values).reshape(len(values), -1).all(axis=1)
        if known.all():
            variable[start : start + len(values)] = values
        else:
            for place in np.flatnonzero(known):
                variable[start + int(place)] = values[place]


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
    yield from _of_pairs(run)
    if "eigenvalues" in run.dataset:
        values = run.values("eigenvalues")
        yield from ((f"eigenvalue_{i + 1}", values[:, i]) for i in range(min(values.shape[1], _EIGENVALUES)))


def _of_pairs(run: Run) -> Iterator[tuple[str, Floats]]:
    """(S,) mean and half-difference of each scalar over pairs and triples, in the row of the first state."""
    for name, both in pair_numbers(run).items():
        for ending, numbers in zip(("pair_mean", "pair_half_difference"), both, strict=True):
            values = np.full(len(run), np.nan)
            values[run.groups.first] = numbers
            yield f"{plain(name)}_{ending}", values


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else repr(float(value))
    return str(value)
