"""A row in memory: what joining takes instead of the part that this process has just written.

A part is a file of some fifty datasets. To open and read it takes longer than to write it, and says nothing that its
writer does not know. The part stays what keeps the row: nothing here is needed by who opens the archive later.
"""

from __future__ import annotations

from kerneltrack.archive.header import Header
from kerneltrack.archive.rows import Row
from kerneltrack.schema import Field
from kerneltrack.snapshot import Array


class Kept:
    """A part of one row as its writer knows it; for joining, what a :class:`~kerneltrack.archive.pieces.Piece` is.

    Attributes:
        header: what the part says of itself.
        size: bytes of its file.
        held: bytes that it takes in memory.
        shapes: of each column, the shape of the row, by name, as a file lists them.
    """

    rows = 1

    def __init__(self, row: Row, header: Header, size: int) -> None:
        self._row, self.header, self.size = row, header, size
        self.shapes = {path: row[path][1].shape for path in sorted(row)}
        self.held = sum(value.nbytes for _, value in row.values())

    def field(self, path: str) -> Field:
        """What a column is."""
        return self._row[path][0]

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows of a column; there is but the first."""
        return self._row[path][1][None][start:stop]

    def is_written(self, path: str, row: int) -> bool:
        """Whether anything of the row may have been written: as of any part of one row, all of it."""
        return True
