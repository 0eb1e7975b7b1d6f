"""ArchiveWriter: a snapshot is appended as a small file of its own, which is durable when ``append`` returns.

Nothing that is durable is ever written to again. Parts are joined geometrically, so that the cost of a row is
O(log n) in the long run: equal parts join, and the main file is rewritten, beside the old one, when the parts have
reached its size.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

import kerneltrack
from kerneltrack.archive import build, durable, lock, pieces, rows, schema
from kerneltrack.archive.header import Header, Segment
from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.sizes import Sizes
from kerneltrack.errors import ArchiveError, ArchiveExistsError, ArchiveFormatError
from kerneltrack.snapshot import ProbeRecord, Provenance, Snapshot

FAN_IN = 8
_SPARE_BYTES = 1 << 24
Probes = Iterable[ProbeRecord] | Mapping[str, ProbeRecord]


class ArchiveWarning(UserWarning):
    """Something about an archive that loses nothing but that its owner should know."""


class ArchiveWriter:
    """Append snapshots to an archive; nothing that :meth:`append` has taken is ever lost.

    ``path`` is a valid, empty archive from the moment of creation. While the writer is open the newest snapshots lie in
    ``path`` + ".parts" and are joined into ``path`` now and then; :func:`kerneltrack.open_archive` reads both. One
    process writes an archive at a time.

    Args:
        path: the file to create.
        probes: what the snapshots are measured on.
        provenance: where the archive comes from; ``run["run_id"]`` is invented if it is not there.
        if_exists: what to do about an archive that is there already.

    Raises:
        ArchiveExistsError: there is an archive, and ``if_exists`` is "raise"; nothing was touched.
        ArchiveError: the folder cannot be written, or another process writes the archive.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        probes: Probes,
        provenance: Provenance | None = None,
        if_exists: Literal["raise", "replace"] = "raise",
    ) -> None:
        if if_exists not in ("raise", "replace"):
            raise ArchiveError("if_exists is unknown", expected='"raise" or "replace"', got=repr(if_exists))
        records = by_name(probes)
        self.path = Path(os.path.realpath(path))
        header = _new_header(records, provenance or Provenance())
        with _explained("the archive cannot be created", self.path):
            if if_exists == "raise":
                _refuse_existing(self.path)
            broken = self._lock()
            try:
                if if_exists == "raise":
                    _refuse_existing(self.path)
                self._begin(_with_event(header, broken), [])
                stale = pieces.list_parts(self.path)
                self._write_main([])
                _unlink(stale)
            except BaseException:
                self._unlock()
                raise

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        probes: Probes,
        provenance: Provenance | None = None,
        resumed_from_step: int,
    ) -> Self:
        """Continue the archive of the same run in a new segment.

        Rows of earlier segments that lie after ``resumed_from_step`` are superseded in the canonical view, as is a
        row at that step once the new segment has one; none is deleted.

        Args:
            path: the archive.
            probes: the probes; their fingerprints must be the archive's.
            provenance: the resumed run's; its ``run["run_id"]`` must be the archive's. None: not compared.
            resumed_from_step: the step of the checkpoint.

        Raises:
            ArchiveError: another run's archive, other probes, or another process writes it.
        """
        writer = cls.__new__(cls)
        writer.path = Path(os.path.realpath(path))
        if not writer.path.exists():
            raise ArchiveError("there is no archive to resume", where=str(writer.path))
        with _explained("the archive cannot be resumed", writer.path):
            broken = writer._lock()
            try:
                writer._continue(by_name(probes), provenance, resumed_from_step, broken)
            except BaseException:
                writer._unlock()
                raise
        return writer

    def append(self, snapshot: Snapshot) -> None:
        """Store a snapshot; when this returns, no kill of the process and no loss of power loses it.

        Raises:
            ArchiveError: it does not fit the archive, or cannot be written; the archive is as it was, and the next
                append works once the cause is gone.
        """
        self._check_usable()
        row = rows.encode(snapshot, index=self._next, segment=self._segment)
        sizes = self._sizes.bound(row, where=f"step {snapshot.step}")
        with _explained("the snapshot cannot be stored", self.path):
            image = build.part_image(self._part_header(), row)
            self._put_part(image, 1)
        self._sizes = sizes
        self._next += 1
        self._tidy()

    def close(self) -> None:
        """Join the parts and give the archive free; a second call does nothing.

        Warns:
            ArchiveWarning: the parts cannot be joined now (a full disk); the archive is complete with them.
        """
        if self._closed or self._owner.pid != os.getpid():
            return
        self._closed = True
        try:
            if self._parts:
                self._attempt(self._join_into_main)
        finally:
            self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many rows the archive holds, superseded ones included."""
        return self._next

    @property
    def run_id(self) -> str:
        """The run that the archive belongs to."""
        return str(self._header.attrs["run_id"])

    @property
    def archive_id(self) -> str:
        """The archive's own identifier."""
        return str(self._header.attrs["archive_id"])

    # -- beginning and ending ---------------------------------------------------------------------------------------

    def _lock(self) -> lock.Owner | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = pieces.parts_folder(self.path)
        self._folder.mkdir(exist_ok=True)
        if self._folder.is_symlink():
            raise ArchiveError("the folder for the archive's parts is a link", where=str(self._folder))
        try:
            self._owner, broken = lock.acquire(self._folder)
        except BaseException:
            self._remove_folder()
            raise
        durable.sweep(self._folder)
        lock.sweep(self._folder)
        return broken

    def _unlock(self) -> None:
        lock.release(self._folder, self._owner)
        self._remove_folder()

    def _remove_folder(self) -> None:
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _begin(self, header: Header, found: list[Piece]) -> None:
        self._closed = False
        self._header = header
        self._segment = header.segments[-1].number
        self._parts = [(piece.path, piece.rows) for piece in found[1:]]
        self._main_rows = found[0].rows if found else 0
        self._next = 1 + max((int(p.read("snapshot", 0, p.rows).max()) for p in found if p.rows), default=-1)
        self._sizes = Sizes.of(header.probes, found)
        self._join_again_at = 0

    def _continue(
        self, records: Mapping[str, ProbeRecord], provenance: Provenance | None, step: int, broken: lock.Owner | None
    ) -> None:
        found = pieces.gather(self.path)
        try:
            header = build.merged_header(found, {})
            _require_same_run(header, records, provenance, self.path)
            segment = Segment(header.segments[-1].number + 1, int(step), time.time())
            header = replace(header, segments=[*header.segments, segment])
            header = _with_event(header, broken, f"segment {segment.number} resumed from step {step}")
            self._begin(header, found)
        finally:
            pieces.close_all(found)
        announcement = replace(self._part_header(), segments=[segment])
        announcement = replace(announcement, attrs={**announcement.attrs, "history": header.attrs["history"]})
        self._put_part(build.part_image(announcement, {}), 0)
        self._attempt(self._join_into_main)

    def _check_usable(self) -> None:
        if self._closed:
            raise ArchiveError("the archive is closed", where=str(self.path), remedy="Open a new writer.")
        if self._owner.pid != os.getpid():
            raise ArchiveError(
                "the writer belongs to another process", expected=f"process {self._owner.pid}",
                got=f"process {os.getpid()}", where=str(self.path), remedy="Append where the writer was created.",
            )

    # -- parts ------------------------------------------------------------------------------------------------------

    def _part_header(self) -> Header:
        keep = ("format", "format_version", "Conventions", "archive_id", "run_id", "source", "date_created")
        return Header({**{name: self._header.attrs[name] for name in keep}, "role": "part", "history": ""})

    def _put_part(self, image: bytes, count: int) -> None:
        path = self._folder / pieces.part_name(self._next, count)
        durable.put(path, image, workplace=self._folder)
        self._parts.append((path, count))

    def _tidy(self) -> None:
        waiting = sum(count for _, count in self._parts)
        if self._next < self._join_again_at:
            return
        if waiting >= max(self._main_rows, FAN_IN):
            self._attempt(self._join_into_main)
            return
        while len({count for _, count in self._parts[-FAN_IN:]}) == 1 and len(self._parts) >= FAN_IN:
            if not self._attempt(self._join_equal_parts):
                return

    def _attempt(self, joining: Any) -> bool:
        """Join if it can be done now; the rows are safe where they are, so a failure is a warning and put off."""
        try:
            joining()
        except (OSError, ArchiveError) as error:
            self._join_again_at = self._next + FAN_IN
            warnings.warn(
                f"the parts of {self.path} cannot be joined now: {error}. Nothing is lost; they are joined later, "
                "or by `kerneltrack merge`.", ArchiveWarning, stacklevel=4,
            )
            return False
        return True

    def _join_equal_parts(self) -> None:
        joined = self._parts[-FAN_IN:]
        target = joined[0][0].with_name(pieces.part_name(_first(joined[0][0]), sum(count for _, count in joined)))
        opened: list[Piece] = []
        try:
            opened.extend(Piece(path) for path, _ in joined)
            header = build.merged_header(opened, {})
            with durable.staged(target, workplace=self._folder, reserve=self._room(opened)) as stream:
                count = build.join(stream, header, opened)
        finally:
            pieces.close_all(opened)
        self._parts[-FAN_IN:] = [(target, count)]
        _unlink(path for path, _ in joined)

    def _join_into_main(self) -> None:
        joined = list(self._parts)
        opened: list[Piece] = []
        try:
            opened.append(Piece(self.path))
            opened.extend(Piece(path) for path, _ in joined)
            self._write_main(opened)
        finally:
            pieces.close_all(opened)
        self._parts = []
        _unlink(path for path, _ in joined)

    def _write_main(self, opened: list[Piece]) -> None:
        with durable.staged(self.path, workplace=self._folder, reserve=self._room(opened)) as stream:
            self._main_rows = build.join(stream, self._header, opened)

    def _room(self, opened: list[Piece]) -> int:
        """Bytes that the joined file can need; checked against what is free, so that appends keep their room."""
        needed = sum(piece.size for piece in opened) if opened else 0
        free = shutil.disk_usage(self._folder).free
        if opened and free < needed + _SPARE_BYTES:
            raise ArchiveError(
                "there is too little room on the disk", expected=f"{needed + _SPARE_BYTES} bytes", got=f"{free} bytes"
            )
        return needed


