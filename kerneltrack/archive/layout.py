"""Columns in HDF5: groups, datasets, chunks, checksums, attributes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from kerneltrack import schema
from kerneltrack.archive import attributes
from kerneltrack.errors import ArchiveError
from kerneltrack.schema import Field
from kerneltrack.snapshot import Array

LIBVER = ("v110", "v110")  # checksummed metadata, readable since HDF5 1.10
CHUNK_SLOTS = 521  # of a dataset's cache, as before HDF5 2.0; its 8191 take longer to set up than a dataset to open
_DESCRIPTION = ("units", "long_name", "formula", "source", "reading")


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
    space = h5s.create_simple((rows, *column.shape), (h5s.UNLIMITED, *column.shape))
    properties = _creation(chunk_shape(column, rows), missing_is_nan="f" in column.field.dtype)
    return _created(group, path, column.field, space, properties)


def fixed(group: h5py.Group, field: Field, value: Array) -> h5py.Dataset:
    """A dataset that does not grow."""
    value = np.asarray(value, np.dtype(field.dtype).newbyteorder("<"))
    if value.size == 0:
        data = group.create_dataset(field.name, data=value)
        describe(data, field)
    else:
        chunks = chunk_shape(Column(field, value.shape[1:]), value.shape[0])
        data = _created(group, field.name, field, h5s.create_simple(value.shape), _creation(chunks))
        data.id.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(value))
    return data


def _created(group: h5py.Group, path: str, field: Field, space: h5s.SpaceID, properties: h5p.PropDCID) -> h5py.Dataset:
    """A new dataset; h5py's ``create_dataset`` takes six times as long, to make anew what datasets have in common."""
    home = path.rpartition("/")[0]
    if home and home not in group:
        group.create_group(home)
    created = h5d.create(group.id, path.encode(), _kind(field.dtype), space, properties)
    data = h5py.Dataset(created)
    describe(data, field)
    return data


@cache
def _kind(dtype: str) -> h5t.TypeID:
    return h5t.py_create(np.dtype(dtype).newbyteorder("<"), logical=True)


@lru_cache(maxsize=1024)
def _creation(chunks: tuple[int, ...], *, missing_is_nan: bool = False) -> h5p.PropDCID:
    """The properties of a dataset with these chunks and checksums; what stays unwritten is zero, or NaN."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk(chunks)
    properties.set_fletcher32()
    if missing_is_nan:
        properties.set_fill_value(np.array(np.nan))
    properties.set_obj_track_times(False)
    return properties


def describe(data: h5py.Dataset, field: Field) -> None:
    """The attributes that say what a dataset is."""
    attributes.put(data, "dimensions", " ".join(field.dims))
    for name in _DESCRIPTION:
        if value := getattr(field, name):
            attributes.put(data, name, value)
    if field.definition:
        attributes.put(data, "definition", field.definition)


def described(data: h5py.Dataset) -> Field:
    """The field that such attributes describe; the dataset is of :class:`~kerneltrack.archive.contents.Contents`."""
    name = data.name.rpartition("/")[2]
    units, long_name, formula, source, reading = (data.text(key) for key in _DESCRIPTION)
    definition = data.attribute("definition", int(bool(formula)))  # files of format 1.0 hold the first one
    return Field(
        name,
        data.dimensions,
        data.dtype.str[1:],
        units,
        long_name,
        formula=formula,
        source=source,
        definition=definition,
        reading=reading,
    )


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


def get_text(group: Mapping[str, Any], name: str) -> Any:
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
