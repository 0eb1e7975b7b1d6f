"""The files that make up an archive at one moment: the main file and the parts that are not joined yet."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from h5py import h5s

from kerneltrack import schema
from kerneltrack.archive import conform, layout, safety
from kerneltrack.archive import header as headers
from kerneltrack.archive.contents import Contents, contents
from kerneltrack.archive.durable import Stream, open_to_read
from kerneltrack.archive.header import Header
from kerneltrack.archive.layout import Column
from kerneltrack.archive.printable import printable
from kerneltrack.errors import ArchiveError, ArchiveFormatError, UnsafeArchiveError
from kerneltrack.snapshot import Array

PART = re.compile(r"(\d{9,18})-(\d{1,18})\.h5")
_ATTEMPTS = 100
_DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    MemoryError,
)


def parts_folder(path: Path) -> Path:
    """Where the parts of the archive at ``path`` lie while it is written."""
    return path.with_name(path.name + ".parts")


def part_name(first: int, count: int) -> str:
    """The file name of a part that holds ``count`` rows from index ``first`` on."""
    return f"{first:09d}-{count}.h5"


#: Bytes of the rows that are read at once: few enough for any machine.
_BLOCK_BYTES = 1 << 24


class Source(Protocol):
    """Where rows are joined from: a :class:`Piece`, or what is in memory of one."""

    header: Header
    rows: int

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of each column, the shape of a row."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def field(self, path: str) -> schema.Field:
        """What a column is."""

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop`` of a column."""

    def is_written(self, path: str, row: int) -> bool:
        """Whether anything of that row may have been written."""