def by_name(probes: Probes) -> dict[str, ProbeRecord]:
    """Probe records by their names.

    Raises:
        ArchiveError: two have one name, or a name cannot be a group of the archive.
    """
    records = list(probes.values() if isinstance(probes, Mapping) else probes)
    named = {record.name: record for record in records}
    if len(named) != len(records):
        raise ArchiveError("two probes have the same name", got=", ".join(record.name for record in records))
    for name in named:
        if not schema.PROBE_NAME.fullmatch(name):
            raise ArchiveError(
                "a probe cannot have that name in an archive", got=repr(name),
                expected="up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
            )
    return named


def _first(part: Path) -> int:
    return int(part.name.partition("-")[0])


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path) or pieces.list_parts(path):
        raise ArchiveExistsError(
            "there is an archive already; nothing was touched", where=str(path),
            remedy='Give another path, if_exists="replace", or resume the run.',
        )


def _new_header(records: Mapping[str, ProbeRecord], provenance: Provenance) -> Header:
    run = {"run_id": str(uuid.uuid4()), **provenance.run}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    attrs = {
        "format": schema.FORMAT,
        "format_version": schema.FORMAT_VERSION,
        "Conventions": "CF-1.11",
        "archive_id": str(uuid.uuid4()),
        "run_id": str(run["run_id"]),
        "role": "main",
        "source": f"kerneltrack {kerneltrack.__version__}",
        "date_created": now,
        "history": f"{now} created by kerneltrack {kerneltrack.__version__}",
    }
    return Header(attrs, [Segment(0, -1, time.time())], records, replace(provenance, run=run))


