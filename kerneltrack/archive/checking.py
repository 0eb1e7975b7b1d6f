"""check(): every departure of an archive from its format, found in a process of its own.

The HDF5 library itself can crash on a damaged file, or be led to ask for all the memory there is. So the file is
examined by a child process with limits on memory and time; a child that dies is one more problem to report.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from kerneltrack.archive import joining, lock, pieces
from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.printable import printable
from kerneltrack.archive.reader import open_archive
from kerneltrack.errors import ArchiveError
from kerneltrack.snapshot import Array

MEMORY_BYTES = 4 << 30
SECONDS = 60.0
BYTES_PER_SECOND = 10_000_000
PATIENCE = 20
MAX_PROBLEMS = 200
_BLOCK_BYTES = 1 << 24
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from kerneltrack.archive.checking import _examine; _examine(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
)


@dataclass(frozen=True)
class Problem:
    """One line about an archive; ``str`` of it is safe to print.

    Attributes:
        severity: "problem", or "note" for what is in order but worth knowing (parts that wait to be joined).
        where: the file.
        text: what it is.
    """

    severity: Literal["problem", "note"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{printable(self.where)}: {'note: ' if self.severity == 'note' else ''}{printable(self.text)}"


def check(path: str | os.PathLike[str], *, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> list[Problem]:
    """Validate an archive against the format; safe on any file.

    Args:
        path: the archive.
        memory_bytes: address space that the examination may use.
        seconds: processor time that it may take, on top of what reading the file's bytes takes; a busy machine
            does not make an archive invalid. Twenty times as long by the clock is the end all the same.

    Returns:
        Problems and notes; an archive is valid if there is no entry of severity "problem".

    Raises:
        ArchiveError: there is no such file.
    """
    place = Path(os.path.realpath(path))
    if not place.is_file():
        raise ArchiveError("there is no such archive", where=printable(path))
    size = sum(part.lstat().st_size for part in (place, *pieces.list_parts(place)))
    environment = {**os.environ, "HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    limit = seconds + size / BYTES_PER_SECOND
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(place), str(memory_bytes), str(ceil(limit))]
    slow = [Problem("problem", str(path), "examining the file took too long and was stopped")]
    try:
        child = subprocess.run(command, capture_output=True, env=environment, timeout=PATIENCE * limit, check=False)
    except subprocess.TimeoutExpired:
        return slow
    if child.returncode < 0 and -child.returncode == getattr(signal, "SIGXCPU", None):
        return slow
    return [*_reported(child.stdout), *_death(child, str(path)), *_surroundings(place)]


def _reported(output: bytes) -> Iterator[Problem]:
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            yield Problem(**json.loads(line))
        except (ValueError, TypeError):
            return  # the child died while it wrote


def _death(child: subprocess.CompletedProcess[bytes], where: str) -> Iterator[Problem]:
    if child.returncode < 0:
        yield Problem("problem", where, f"the HDF5 library crashed on the file (signal {-child.returncode})")
    elif child.returncode:
        last = (child.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        yield Problem("problem", where, f"the file could not be examined: {last}")


def _surroundings(path: Path) -> Iterator[Problem]:
    """What lies beside the main file."""
    folder = pieces.parts_folder(path)
    waiting = pieces.list_parts(path)
    if waiting:
        yield Problem("note", str(path), f"{len(waiting)} parts wait to be joined (`kerneltrack merge`)")
    try:
        holder = lock.owner(folder)
    except ArchiveError as error:
        yield Problem("note", str(path), str(error))
        return
    if holder is not None:
        state = "is gone; its lock is broken by the next writer" if holder.is_dead() else "is writing the archive"
        yield Problem("note", str(path), f"{holder} {state}")


def is_being_written(path: Path) -> bool:
    """Whether a process that may be alive holds the archive's lock, or one that does not say whose it is is there."""
    try:
        holder = lock.owner(pieces.parts_folder(path))
    except ArchiveError:
        return True
    return holder is not None and not holder.is_dead()


# -- in the child -----------------------------------------------------------------------------------------------------


def _examine(path: str, memory_bytes: int, seconds: int) -> None:
    """Examine an archive and print one JSON object per problem; runs in a process of its own."""
    for count, problem in enumerate(itertools.chain(_limited(path, memory_bytes, seconds), problems(Path(path)))):
        if count == MAX_PROBLEMS:
            problem = Problem("problem", path, f"there are more than {MAX_PROBLEMS} problems")
        sys.stdout.write(json.dumps(asdict(problem)) + "\n")
        sys.stdout.flush()
        if count == MAX_PROBLEMS:
            return


def _limited(path: str, memory_bytes: int, seconds: int) -> Iterator[Problem]:
    """Set the limits; a note for each that this system does not keep (macOS has none on memory, Windows none at all)."""
    try:
        import resource
    except ImportError:
        yield Problem("note", path, "this system has no limits on memory and time; the file was examined without them")
        return
    limits = {"RLIMIT_AS": (memory_bytes, memory_bytes), "RLIMIT_CPU": (seconds, seconds + 5), "RLIMIT_CORE": (0, 0)}
    for name, (soft, hard) in limits.items():
        try:
            kind = getattr(resource, name)
            # A batch system may have set tighter ones, which cannot be raised again.
            held = [hard, *(limit for limit in resource.getrlimit(kind) if limit != resource.RLIM_INFINITY)]
            resource.setrlimit(kind, (min(soft, *held), min(held)))
        except (AttributeError, ValueError, OSError) as error:
            yield Problem("note", path, f"this system does not keep {name} ({error}); the file was examined without it")


