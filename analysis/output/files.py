"""Where a command may write, and how: whole or not at all, never over an archive; into what is no file.

Every output of every command goes through :func:`write` where it can be a stream, through :func:`whole` where it is
written in more than one place, and through :func:`new_archive` where it is an archive. An archive is recognised by what
is in it, so a link, another name or another ending does not hide it; whatever a command reads is an archive, and so no
input is ever written over. "-" is standard output. What is no regular file (/dev/stdout, /dev/fd/3, a pipe, a device)
is written into.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kerneltrack.errors import KerneltrackError, OutputError

from .kinds import ARCHIVE, Kind
from .streams import emit

StrPath = str | os.PathLike[str]


def write(path: StrPath, kind: Kind, data: bytes) -> None:
    """Write an output from front to back.

    Raises:
        OutputError: nothing may be written there; see :func:`may_write`.
        OSError: it cannot be written; a file is as it was, and nothing is left beside it.
    """
    may_write(path, kind)
    if not is_stream(path):
        with whole(path, kind) as partial:
            partial.write_bytes(data)
    elif is_stdout(path):
        if b"\0" in data and sys.stdout is not None and sys.stdout.isatty():
            raise OutputError(f"the bytes of {kind.name} would go to the terminal", remedy="Send them to a file.")
        emit(data)
    else:
        _pour(path, data)


@contextmanager
def whole(path: StrPath, kind: Kind) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` when the block ends without an error.

    Args:
        path: the file, replaced if it exists; its folder is made. Of a link the file that it points to is replaced.
        kind: what is written.

    Raises:
        OutputError: nothing may be written there; see :func:`may_write`.
        OSError: the file cannot be written; it is as it was, and nothing is left beside it.
    """
    target = may_write(path, kind)
    partial = target.with_name(f".kerneltrack-{uuid.uuid4().hex}.tmp")
    try:
        with _folders_for(target):
            try:
                partial.touch(exist_ok=False)
                yield partial
                may_write(path, kind)  # a run may have begun its archive there meanwhile
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, KerneltrackError):
            raise
        raise _in_the_users_words(error, partial, path) from error


@contextmanager
def new_archive(path: StrPath) -> Iterator[Path]:
    """A name for an archive, in a folder of its own beside ``path``; it is moved there when the block ends without error.

    Raises:
        OutputError: nothing may be written there, or something is there.
        OSError: the file cannot be written; nothing is left.
    """
    target = free_for_archive(path)
    with _folders_for(target):
        try:
            workplace = TemporaryDirectory(dir=target.parent, prefix=".kerneltrack-")
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        with workplace as folder:
            partial = Path(folder) / target.name
            yield partial
            if _parts(partial):
                raise OutputError("the archive's parts cannot be joined: too little room", where=os.fspath(path))
            free_for_archive(path)  # another command may have been quicker
            partial.replace(target)


@contextmanager
def new_beside(files: Mapping[Path, Kind]) -> Iterator[None]:
    """For files that a block writes and that are not to replace any: all of them are there behind it, or none.

    Raises:
        OutputError: one of them is there already, or may not be written.
    """
    for path, kind in files.items():
        may_write(path, kind)
        if os.path.lexists(path):
            raise OutputError(
                "a file that belongs beside the output exists; nothing was touched",
                where=os.fspath(path),
                remedy="Give the output a folder of its own.",
            )
    with ExitStack() as folders:
        for path in files:
            folders.enter_context(_folders_for(path))
        try:
            yield
        except BaseException:
            for path in files:
                path.unlink(missing_ok=True)
            raise


def free_for_archive(path: StrPath) -> Path:
    """The file that a path leads to, if a new archive can be made there.

    Raises:
        OutputError: nothing may be written there, or something is there.
    """
    target = may_write(path, ARCHIVE)
    if os.path.lexists(path):
        raise OutputError("the output exists; nothing was touched", where=os.fspath(path), remedy=_ELSEWHERE)
    return target