def _with_event(header: Header, broken: lock.Owner | None, event: str = "") -> Header:
    """The header with the event in its history, and that a dead writer's lock was broken, if one was."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    found = f"the lock of a writer that is gone (process {broken.pid}) was broken" if broken else ""
    lines = [f"{now} {line}" for line in (found, event) if line]
    return replace(header, attrs={**header.attrs, "history": "\n".join([header.attrs["history"], *lines])})


def _require_same_run(
    header: Header, records: Mapping[str, ProbeRecord], provenance: Provenance | None, path: Path
) -> None:
    run_id = None if provenance is None else provenance.run.get("run_id")
    if run_id is not None and str(run_id) != header.attrs["run_id"]:
        raise ArchiveExistsError(
            "this is the archive of another run", expected=f"run {run_id}", got=f"run {header.attrs['run_id']}",
            where=str(path), remedy="Give another path, or the checkpoint of that run.",
        )
    ours = {name: record.fingerprint for name, record in records.items()}
    theirs = {name: record.fingerprint for name, record in header.probes.items()}
    if ours != theirs:
        raise ArchiveError(
            "the archive was measured on other probes", expected=str(theirs), got=str(ours), where=str(path),
            remedy="Resume with the same probes, or write a new archive.",
        )


class _explained:
    """Turn what the operating system says into an ArchiveError that says where and what to do."""

    def __init__(self, problem: str, path: Path) -> None:
        self.problem, self.path = problem, path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, ArchiveError | ArchiveFormatError):
            raise ArchiveError(
                self.problem, got=error.strerror or str(error), where=str(self.path),
                remedy="Nothing stored before is touched; it works again once the cause is gone.",
            ) from error
