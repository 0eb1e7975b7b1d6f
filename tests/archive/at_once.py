"""Archives that a test reads and does not write: their rows are joined in memory, and the file is written once.

The writer makes a file of each row, and joins them now and then. That is what tests/archive look at, and
most of the time of an archive of a dozen rows. Oracle of what is made here: tests/archive/test_at_once.py.
"""

from kerneltrack.archive import ArchiveWriter, rows
from kerneltrack.archive.kept import Kept


class AtOnce(ArchiveWriter):
    """A writer that keeps its rows until it is closed: nothing that it has taken is safe before."""

    def append(self, snapshot):
        row = rows.encode(snapshot, index=self._next, segment=self._segment.number)
        self._sizes = self._sizes.bound(row, where=f"step {snapshot.step}")
        size = sum(value.nbytes for _, value in row.values())
        self._kept = [*getattr(self, "_kept", ()), Kept(row, self._header, size)]
        self._next += 1

    def close(self):
        if not self._closed:
            self._spool._write_main(self._header, getattr(self, "_kept", ()))
            self._changed = False
        super().close()


def write(path, given, *records, provenance=None, control=None):
    """An archive of these snapshots; returns its path."""
    with AtOnce(path, probes=list(records), provenance=provenance, control=control) as writer:
        for snapshot in given:
            writer.append(snapshot)
        if control is not None and control.batches != "unverified":
            writer.tell_batches(control.batches)
    return path
