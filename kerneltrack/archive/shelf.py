"""Shelf: archives by the thousand, of which a few are open.

A process may hold about a thousand files, and an open HDF5 file takes two megabytes. What is read of many archives again and
again is a few numbers of each: they are kept when an archive is put back, and whatever else is asked of it opens it again.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerneltrack.archive.layout import Column
from kerneltrack.archive.reader import Archive
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import Array, ProbeRecord, Provenance

if TYPE_CHECKING:
    import xarray

#: Archives that are open at once. A comparison of fewer never opens one twice.
OPEN = 16
#: Bytes of a column that is kept: one number of each of a thousand snapshots, or the eigenvalues of a few.
KEPT = 2**13


class Shelved:
    """An archive that is read like any other, and is open while it is one of the last :data:`OPEN` that were read.

    It has what a labelled data set needs of an :class:`Archive`. Opened again it is as it was, or an error says that it is not.

    Args:
        archive: an open one, which this one closes.
    """

    def __init__(self, archive: Archive) -> None:
        self.path: Path = archive.path
        self.attrs: Mapping[str, Any] = archive.attrs
        self.probes: Mapping[str, ProbeRecord] = archive.probes
        self.provenance: Provenance = archive.provenance
        self.columns: Mapping[str, Column] = archive.columns
        self._length = len(archive)
        self._open, self._known = archive.__reduce__()
        self._archive: Archive | None = archive
        self._kept: dict[str, Array] = {}
        with _LOCK:
            _used(self)

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        return _shelved, (self._open, self._known)

    def column(self, path: str, select: Any = slice(None)) -> Array:
        """Rows of a column, as :meth:`Archive.column` has them.

        Raises:
            ArchiveError: the file is no longer the archive that it was, or what :meth:`Archive.column` says.
        """
        with _LOCK:
            if path in self._kept:
                return np.array(self._kept[path][select])
            if self._archive is None:
                self._archive = self._open(*self._known)
            _used(self)
            return self._archive.column(path, select)

    def to_xarray(self, probe: str) -> xarray.Dataset:
        """See :meth:`Archive.to_xarray`."""
        from kerneltrack.archive.dataset import dataset

        return dataset(self, probe)

    def put_back(self) -> None:
        """Close it, and keep what is small."""
        if self._archive is None:
            return
        for path, column in self.columns.items():
            measured = path.startswith("probes/")  # the rest is read with the labels
            if measured and path not in self._kept and len(self) * column.row_bytes <= KEPT:
                with suppress(ArchiveError):  # whoever asks for it is told
                    self._kept[path] = self._archive.column(path)
        self._archive.close()
        self._archive = None


#: Those that are open, the last one read last; whoever drops one drops its files.
_OPEN: weakref.WeakValueDictionary[int, Shelved] = weakref.WeakValueDictionary()
#: Two threads may read: neither closes what the other reads. HDF5 itself lets one in at a time.
_LOCK = threading.RLock()


def _used(shelved: Shelved) -> None:
    _OPEN.pop(id(shelved), None)
    _OPEN[id(shelved)] = shelved
    for other in list(_OPEN.values())[:-OPEN]:
        del _OPEN[id(other)]
        other.put_back()


def _shelved(open_again: Callable[..., Archive], known: tuple[Any, ...]) -> Shelved:
    """One that was pickled."""
    return Shelved(open_again(*known))
