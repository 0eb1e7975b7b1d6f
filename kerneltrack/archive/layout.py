"""Columns in HDF5: groups, datasets, chunks, checksums, attributes, and the dimension scales that make it netCDF-4."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from kerneltrack import schema
from kerneltrack.archive import attributes
from kerneltrack.errors import ArchiveError
from kerneltrack.schema import Field
from kerneltrack.snapshot import Array

LIBVER = ("v110", "v110")  # checksummed metadata, readable since HDF5 1.10
_DESCRIPTION = ("units", "long_name", "formula", "source", "reading")
_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable. %9d"


@dataclass(frozen=True)
class Column:
    """A dataset with one row per snapshot: its field and the shape of one row."""

    field: Field
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.field.dtype).itemsize


def chunk_shape(column: Column, rows: int) -> tuple[int, ...]:
    """Few rows to a chunk where rows are large, so that one is read without the others; no chunk beyond 8 MiB."""
    fitting = schema.CHUNK_BYTES // max(column.row_bytes, 1)
    count = max(1, min(rows, schema.MAX_CHUNK_ROWS, fitting))
    shape = [max(size, 1) for size in column.shape]
    itemsize = np.dtype(column.field.dtype).itemsize
    axis = 0
    while int(np.prod(shape, dtype=np.int64)) * itemsize > schema.MAX_CHUNK_BYTES:
        shape[axis] = -(-shape[axis] // 2)
        axis = axis if shape[axis] > 1 else axis + 1
    return (count, *shape)


def create(group: h5py.Group, path: str, column: Column, rows: int) -> h5py.Dataset:
    """An unwritten dataset of so many rows, NaN where it stays unwritten."""
    field = column.field
    data = group.create_dataset(
        path,
        shape=(rows, *column.shape),
        maxshape=(None, *column.shape),
        chunks=chunk_shape(column, rows),
        dtype=np.dtype(field.dtype).newbyteorder("<"),
        fletcher32=True,
        fillvalue=np.nan if "f" in field.dtype else None,
    )
    describe(data, field)
    return data


def fixed(group: h5py.Group, field: Field, value: Array) -> h5py.Dataset:
    """A dataset that does not grow."""
    value = np.asarray(value, np.dtype(field.dtype).newbyteorder("<"))
    if value.size == 0:
        data = group.create_dataset(field.name, data=value)
    else:
        chunks = chunk_shape(Column(field, value.shape[1:]), value.shape[0])
        data = group.create_dataset(field.name, data=value, chunks=chunks, fletcher32=True)
    describe(data, field)
    return data


def describe(data: h5py.Dataset, field: Field) -> None:
    """The attributes that say what a dataset is."""
    attributes.put(data, "dimensions", " ".join(field.dims))
    for name in _DESCRIPTION:
        if value := getattr(field, name):
            attributes.put(data, name, value)
    if field.definition:
        attributes.put(data, "definition", field.definition)


def described(data: h5py.Dataset) -> Field:
    """The field that such attributes describe."""
    name = data.name.rpartition("/")[2]
    units, long_name, formula, source, reading = (attributes.text(data, key) for key in _DESCRIPTION)
    definition = attributes.get(data, "definition", int(bool(formula)))  # files of format 1.0 hold the first one
    return Field(
        name,
        dimensions(data),
        data.dtype.str[1:],
        units,
        long_name,
        formula=formula,
        source=source,
        definition=definition,
        reading=reading,
    )


def dimensions(data: h5py.Group | h5py.Dataset) -> tuple[str, ...]:
    """The names of a dataset's dimensions; none where it has no such attribute."""
    return tuple(attributes.text(data, "dimensions").split())


def put_text(group: h5py.Group, name: str, value: Any, meaning: str) -> None:
    """JSON as an array of UTF-8 bytes: checksummed, bounded, and netCDF's own way to hold text.

    Raises:
        ArchiveError: it is too long for any reader to take, or of a kind that JSON does not have.
    """
    data = json.dumps(plain(value, name), ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    if len(data) > schema.MAX_TEXT_BYTES:
        raise ArchiveError(
            "a text is too long for an archive",
            expected=f"at most {schema.MAX_TEXT_BYTES} bytes of JSON",
            got=f"{len(data)} bytes",
            where=name,
        )
    field = Field(name, (f"{name}_length",), "S1", "", meaning)
    fixed(group, field, np.frombuffer(data, "S1"))


def plain(value: Any, where: str) -> Any:
    """A value as JSON can hold it: NumPy's numbers and arrays become Python's, numbers that are not finite text.

    Raises:
        ArchiveError: it is of a kind that JSON does not have.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):  # a file name that is not UTF-8 comes with halves of characters
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist(), where)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, where) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ArchiveError(
        "a value cannot be stored as JSON",
        expected="None, numbers, text, and lists and mappings of these",
        got=type(value).__name__,
        where=where,
    )


def get_text(group: h5py.Group, name: str) -> Any:
    """The value of such a text.

    Raises:
        ValueError: it is not JSON, or holds what JSON cannot say: numbers that are not finite, halves of characters.
    """
    text = group[name][()].tobytes().decode()
    value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number of JSON")
    return number


def add_scales(file: h5py.File) -> None:
    """Give every dimension of the file a dimension scale and attach it: what netCDF-4 and xarray look for."""
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    for data in datasets:
        for axis, dim in enumerate(dimensions(data)):
            home = file if dim in schema.ROOT_DIMENSIONS else _home(data)
            scale = _scale(home, dim, data.shape[axis])
            if scale != data:
                data.dims[axis].attach_scale(scale)


def _home(data: h5py.Dataset) -> h5py.Group:
    """The probe's group (or the section's) that owns a dataset's dimensions."""
    parts = data.name.split("/")
    return data.file["/".join(parts[:3]) if parts[1] == "probes" else f"/{parts[1]}"]


def _scale(home: h5py.Group, dim: str, size: int) -> h5py.Dataset:
    if dim not in home:
        scale = home.create_dataset(dim, shape=(size,), dtype=">f4")  # the type that netCDF-4 gives a bare dimension
        scale.make_scale((_NOT_A_VARIABLE % size).decode())
    elif not h5py.h5ds.is_scale(home[dim].id):
        home[dim].make_scale(dim)
    return home[dim]