class Piece:
    """One open HDF5 file of an archive, read-only. It keeps its content even when the name goes to another file."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        """Open the file at ``path``; a trusted one was examined before, or written by this process.

        Raises:
            FileNotFoundError: there is no such file.
            UnsafeArchiveError: it is not a regular file, or holds what a reader must not follow.
            ArchiveFormatError: it is not an archive.
        """
        self.path = path
        self._resources = ExitStack()
        # Whoever drops a piece without closing it drops its descriptor too.
        self._given_back = weakref.finalize(self, self._resources.close)
        self._given_back.atexit = False  # the system closes what a process that ends holds
        self.descriptor = _descriptor(path)
        self._resources.callback(os.close, self.descriptor)
        try:
            self.file = self._resources.enter_context(self._open())
            self._contents = contents(self.file.id) if trusted else self._admitted()
            self.header = headers.read(self._contents)
            self._own_chunks: dict[str, bool] = {}
            self._fields: dict[str, schema.Field] = {}
            self._data = self._datasets()
            self.shapes = {path: data.shape[1:] for path, data in self._data.items()}
            if not trusted:
                _ = self.columns
            self.rows: int = self._contents["snapshot"].shape[0] if "snapshot" in self._contents else 0
        except ArchiveError as error:
            self.close()
            error.where = f"{printable(path)}: {error.where}" if error.where else printable(path)
            raise
        except _DAMAGE as error:
            self.close()
            raise ArchiveFormatError(
                "this is not a kerneltrack archive, or it is damaged", got=printable(error), where=printable(path)
            ) from error

    def _open(self) -> h5py.File:
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise UnsafeArchiveError("not a regular file", where=str(self.path))
        stream = Stream(self.descriptor)
        stream.end = os.fstat(self.descriptor).st_size
        return h5py.File(stream, "r", rdcc_nslots=layout.CHUNK_SLOTS)

    def _admitted(self) -> Contents:
        """What is in a file that is safe to read, of a version that is known, and of the form it should have."""
        found = safety.admit(self.file, self.held)
        conform.require_version(found, self.file.filename)
        for problem in conform.structure(found):
            raise ArchiveFormatError("the archive does not follow the format", got=problem)
        conform.require_stored(found, self.held)
        return found

    def _datasets(self) -> dict[str, h5py.Dataset]:
        """What has one row per snapshot, by path."""
        found: dict[str, h5py.Dataset] = {}
        probes = self._contents.get("probes", {}).items()
        homes = [("", self._contents), *((f"probes/{probe}/", home) for probe, home in probes)]
        for prefix, home in homes:
            for name, data in home.items():
                known = _known(prefix + name)
                dims = known.dims if known is not None else data.dimensions
                if dims[:1] == ("snapshot",):
                    found[prefix + name] = data
        return found

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Every column by path."""
        return {path: Column(self.field(path), shape) for path, shape in self.shapes.items()}

    def field(self, path: str) -> schema.Field:
        """What a column is. Reading a description takes longer than opening the dataset, so joining asks one piece of many."""
        if path not in self._fields:
            data, known = self._data[path], _known(path)
            self._fields[path] = layout.described(data) if known is None else replace(known, dtype=data.dtype.str[1:])
        return self._fields[path]

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop`` of a column of this piece."""
        data = self._data[path]
        try:
            if (start, stop) != (0, data.shape[0]):
                return np.asarray(data[start:stop])
            values = np.empty(data.shape, data.dtype)  # all of a part; h5py takes three times as long to choose it
            data.id.read(h5s.ALL, h5s.ALL, values)
            return values
        except (OSError, RuntimeError) as error:
            raise ArchiveFormatError(
                f"{printable(path)} cannot be read from row {start} on; the file is damaged",
                got=printable(error),
                where=printable(self.path),
            ) from error

    def row(self, place: int) -> dict[str, Array]:
        """One row: every column that it has, without the dimension of the snapshots."""
        return {path: self.read(path, place, place + 1)[0] for path in self._data if self.is_written(path, place)}

    @cached_property
    def rows_in_a_block(self) -> int:
        """How many rows are read at once, one at least."""
        return int(max(1, _BLOCK_BYTES // max(1, sum(column.row_bytes for column in self.columns.values()))))

    def block(self, places: range) -> list[dict[str, Array]]:
        """Each of these rows as :meth:`row` gives it, read column by column."""
        found: list[dict[str, Array]] = [{} for _ in places]
        for path in self._data:
            written = [self.is_written(path, place) for place in places]
            if all(written):
                values = self.read(path, places.start, places.stop)
                for row, value in zip(found, values, strict=True):
                    row[path] = value
            else:
                for row, place in ((found[i], place) for i, place in enumerate(places) if written[i]):
                    row[path] = self.read(path, place, place + 1)[0]
        return found

    def is_written(self, path: str, row: int) -> bool:
        """Whether anything of that row may have been written; a row in chunks of its own that are not there is NaN."""
        if path not in self._own_chunks:
            chunks = self._data[path].chunks
            self._own_chunks[path] = chunks is not None and chunks[0] == 1
        if not self._own_chunks[path] or self.rows == 1:
            return True
        data = self._data[path].id
        return data.get_chunk_info_by_coord((row,) + (0,) * (data.rank - 1)).byte_offset is not None

    def stored(self, path: str) -> int:
        """Bytes that a column takes in the file, none if it is not there."""
        return int(self._data[path].id.get_storage_size()) if path in self._data else 0

    @property
    def archive_id(self) -> str:
        """The archive that the piece belongs to."""
        return str(self.header.attrs["archive_id"])

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.descriptor).st_size

    @property
    def held(self) -> int:
        """Bytes that the file takes on the disk: holes in it take none."""
        blocks = getattr(os.fstat(self.descriptor), "st_blocks", None)  # Windows does not say
        return self.size if blocks is None else min(self.size, 512 * blocks)

    def close(self) -> None:
        """Close the file; reading from it is over."""
        self._given_back()


def _known(path: str) -> schema.Field | None:
    """The format's own field at a path; None for an observable's."""
    return (schema.MEASUREMENTS if path.startswith("probes/") else schema.ROOT).get(path.rpartition("/")[2])


def _descriptor(path: Path) -> int:
    """Open a file that is no link; a pipe does not block here, and is refused later."""
    try:
        return open_to_read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeArchiveError("not a regular file", where=printable(path)) from error
        raise ArchiveError("the archive cannot be read", got=error.strerror, where=printable(path)) from error


def is_archive(path: Path) -> bool:
    """Whether a file is an archive or a part of one, of any version; an HDF5 file that cannot be opened may be one.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = open_to_read(path)
    try:
        stream = Stream(descriptor)
        stream.end = os.fstat(descriptor).st_size
        if not _is_hdf5(stream):
            return False
        with h5py.File(stream, "r") as file:
            return Contents(file.id).text("format") == schema.FORMAT
    except _DAMAGE:
        return True
    finally:
        os.close(descriptor)


