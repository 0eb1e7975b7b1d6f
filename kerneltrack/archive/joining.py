"""Files from rows: the image of a part that holds one new row, and the file that joins several pieces into one."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import h5py
import numpy as np
from h5py import h5d, h5s

from kerneltrack.archive import header as headers
from kerneltrack.archive import layout, scales
from kerneltrack.archive.durable import Stream, uninterrupted
from kerneltrack.archive.header import Header
from kerneltrack.archive.kept import Kept
from kerneltrack.archive.layout import Column
from kerneltrack.archive.pieces import Source, all_columns, row_map
from kerneltrack.archive.rows import Row
from kerneltrack.snapshot import Array

Changes = Mapping[str, Mapping[int, Array]]  # column path -> row -> the value that takes the place of the pieces' own

MAX_HISTORY_BYTES = 60_000  # an attribute has at most 64 KiB
_BLOCK_BYTES = 1 << 24
LARGE_ROW_BYTES = 1 << 16


class PartImages:
    """The bytes of parts, made in memory, where no disk can fail them.

    Making a file's groups, datasets and attributes costs ten times as much as filling them, and the snapshots of a run
    look alike; so an empty file is made once for each look and filled as often as it is needed.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._empty: dict[tuple[tuple[str, Column], ...], bytes] = {}

    def of(self, row: Row) -> bytes:
        """The bytes of a part that holds this row."""
        look = tuple((path, Column(field, value.shape)) for path, (field, value) in row.items())
        if look not in self._empty:
            self._empty[look] = empty_part(self._header, dict(look))
        # The bytes of a closed file: HDF5 before 2.0 leaves a wrong checksum in the image of one that is open.
        image = io.BytesIO(self._empty[look])
        with h5py.File(image, "r+", libver=layout.LIBVER, rdcc_nslots=layout.CHUNK_SLOTS) as file:
            for path, (_, value) in row.items():
                data = h5d.open(file.id, path.encode())
                data.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(value[None]))
        return image.getvalue()

    def kept(self, row: Row, image: bytes) -> Kept:
        """The same part as it is held in memory."""
        return Kept(row, self._header, len(image))


def empty_part(header: Header, columns: Mapping[str, Column]) -> bytes:
    """The bytes of a part with one unwritten row of these columns; with no columns it has no row."""
    image = io.BytesIO()
    with h5py.File(image, "w", libver=layout.LIBVER, rdcc_nslots=layout.CHUNK_SLOTS) as file:
        headers.write(file, header)
        for path, column in columns.items():
            layout.create(file, path, column, 1)
    return image.getvalue()


def join(stream: Stream, header: Header, pieces: Sequence[Source], changes: Changes = MappingProxyType({})) -> int:
    """Write all rows of the pieces, in the order of appending, as one file; return how many."""
    origin, place = row_map(pieces)
    with uninterrupted(stream), h5py.File(stream, "w", libver=layout.LIBVER, rdcc_nslots=layout.CHUNK_SLOTS) as file:
        headers.write(file, header)
        columns = all_columns(pieces) if len(origin) or header.attrs["role"] == "main" else {}
        stretches = [Stretch(pieces[n], first, start, stop) for start, stop, n, first in runs(origin, place)]
        for path, column in columns.items():
            data = layout.create(file, path, column, len(origin))
            _copy(data, path, column, [stretch for stretch in stretches if path in stretch.piece.shapes])
            for row, value in changes.get(path, {}).items():
                data[row] = value
        if header.attrs["role"] == "main":
            scales.add(file)
    return len(origin)


def runs(origin: np.ndarray, place: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Stretches of rows that follow each other in one piece: (start, stop, piece, first place there)."""
    breaks = np.flatnonzero((np.diff(origin) != 0) | (np.diff(place) != 1)) + 1
    edges = [0, *breaks.tolist(), len(origin)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield start, stop, int(origin[start]), int(place[start])


@dataclass(frozen=True)
class Stretch:
    """Rows of one piece, from ``first`` on, that become the rows ``start`` to ``stop`` of the joined file."""

    piece: Source
    first: int
    start: int
    stop: int

    def read(self, path: str) -> Array:
        """The rows of a column."""
        return self.piece.read(path, self.first, self.first + self.stop - self.start)

    def within(self, path: str, start: int) -> tuple[slice, ...]:
        """Where they belong in an array whose first row is ``start``; a piece's column may be narrower than the file's."""
        return slice(self.start - start, self.stop - start), *map(slice, self.piece.shapes[path])

    def split(self, rows: int) -> Iterator[Stretch]:
        """The same in stretches of so many rows at most."""
        for start in range(self.start, self.stop, rows):
            yield Stretch(self.piece, self.first + start - self.start, start, min(start + rows, self.stop))


def fill(values: Array, column: Column, path: str, stretch: Stretch) -> None:
    """Put the rows of a stretch into an array; of a large column one by one, and those that were never written not."""
    large = column.row_bytes >= LARGE_ROW_BYTES
    for part in stretch.split(1) if large else (stretch,):
        if not large or part.piece.is_written(path, part.first):
            values[part.within(path, 0)] = part.read(path)


def _copy(data: h5py.Dataset, path: str, column: Column, stretches: Sequence[Stretch]) -> None:
    # A row that was never written takes no space; asking for each costs as much as copying a small one.
    large = column.row_bytes >= LARGE_ROW_BYTES
    rows = 1 if large else max(1, _BLOCK_BYTES // max(column.row_bytes, 1))
    for block in _blocks(stretches, rows):
        first = block[0]
        if len(block) > 1:
            values = np.full((block[-1].stop - first.start, *column.shape), data.fillvalue, data.dtype)
            for stretch in block:
                values[stretch.within(path, first.start)] = stretch.read(path)
            data[first.start : block[-1].stop] = values
        elif not large or first.piece.is_written(path, first.first):
            data[first.within(path, 0)] = first.read(path)


def _blocks(stretches: Sequence[Stretch], rows: int) -> Iterator[list[Stretch]]:
    """Neighbours that span so many rows at most: a write of its own costs a small row far more than its bytes do."""
    block: list[Stretch] = []
    for stretch in itertools.chain.from_iterable(stretch.split(rows) for stretch in stretches):
        if block and stretch.stop - block[0].start > rows:
            yield block
            block = []
        block.append(stretch)
    if block:
        yield block


def merged_header(pieces: Sequence[Source]) -> Header:
    """The first piece's header, with every piece's segments and history."""
    first = pieces[0].header
    segments = {segment.number: segment for piece in pieces for segment in piece.header.segments}
    lines = [line for piece in pieces for line in str(piece.header.attrs.get("history", "")).splitlines()]
    attrs = {**first.attrs, "history": history(sorted(dict.fromkeys(lines)))}
    return replace(first, attrs=attrs, segments=[segments[number] for number in sorted(segments)])


def history(lines: Sequence[str]) -> str:
    """The first line, which tells of the creation, and as many of the last ones as an attribute can hold."""
    kept: list[str] = []
    room = MAX_HISTORY_BYTES - len("\n".join(lines[:1]).encode())
    for line in reversed(lines[1:]):
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*lines[:1], *reversed(kept)])