def problems(path: Path) -> Iterator[Problem]:
    """The same in this process: for files that this process wrote itself."""
    try:
        found = pieces.gather(path)
    except ArchiveError as error:
        yield Problem("problem", str(path), str(error))
        return
    try:
        for piece in found:
            for text in (*_unprotected(piece), *_contents(piece)):
                yield Problem("problem", str(piece.path), text)
        try:
            for text in _together(found):
                yield Problem("problem", str(path), text)
            yield from _digests(path)
        except ArchiveError as error:
            yield Problem("problem", str(path), str(error))
    finally:
        pieces.close_all(found)


def _digests(path: Path) -> Iterator[Problem]:
    """Rows whose digest is not theirs: damage that a checksum cannot see (fletcher32 takes 0xffff for 0x0000)."""
    with open_archive(path, all_segments=True) as archive:
        for error in archive.faults():
            yield Problem("problem", str(path), str(error))


def _unprotected(piece: Piece) -> Iterator[str]:
    """What of the format's own has chunks and no checksum, in one line: a copy that was packed anew loses them all."""
    found: list[str] = []

    def look(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and "dimensions" in item.attrs and item.chunks and not item.fletcher32:
            found.append(name)

    piece.file.visititems(look)
    if found:
        others = f" and {len(found) - 1} others" if found[1:] else ""
        yield f"/{found[0]}{others} with chunks have no checksum (fletcher32): damage there would not be seen"


def _contents(piece: Piece) -> Iterator[str]:
    """What is wrong with the values of one file. Reading them also verifies every checksum."""
    for path, column in piece.columns.items():
        step = max(1, _BLOCK_BYTES // max(column.row_bytes, 1))
        for start in range(0, piece.rows, step):
            try:
                values = piece.read(path, start, min(start + step, piece.rows))
            except (ArchiveError, MemoryError) as error:
                yield f"{path} cannot be read from row {start} on: {error}"
                break
            wrong = _RULES.get(path, _RULES.get(path.rpartition("/")[2]))
            if wrong is not None and (where := np.flatnonzero(wrong.broken(values))).size:
                yield f"{path}, row {start + int(where[0])}: {wrong.text}"


@dataclass(frozen=True)
class _Rule:
    """What rows of a column must not be: ``broken`` maps rows to one bool each."""

    broken: Callable[[Array], Array]
    text: str


def _allowed(*values: int) -> _Rule:
    return _Rule(lambda rows: ~np.isin(rows, values), f"not one of {', '.join(map(str, values))}")


def _not_utf8(rows: Array) -> Array:
    def bad(row: Array) -> bool:
        try:
            row.tobytes().rstrip(b"\0").decode()
        except UnicodeDecodeError:
            return True
        return False

    return np.array([bad(row) for row in rows], bool)


def _ascending(rows: Array) -> Array:
    return np.asarray((np.diff(rows, axis=1) > 0).any(axis=1))  # a comparison with NaN is false


_RULES = {
    "step": _Rule(lambda rows: rows < 0, "a negative step"),
    "window": _allowed(0, 1, 2),
    "update_applied": _allowed(-1, 0, 1),
    "status": _allowed(0, 1),
    "trigger": _Rule(_not_utf8, "not UTF-8"),
    "message": _Rule(_not_utf8, "not UTF-8"),
    "eigenvalues": _Rule(_ascending, "eigenvalues are not descending"),
}


def _together(found: Sequence[Piece]) -> Iterator[str]:
    """What is wrong with the rows of all files as one archive."""
    header = joining.merged_header(found)
    origin, place = pieces.row_map(found)
    values = {name: _gathered(found, name, origin, place) for name in ("snapshot", "step", "segment")}
    if not np.array_equal(values["snapshot"], np.arange(len(origin))):
        yield "/snapshot does not count the rows 0, 1, 2, …: a row is missing, or stands twice"
    known = [segment.number for segment in header.segments]
    if known != list(range(len(known))):
        yield "/segments/number does not count 0, 1, 2, …"
    if not np.isin(values["segment"], known).all():
        yield "/segment names a segment that /segments does not have"
    if (np.diff(values["segment"]) < 0).any():
        yield "/segment goes back"
    for number in known:
        if (np.diff(values["step"][values["segment"] == number]) < 0).any():
            yield f"/step goes back within segment {number}"
    if header.attrs["run_id"] != str(header.provenance.run.get("run_id")):
        yield "/@run_id and the run_id of /provenance/run differ"


def _gathered(found: Sequence[Piece], name: str, origin: Array, place: Array) -> Array:
    parts = [piece.read(name, 0, piece.rows) if piece.rows else np.zeros(0, np.int64) for piece in found]
    return np.array([parts[number][row] for number, row in zip(origin, place, strict=True)], np.int64)
