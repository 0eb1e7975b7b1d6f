"""The archive: snapshots in a published HDF5 format that survives crashes and strangers. No torch here."""

from __future__ import annotations

from kerneltrack.archive.header import Segment
from kerneltrack.archive.reader import Archive, open_archive
from kerneltrack.archive.writer import ArchiveWarning, ArchiveWriter

__all__ = ["Archive", "ArchiveWarning", "ArchiveWriter", "Segment", "open_archive"]
