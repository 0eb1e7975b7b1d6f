"""Where an archive may be made: nothing of anybody else's is written over, and what stands there is called what it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kerneltrack.archive.pieces import is_archive, list_parts
from kerneltrack.errors import ArchiveExistsError

_ELSEWHERE = "Give another path."


def require_free(path: Path, *, replace: bool = False) -> None:
    """Refuse a path at which no archive can be made.

    Args:
        path: without links.
        replace: an archive that is there, or an empty file, may be replaced; anything else never.

    Raises:
        ArchiveExistsError: something stands there; nothing was touched.
        OSError: the system does not let one look.
    """
    if is_among_parts(path):
        raise ArchiveExistsError(
            "that is in the folder of an archive's parts; nothing was touched", where=str(path), remedy=_ELSEWHERE
        )
    if not os.path.lexists(path):
        if list_parts(path) and not replace:
            raise _already("parts of an archive are there already", path)
        return
    kind = os.lstat(path).st_mode
    if not stat.S_ISREG(kind):
        what = "folder" if stat.S_ISDIR(kind) else "device, pipe or socket"
        raise ArchiveExistsError(f"a {what} is there; nothing was touched", where=str(path), remedy=_ELSEWHERE)
    empty = os.stat(path).st_size == 0
    if not (replace and empty) and not is_archive(path):
        raise ArchiveExistsError(
            "the file that is there is no kerneltrack archive; nothing was touched",
            where=str(path),
            remedy="Give another path; if the file is not needed, remove it first.",
        )
    if not replace:
        raise _already("there is an archive already", path)


def is_among_parts(path: Path) -> bool:
    """Whether a file would lie in the folder of an archive's parts, or below it."""
    folders = [folder for folder in path.parents if folder.suffix == ".parts"]
    archives = [folder.with_suffix("") for folder in folders]  # run.h5 of run.h5.parts
    return any(archive.is_file() or list_parts(archive) for archive in archives)


def _already(problem: str, path: Path) -> ArchiveExistsError:
    return ArchiveExistsError(
        f"{problem}; nothing was touched",
        where=str(path),
        remedy='Give another path, if_exists="replace", or resume the run.',
    )