def says(path: Path, name: str) -> str:
    """What a file says of itself in one of its root attributes; "" where it says nothing, or cannot be read.

    Nothing else of the file is looked at: it may be no archive, and to open one takes fifty times as long.
    """
    try:
        descriptor = open_to_read(path)
    except OSError:
        return ""
    try:
        stream = Stream(descriptor)
        stream.end = os.fstat(descriptor).st_size
        if not _is_hdf5(stream):
            return ""
        with h5py.File(stream, "r") as file:
            return safety.root_text(file, name)
    except (ArchiveError, *_DAMAGE):
        return ""
    finally:
        os.close(descriptor)


def _is_hdf5(stream: Stream) -> bool:
    """Whether the signature stands where HDF5 looks for it: at 0, 512, 1024, 2048, ….

    h5py asks more of a file, and denies that a damaged one is one.
    """
    places = itertools.takewhile(lambda place: place < stream.end, (0, *(512 << i for i in range(50))))
    return any(stream.seek(place) == place and stream.read(8) == b"\x89HDF\r\n\x1a\n" for place in places)


def list_parts(path: Path) -> list[Path]:
    """The parts of the archive at ``path``, oldest rows first."""
    folder = parts_folder(path)
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        names = [name for name in os.listdir(folder) if PART.fullmatch(name)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names)]


def gather(path: Path) -> list[Piece]:
    """Open the main file and every part of its own, as they are at one moment.

    The parts are listed and opened before the main file: whatever was joined meanwhile is in the main file, and when a
    part vanished into a bigger part the whole is tried again.

    Raises:
        ArchiveError: there is no archive, or it could not be read while a writer kept changing it.
        ArchiveFormatError: it is damaged, or not an archive.
    """
    for _ in range(_ATTEMPTS):
        pieces: list[Piece] = []
        try:
            pieces.extend(Piece(part) for part in list_parts(path))
        except FileNotFoundError:
            close_all(pieces)
            continue
        except BaseException:
            close_all(pieces)
            raise
        try:
            main = Piece(path)
        except FileNotFoundError:
            close_all(pieces)
            raise ArchiveError("there is no such archive", where=str(path)) from None
        except BaseException:
            close_all(pieces)
            raise
        if main.header.attrs["role"] != "main":
            close_all([main, *pieces])
            raise ArchiveFormatError("the archive is not a main file but one of its parts", where=printable(path))
        own = [piece for piece in pieces if piece.archive_id == main.archive_id]
        close_all([piece for piece in pieces if piece.archive_id != main.archive_id])
        return [main, *sorted(own, key=lambda piece: -piece.rows)]
    raise ArchiveError("the parts of the archive changed faster than they could be read", where=str(path))


def close_all(pieces: Sequence[Piece]) -> None:
    """Close pieces."""
    for piece in pieces:
        piece.close()


def row_map(pieces: Sequence[Source]) -> tuple[Array, Array]:
    """Every distinct row of the pieces in the order of appending: its piece and its place there, two int arrays."""
    filled = [(number, piece) for number, piece in enumerate(pieces) if piece.rows]
    if not filled:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    origin = np.concatenate([np.full(piece.rows, number) for number, piece in filled])
    place = np.concatenate([np.arange(piece.rows) for _, piece in filled])
    index = np.concatenate([piece.read("snapshot", 0, piece.rows) for _, piece in filled])
    identifier = np.concatenate([piece.read("snapshot_id", 0, piece.rows) for _, piece in filled])
    _, first = np.unique(identifier, axis=0, return_index=True)  # a row in two pieces is taken from the earlier one
    order = first[np.argsort(index[first], kind="stable")]
    return origin[order], place[order]


def all_columns(pieces: Sequence[Source]) -> dict[str, Column]:
    """Every column of any piece, wide enough for all (the number of parameter groups may grow)."""
    columns: dict[str, Column] = {name: Column(field, _shape(field)) for name, field in schema.ROOT.items()}
    last = {path: piece for piece in pieces for path in piece.shapes}
    for path, piece in last.items():
        shapes = [other.shapes[path] for other in pieces if path in other.shapes]
        own = [columns[path].shape] if path in columns else []
        columns[path] = Column(piece.field(path), tuple(map(max, zip(*own, *shapes, strict=True))))
    return columns


def _shape(field: schema.Field) -> tuple[int, ...]:
    return tuple(schema.FIXED_SIZES.get(dim, 1) for dim in field.dims[1:])
