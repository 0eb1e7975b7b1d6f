"""The archive: snapshots in a published HDF5 format that survives crashes and strangers. No torch here."""

from __future__ import annotations

from kerneltrack.archive.checking import Problem, check, is_being_written
from kerneltrack.archive.durable import Stream, folders_for
from kerneltrack.archive.header import Segment
from kerneltrack.archive.layout import Column, chunk_shape
from kerneltrack.archive.notebook import html_table
from kerneltrack.archive.pieces import is_archive, list_parts, says
from kerneltrack.archive.place import is_among_parts
from kerneltrack.archive.printable import printable
from kerneltrack.archive.publishing import merge, publish
from kerneltrack.archive.reader import Archive, open_archive
from kerneltrack.archive.shelf import Shelved
from kerneltrack.archive.spool import ArchiveWarning
from kerneltrack.archive.writer import ArchiveWriter, IfExists
from kerneltrack.schema import Field

__all__ = [
    "Archive",
    "ArchiveWarning",
    "ArchiveWriter",
    "Column",
    "Field",
    "IfExists",
    "Problem",
    "Segment",
    "Shelved",
    "Stream",
    "check",
    "chunk_shape",
    "folders_for",
    "html_table",
    "is_among_parts",
    "is_archive",
    "is_being_written",
    "list_parts",
    "merge",
    "open_archive",
    "printable",
    "publish",
    "says",
]
