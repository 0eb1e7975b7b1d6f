"""``kerneltrack publish``: a copy for other people, and with ``--card`` what a dataset hub shows beside it.

The card, the citation and the checksums are made from the copy, after what is private was taken out of it, and offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerneltrack.archive import open_archive
from kerneltrack.archive import publish as published

from ..output import CARD, CITATION, SUMS, Kind, free_for_archive, new_archive, new_beside, write
from .card import card
from .cff import citation
from .checksums import checksum, sums

#: What ``--card`` writes into the archive's folder; hubs look for the first name.
BESIDE: Mapping[str, Kind] = {"README.md": CARD, "CITATION.cff": CITATION, "SHA256SUMS": SUMS}


@dataclass(frozen=True)
class Published:
    """What was done.

    Attributes:
        removed: where something private was taken out, one clause each.
        written: the files.
    """

    removed: Sequence[str]
    written: Sequence[Path]


def run_publish(
    source: Path, output: Path, *, licence: str, authors: Sequence[str], contact: str, with_card: bool = False
) -> Published:
    """Write the copy, and with ``with_card`` the files of :data:`BESIDE` into its folder; all of them, or none.

    Raises:
        OutputError: nothing may be written there, or one of the files is there.
        ArchiveError: what cites nothing; see :func:`kerneltrack.archive.publish`.
        OSError: a file cannot be written.
    """
    beside = {output.parent / name: kind for name, kind in BESIDE.items()} if with_card else {}
    free_for_archive(output)  # what is wrong with the name that was given is said of that name
    with new_beside(beside), new_archive(output) as partial:
        removed = published(source, partial, licence=licence, authors=authors, contact=contact)
        if with_card:
            _write_beside(beside, partial, output.name)
    return Published(removed, [output, *beside])


def _write_beside(beside: Mapping[Path, Kind], copy: Path, name: str) -> None:
    """The card and the citation of the copy, which will have this name; then the checksums of all three."""
    digests = {name: checksum(copy)}
    with open_archive(copy) as archive:
        texts = {
            "README.md": card(archive, name, copy.stat().st_size),
            "CITATION.cff": citation(archive, digests[name]),
        }
    for path, kind in beside.items():
        if path.name in texts:
            data = texts[path.name].encode("utf-8")
            write(path, kind, data)
            digests[path.name] = checksum(path)
        else:
            write(path, kind, sums(digests))
