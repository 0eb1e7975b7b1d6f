"""Where a command may write, and how: whole or not at all, never over an archive, never in the place of a device.

Every output of every command goes through :func:`whole`, or through :func:`new_archive` where the archive's own writer
makes the file. An archive is recognised by what is in it, so a link, another name or another ending does not hide it;
whatever a command reads is an archive, and so no input is ever written over.
"""

from __future__ import annotations

import itertools
import os
import stat
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kerneltrack.errors import KerneltrackError, OutputError

#: The endings of each kind of output: an ending says what the file is, so another one is refused.
FIGURE = (".png", ".pdf", ".svg")
TABLE = (".csv",)
NETCDF = (".nc", ".nc4")
HTML = (".html", ".htm")
ARCHIVE = (".h5", ".hdf5")


@contextmanager
def whole(path: str | os.PathLike[str], endings: Sequence[str], *, make_folder: bool = False) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    Args:
        path: the file, replaced if it exists. Of a link the file that it points to is replaced.
        endings: the endings that fit what is written.
        make_folder: make the folder where it is not there.

    Raises:
        OutputError: nothing may be written there; see :func:`may_write`.
        OSError: the file cannot be written; it is as it was, and nothing is left beside it.
    """
    target = may_write(path, endings, make_folder=make_folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".kerneltrack-{uuid.uuid4().hex}.tmp")
    try:
        partial.touch(exist_ok=False)
        yield partial
        may_write(path, endings)  # a run may have begun its archive there meanwhile
        partial.replace(target)
    except OSError as error:
        if isinstance(error, KerneltrackError):
            raise
        raise _in_the_users_words(error, partial, path) from error
    finally:
        partial.unlink(missing_ok=True)


def may_write(path: str | os.PathLike[str], endings: Sequence[str], *, make_folder: bool = False) -> Path:
    """The file that a path leads to, if it is new or may be replaced.

    Raises:
        OutputError: standard output, a folder, an ending that does not fit, a device or pipe, a folder that is not
            there or that holds an archive's parts, or an archive.
        OSError: the system does not let one look.
    """
    given = os.fspath(path)
    found = _status(given)
    if given == "-":
        raise OutputError("the output is standard output", expected="the name of a file", got="-")
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError("the output is a folder", expected="the name of a file", where=given)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise OutputError(
            "the output is a device, pipe or socket, which a file would take the place of",
            expected="a new file or a regular one",
            where=given,
        )
    target = Path(os.path.realpath(given))
    if not make_folder and not target.parent.is_dir():
        raise OutputError("the output's folder does not exist", where=given, remedy="Make the folder first.")
    if _is_among_parts(target):
        raise OutputError("the output is in the folder of an archive's parts", where=given, remedy=_ELSEWHERE)
    if found is not None and _is_archive(target):
        raise OutputError("the output is an archive; nothing was touched", where=given, remedy=_ELSEWHERE)
    if Path(given).suffix.casefold() not in endings:
        raise OutputError(
            "the output's ending does not fit",
            expected=f"an ending of {_either(endings)}",
            got=Path(given).suffix or "none",
            where=given,
        )
    return target


def new_archive(path: str | os.PathLike[str]) -> None:
    """Refuse a path at which no new archive can be made: what :func:`may_write` refuses, and all that is there.

    Raises:
        OutputError: nothing may be written there, or something is there.
    """
    may_write(path, ARCHIVE, make_folder=True)
    if os.path.lexists(path):
        raise OutputError("the output exists; nothing was touched", where=os.fspath(path), remedy=_ELSEWHERE)


def distinct(names: Sequence[str], form: str = "{}-{}") -> list[str]:
    """The names, numbered from the second on where two are the same to some file system.

    >>> distinct(["run", "run", "run-2", "Run"])
    ['run', 'run-3', 'run-2', 'Run-4']
    """
    folded = [_folded(name) for name in names]
    taken, found = set(folded), list[str]()
    for i, name in enumerate(names):
        if folded[i] in folded[:i]:
            numbered = (form.format(name, number) for number in itertools.count(2))
            name = next(one for one in numbered if _folded(one) not in taken)
            taken.add(_folded(name))
        found.append(name)
    return found


_ELSEWHERE = "Give another name."


def _folded(name: str) -> str:
    """The name as a file system sees it that knows neither case nor the two ways to write an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _either(endings: Sequence[str]) -> str:
    return " or ".join([", ".join(endings[:-1]), endings[-1]] if endings[1:] else endings)


def _status(path: str) -> os.stat_result | None:
    """What stands at a path, links followed; None where nothing does."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _is_archive(path: Path) -> bool:
    from kerneltrack.archive import is_archive

    return is_archive(path)


def _is_among_parts(path: Path) -> bool:
    from kerneltrack.archive import is_among_parts

    return is_among_parts(path)


def _in_the_users_words(error: OSError, partial: Path, path: str | os.PathLike[str]) -> OSError:
    """The error about the name that the user gave; the temporary one means nothing to anybody."""
    given = os.fspath(path)
    if error.filename not in (None, os.fspath(partial)):
        return error
    if error.errno is None:
        return OSError(str(error).replace(os.fspath(partial), given))
    return OSError(error.errno, os.strerror(error.errno), given)  # HDF5's own text is long and holds the name
