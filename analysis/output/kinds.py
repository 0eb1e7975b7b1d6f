"""The kinds of output: the endings that say each, and whether it can be written from front to back, as a stream is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What a command writes.

    Attributes:
        name: what it is called.
        endings: an ending says what a file is, so another one is refused; a stream has none.
        no_stream: why it cannot be written to standard output, a device or a pipe; "" if it can.
    """

    name: str
    endings: tuple[str, ...]
    no_stream: str = ""

    def expected(self) -> str:
        """The endings as a message has them."""
        return f"an ending of {_either(self.endings)}"


_RANDOM_ACCESS = "HDF5 writes in more than one place of a file, which a stream does not allow"

FIGURE = Kind("a figure", (".png", ".pdf", ".svg"))
FILM = Kind("a figure that moves", (".gif",))
TABLE = Kind("a table", (".csv",))
HTML = Kind("a page", (".html", ".htm"))
NETCDF = Kind("a netCDF-4 file", (".nc", ".nc4"), _RANDOM_ACCESS)
CARD = Kind("a card", (".md",))
CITATION = Kind("a citation", (".cff",))
SUMS = Kind("checksums", ("",))
ARCHIVE = Kind("an archive", (".h5", ".hdf5"), _RANDOM_ACCESS)


def _either(endings: Sequence[str]) -> str:
    return " or ".join([", ".join(endings[:-1]), endings[-1]] if endings[1:] else endings)
