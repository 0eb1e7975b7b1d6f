"""An archive as an xarray.Dataset whose arrays are read when they are used."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from kerneltrack import schema
from kerneltrack.archive import joining, rows
from kerneltrack.archive.layout import Column
from kerneltrack.schema import Field
from kerneltrack.snapshot import Array, ProbeRecord, Provenance

#: What the archive of a control says of the run that it goes on from.
_CONTROL = ("control_of", "placebo_of", "fork_step", "batches")
_IDENTITY = ("snapshot_id", "content_sha256")
_COORDINATES = ("snapshot", "step", "epoch", "batch", "samples_seen", "wall_time", "train_seconds", "snapshot_seconds")


class Columns(Protocol):
    """What a labelled data set needs of an archive; :class:`kerneltrack.archive.Archive` has it."""

    path: Path

    @property
    def attrs(self) -> Mapping[str, Any]: ...
    @property
    def probes(self) -> Mapping[str, ProbeRecord]: ...
    @property
    def provenance(self) -> Provenance: ...
    @property
    def columns(self) -> Mapping[str, Column]: ...
    def column(self, path: str, select: Any = ...) -> Array: ...
    def __len__(self) -> int: ...


class _Lazy(BackendArray):
    """A column of an archive: the rows that are asked for are read, of these the part that is asked for is kept."""

    def __init__(self, archive: Columns, path: str, column: Column) -> None:
        self.archive, self.path = archive, path
        self.shape = (len(archive), *column.shape)
        self.dtype = np.dtype(column.field.dtype)
        self._row_bytes = column.row_bytes

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Array:
        first, *rest = key
        rows = np.arange(self.shape[0])[first]
        if (
            rows.ndim == 0
            or not rows.size
            or self._row_bytes < joining.LARGE_ROW_BYTES
            or _is_whole(rest, self.shape[1:])
        ):
            return _part(self.archive.column(self.path, first), rest)
        # A corner of each of many kernels: only the corners are ever in memory at once.
        return np.stack([_part(self.archive.column(self.path, int(row)), rest) for row in rows])


def _is_whole(selections: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Whether a row is asked for whole; what keeps at least a half of it is as good as that."""
    kept = [
        len(np.arange(size)[selection]) if not isinstance(selection, int | np.integer) else 1
        for selection, size in zip(selections, sizes, strict=True)
    ]
    return 2 * math.prod(kept) >= math.prod(sizes)


def _part(values: Array, selections: Sequence[Any]) -> Array:
    """The part of rows, or of one row, that is asked for: one selection for each of the last axes."""
    axis = values.ndim - len(selections)
    for selection in selections:
        if isinstance(selection, slice):
            values = values[(slice(None),) * axis + (selection,)]
        else:
            values = np.take(values, selection, axis=axis)
        axis += not isinstance(selection, int | np.integer)
    return values


def dataset(archive: Columns, probe: str) -> xarray.Dataset:
    """The labelled data set of one probe; see :meth:`kerneltrack.archive.Archive.to_xarray`."""
    record = archive.probes[probe]
    variables = {name: _root_variable(archive, name) for name in schema.ROOT if name not in _IDENTITY}
    prefix = f"probes/{probe}/"
    for path, column in archive.columns.items():
        if path.startswith(prefix):
            variables[path.removeprefix(prefix)] = _lazy_variable(archive, path, column)
    variables |= _static_variables(record, variables)
    coordinates = [*_COORDINATES, *(name for name in ("energy_k", "layer") if name in variables)]
    return xarray.Dataset(
        {name: value for name, value in variables.items() if name not in coordinates},
        coords={name: variables[name] for name in coordinates},
        attrs={
            "probe": probe,
            "settings": _text(dict(record.settings)),
            "provenance": _text(asdict(archive.provenance)),
            "archive_id": archive.attrs["archive_id"],
            "run_id": archive.attrs["run_id"],
            "format_version": archive.attrs["format_version"],
            "path": str(archive.path),
            **{name: archive.attrs[name] for name in _CONTROL if name in archive.attrs},
        },
    )


def _root_variable(archive: Columns, name: str) -> xarray.Variable:
    field, values = schema.ROOT[name], archive.column(name)
    if field.is_text:
        texts = np.array([rows.untext(value) for value in values], dtype=object)
        return xarray.Variable(field.dims[:1], texts, _attributes(field))
    return xarray.Variable(field.dims, values, _attributes(field))


def _lazy_variable(archive: Columns, path: str, column: Column) -> xarray.Variable:
    data = indexing.LazilyIndexedArray(_Lazy(archive, path, column))
    return xarray.Variable(column.field.dims, data, _attributes(column.field))


def _text(value: Any) -> str:
    """JSON: an attribute of a netCDF file is a number or a text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _static_variables(record: ProbeRecord, taken: Iterable[str]) -> Mapping[str, xarray.Variable]:
    fields = {field.name: field for field in schema.PROBE_FIELDS}
    variables: dict[str, xarray.Variable] = {}
    if record.targets is not None:
        variables["targets"] = xarray.Variable(fields["targets"].dims, record.targets, _attributes(fields["targets"]))
    if "energy_k" in record.settings:
        values = np.asarray(record.settings["energy_k"], np.int64)
        variables["energy_k"] = xarray.Variable("energy_k", values, _attributes(fields["energy_k"]))
    if "layers" in record.settings:
        variables["layer"] = xarray.Variable("layer", np.asarray(record.settings["layers"], object))
    for key, value in (record.inputs or {}).items():
        name = _free(f"inputs_{key}" if key else "inputs", {*taken, *variables})
        dims = ("sample", *(f"{name}_axis_{axis}" for axis in range(1, np.ndim(value))))
        wide = value.astype("f4") if value.dtype == "f2" else value  # netCDF has no halves
        variables[name] = xarray.Variable(dims, wide)
    return variables


def _free(name: str, taken: Container[str]) -> str:
    """The name, numbered where it is taken: an observable may be called as an input is."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def _attributes(field: Field) -> dict[str, str | int]:
    named = {name: getattr(field, name) for name in ("units", "long_name", "formula", "source", "reading")}
    definition = {"definition": field.definition} if field.definition else {}
    return {**{name: value for name, value in named.items() if value}, **definition}