def may_write(path: StrPath, kind: Kind) -> Path:
    """The file that a path leads to, if it is new, or may be replaced or written into.

    Raises:
        OutputError: a folder or socket, a stream for what cannot be one, an ending that does not fit, a folder that
            holds an archive's parts, or an archive.
        OSError: the system does not let one look.
    """
    given = os.fspath(path)
    if is_stream(path):
        return _may_pour(given, kind)
    target = Path(os.path.realpath(given))
    if target.is_dir():
        raise OutputError("the output is a folder", expected="the name of a file", where=given)
    if (stop := next(folder for folder in target.parents if os.path.lexists(folder))) and not stop.is_dir():
        raise OutputError(f"the output's folder is a file, {stop}", where=given, remedy=_ELSEWHERE)
    if _is_among_parts(target):
        raise OutputError("the output is in the folder of an archive's parts", where=given, remedy=_ELSEWHERE)
    if target.exists() and _is_archive(target):
        raise OutputError("the output is an archive; nothing was touched", where=given, remedy=_ELSEWHERE)
    if Path(given).suffix.casefold() not in kind.endings:
        raise OutputError(
            "the output's ending does not fit", expected=kind.expected(), got=Path(given).suffix or "none", where=given
        )
    return target


def is_stream(path: StrPath) -> bool:
    """Whether a path is "-", an open descriptor, or something else that is neither a regular file nor a folder."""
    given = os.fspath(path)
    if given == "-" or _descriptor(given) is not None:
        return True
    try:
        kind = os.stat(given).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


def is_stdout(path: StrPath) -> bool:
    """Whether a path is standard output, by any of its names."""
    given = os.fspath(path)
    return given == "-" or _descriptor(given) == 1


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


def _may_pour(given: str, kind: Kind) -> Path:
    if kind.no_stream:
        what = "standard output" if is_stdout(given) else "a device, pipe or socket"
        raise OutputError(
            f"the output is {what}: {kind.no_stream}", expected=f"the name of a file for {kind.name}", where=given
        )
    number = 1 if given == "-" else _descriptor(given)
    mode = os.stat(given).st_mode if number is None else os.fstat(number).st_mode
    if (stat.S_ISSOCK(mode) and number is None) or stat.S_ISBLK(mode):
        raise OutputError("the output is a socket or a disk", expected="a file, a pipe or a terminal", where=given)
    behind = Path(os.path.realpath(f"/dev/fd/{number}"))
    if stat.S_ISREG(mode) and behind.is_file() and _is_archive(behind):
        raise OutputError("the output is an archive; nothing was touched", where=given, remedy=_ELSEWHERE)
    return Path(given)


def _pour(path: StrPath, data: bytes) -> None:
    """Into a pipe, a device or an open descriptor; a reader that goes early has read what it wanted."""
    number = _descriptor(os.fspath(path))
    try:
        with open(os.fspath(path) if number is None else os.dup(number), "wb", buffering=0) as stream:
            rest = memoryview(data)
            while rest:
                rest = rest[stream.write(rest) :]
    except BrokenPipeError:
        return
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _descriptor(path: str) -> int | None:
    """The open descriptor of this process that /dev/stdout, /dev/fd/N or a link to them names; None for another path."""
    for _ in range(40):  # as many links as Linux follows
        folder, name = os.path.split(os.path.abspath(path))
        if name.isdigit() and os.path.realpath(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _folders_for(target: Path) -> AbstractContextManager[None]:
    from kerneltrack.archive import folders_for

    return folders_for(target, flush=False)  # a report that a power cut takes can be written again


def _folded(name: str) -> str:
    """The name as a file system sees it that knows neither case nor the two ways to write an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_archive(path: Path) -> bool:
    from kerneltrack.archive import is_archive

    return is_archive(path)


def _is_among_parts(path: Path) -> bool:
    from kerneltrack.archive import is_among_parts

    return is_among_parts(path)


def _parts(path: Path) -> list[Path]:
    from kerneltrack.archive import list_parts

    return list_parts(path)


def _in_the_users_words(error: OSError, partial: Path, path: StrPath) -> OSError:
    """The error about the name that the user gave; the temporary one means nothing to a user."""
    given = os.fspath(path)
    if error.filename not in (None, os.fspath(partial)):
        return error
    if error.errno is None:
        return OSError(str(error).replace(os.fspath(partial), given))
    return OSError(error.errno, os.strerror(error.errno), given)  # HDF5's own text is long and holds the name
