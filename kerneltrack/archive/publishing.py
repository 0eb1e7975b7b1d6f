"""merge() and publish(): the pieces of a run in one file, and a copy for other people."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kerneltrack.archive import durable, joining, pieces
from kerneltrack.archive.citation import cited
from kerneltrack.archive.header import Header
from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.place import require_free
from kerneltrack.archive.redaction import Redaction
from kerneltrack.archive.spool import Spool
from kerneltrack.archive.writer import explained


def merge(path: str | os.PathLike[str]) -> int:
    """Join what a run that was killed, or ran out of disk, left beside its archive.

    Args:
        path: the archive.

    Returns:
        How many parts were joined.

    Raises:
        ArchiveError: there is no archive, a process is still writing it, or it cannot be written.
        ArchiveFormatError: it is damaged, or not an archive.
    """
    place = Path(os.path.realpath(path))
    pieces.close_all(pieces.gather(place))  # what is no archive is refused before anything is locked
    if not pieces.parts_folder(place).exists():
        return 0
    with explained("the parts cannot be joined", place):
        spool = Spool(place)
        try:
            found = pieces.gather(place)
            header = joining.merged_header(found)
            pieces.close_all(found)
            spool.adopt(found)
            spool.join_now(header)
        finally:
            spool.release()
    return len(found) - 1


def publish(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    licence: str,
    authors: str | Sequence[str],
    contact: str,
) -> list[str]:
    """Write a copy without host, user, command and paths, with what a reader needs to cite it.

    The private section of the provenance is left out. Absolute paths, and the names of host and user, that stand in
    other texts (metadata, a probe's identity, the message of a failure) are replaced by "<removed>".

    Args:
        source: the archive; parts that wait to be joined are in the copy.
        target: the file to write; it must not exist.
        licence: SPDX identifier, such as "CC-BY-4.0".
        authors: their names.
        contact: an e-mail address.

    Returns:
        Where something was replaced, one clause each: to be looked at before the file is sent.

    Raises:
        ArchiveExistsError: something stands at ``target``.
        ArchiveError: a licence that SPDX does not know, no author, no address; the source cannot be read, or the target
            cannot be written.
    """
    place = Path(os.path.realpath(target))
    require_free(place)
    citation = cited(licence, authors, contact)
    found = pieces.gather(Path(os.path.realpath(source)))
    try:
        header = joining.merged_header(found)
        redaction = Redaction.of(header.provenance)
        public, replaced = redaction.header(header)
        messages = redaction.messages(found)
        with explained("the copy cannot be written", place):
            _write(place, replace(public, attrs={**public.attrs, **citation}), found, messages)
    finally:
        pieces.close_all(found)
    return [*replaced, *(f"message, row {row}" for row in messages["message"])]


def _write(place: Path, header: Header, found: Sequence[Piece], changed: joining.Changes) -> None:
    with (
        durable.folders_for(place),
        tempfile.TemporaryDirectory(dir=place.parent, prefix=".publish-") as workplace,
        durable.staged(place, workplace=Path(workplace), reserve=sum(piece.size for piece in found)) as stream,
    ):
        joining.join(stream, header, found, changed)
