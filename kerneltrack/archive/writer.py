"""ArchiveWriter: a snapshot is appended as a small file of its own, which is durable when ``append`` returns.

Nothing that is durable is ever written to again; see :mod:`kerneltrack.archive.spool` for how the small files join.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

import numpy as np

from kerneltrack import schema
from kerneltrack.archive import durable, joining, layout, meaning, pieces, place, rows
from kerneltrack.archive.header import Header, Segment
from kerneltrack.archive.pieces import Piece
from kerneltrack.archive.sizes import Sizes
from kerneltrack.archive.spool import Spool
from kerneltrack.errors import ArchiveError, ArchiveExistsError
from kerneltrack.snapshot import Batches, ControlOf, Json, ProbeRecord, Provenance, Snapshot

#: What to do about an archive that is there already.
IfExists = Literal["raise", "replace"]

MAX_EVENT = 1000  # characters of a line of the history
_OF_ONE_START = frozenset({"created", "run_id", "started_at_step"})  # differ at every start and mean no change

Probes = Iterable[ProbeRecord] | Mapping[str, ProbeRecord]


class ArchiveWriter:
    """Append snapshots to an archive; nothing that :meth:`append` has taken is ever lost.

    ``path`` is a valid, empty archive from the moment of creation. While the writer is open the newest snapshots lie in
    ``path`` + ".parts" and are joined into ``path`` now and then; :func:`kerneltrack.open_archive` reads both. One
    process writes an archive at a time.

    Args:
        path: the file to create; its folder is made if need be.
        probes: what the snapshots are measured on.
        provenance: where the archive comes from; ``run["run_id"]`` is invented if it is not there.
        if_exists: what to do about an archive that is there already.
        control: of which other run this one is a control, if it is one.

    Raises:
        ArchiveExistsError: there is an archive, and ``if_exists`` is "raise", or something that is no archive; nothing
            was touched.
        ArchiveError: the folder cannot be written, or another process writes the archive.
    """

    path: Path
    _spool: Spool
    _header: Header
    _segment: Segment
    _images: joining.PartImages
    _sizes: Sizes
    _next: int
    _closed: bool
    _changed: bool  # whether the main file says other attributes than the header

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        probes: Probes,
        provenance: Provenance | None = None,
        if_exists: IfExists = "raise",
        control: ControlOf | None = None,
    ) -> None:
        if if_exists not in get_args(IfExists):
            raise ArchiveError("if_exists is unknown", expected='"raise" or "replace"', got=repr(if_exists))
        self.path = Path(os.path.realpath(path))
        header = _new_header(by_name(probes), provenance or Provenance())
        header = replace(header, attrs={**header.attrs, **_of_control(control)})
        with explained("the archive cannot be created", self.path):
            place.require_free(self.path, replace=if_exists == "replace")
            with durable.folders_for(self.path):
                spool = Spool(self.path)
                try:
                    place.require_free(self.path, replace=if_exists == "replace")  # another may have been quicker
                    header = _with_events(header, spool)
                    spool.create_main(header)
                except BaseException:
                    spool.release()
                    raise
        self._begin(spool, header, [])

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
            ArchiveExistsError: it is another run's archive.
            ArchiveError: there is none, it has other probes or was measured with other settings, or another process
                writes it.
        """
        writer = cls.__new__(cls)
        writer.path = Path(os.path.realpath(path))
        records = by_name(probes)
        if not writer.path.exists():
            raise ArchiveError("there is no archive to resume", where=str(writer.path))
        with explained("the archive cannot be resumed", writer.path):
            spool = Spool(writer.path)
            try:
                writer._continue(spool, records, provenance, int(resumed_from_step))
            except BaseException:
                spool.release()
                raise
        return writer

    def append(self, snapshot: Snapshot) -> None:
        """Store a snapshot; when this returns, no kill of the process and no loss of power loses it.

        Raises:
            ArchiveError: it does not fit the archive, or cannot be written; the archive is as it was, and the next
                append works once the cause is gone.
        """
        self._check_usable()
        row = rows.encode(snapshot, index=self._next, segment=self._segment.number)
        sizes = self._sizes.bound(row, where=f"step {snapshot.step}")
        with explained("the snapshot cannot be stored", self.path):
            image = self._images.of(row)
            self._spool.put(image, self._next, 1, self._images.kept(row, image))
        self._sizes = sizes
        self._next += 1
        self._spool.tidy(self._header)

    def fitting(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without the columns whose size or dtype is not the archive's; its message names them."""
        misfits = self._sizes.misfits(rows.encode(snapshot, index=self._next, segment=self._segment.number))
        probes = {
            probe: {name: value for name, value in values.items() if f"probes/{probe}/{name}" not in misfits}
            for probe, values in snapshot.probes.items()
        }
        said = [f"{path.rsplit('/', 1)[1]} is not stored: {how}" for path, how in misfits.items()]
        return replace(snapshot, probes=probes, message="; ".join(filter(None, [*said, snapshot.message])))

    def tell_batches(self, batches: Batches) -> None:
        """Whether a control was trained on the batches of its run: known when it ends, and written at :meth:`close`.

        Raises:
            ArchiveError: the archive is not that of a control.
        """
        if "batches" not in self._header.attrs:
            raise ArchiveError("only a control's archive tells of batches", where=str(self.path))
        self._header = replace(self._header, attrs={**self._header.attrs, "batches": batches})
        self._changed = True

    def close(self) -> None:
        """Join the parts and give the archive free; a second call does nothing.

        Warns:
            ArchiveWarning: the parts cannot be joined now (a full disk); the archive is complete with them.
        """
        if self._closed or self._spool.owner.pid != os.getpid():
            return
        self._closed = True
        try:
            (self._spool.rewrite if self._changed else self._spool.join_all)(self._header)
        finally:
            with explained("the archive's lock cannot be given back", self.path):
                self._spool.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def rows(self) -> int:
        """How many rows were ever appended, superseded ones included."""
        return self._next

    @property
    def run_id(self) -> str:
        """The run that the archive belongs to."""
        return str(self._header.attrs["run_id"])

    @property
    def archive_id(self) -> str:
        """The archive's own identifier."""
        return str(self._header.attrs["archive_id"])

    def _begin(self, spool: Spool, header: Header, found: Sequence[Piece]) -> None:
        self._closed = self._changed = False
        self._spool = spool
        self._header = header
        self._segment = header.segments[-1]
        self._images = joining.PartImages(self._part_header())
        self._sizes = Sizes.of(header.probes, found)
        self._next = 1 + max((int(p.read("snapshot", 0, p.rows).max()) for p in found if p.rows), default=-1)

    def _continue(
        self, spool: Spool, records: Mapping[str, ProbeRecord], provenance: Provenance | None, step: int
    ) -> None:
        found = pieces.gather(self.path)
        try:
            header = joining.merged_header(found)
            _require_same_run(header, records, provenance, self.path)
            meaning.require_same(header, records, provenance, self.path)
            measured = (c.field for piece in found for c in piece.columns.values() if "snapshot" in c.field.dims)
            meaning.require_same_definitions((f for f in measured if f.definition), self.path)
            segment = Segment(header.segments[-1].number + 1, step, time.time())
            header = replace(header, segments=[*header.segments, segment])
            resumed = [f"segment {segment.number} resumed from step {step}", *_changes(header.provenance, provenance)]
            header = _with_events(header, spool, "; ".join(resumed)[:MAX_EVENT])
            self._begin(spool, header, found)
            spool.adopt(found)
        finally:
            pieces.close_all(found)
        spool.put(joining.empty_part(self._part_header(announce=True), {}), self._next, 0)
        spool.join_all(header)

    def _part_header(self, *, announce: bool = False) -> Header:
        """What a part says of itself; one that announces a resume also says which segments there are, and the history.

        All segments: this announcement may take the place of an earlier one whose run was killed before its first row.
        """
        attrs = {**self._header.attrs, "role": "part", "history": self._header.attrs["history"] if announce else ""}
        return Header(attrs, self._header.segments if announce else [])

    def _check_usable(self) -> None:
        if self._closed:
            raise ArchiveError("the archive is closed", where=str(self.path), remedy="Open a new writer.")
        if self._spool.owner.pid != os.getpid():
            raise ArchiveError(
                "the writer belongs to another process",
                expected=f"process {self._spool.owner.pid}",
                got=f"process {os.getpid()}",
                where=str(self.path),
                remedy="Append in the process that created the writer.",
            )


class explained:
    """Turn what the operating system says into an ArchiveError that says where, and that nothing is lost."""

    def __init__(self, problem: str, path: Path) -> None:
        self.problem, self.path = problem, path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, ArchiveError):
            raise ArchiveError(
                self.problem,
                got=error.strerror or str(error),
                where=str(self.path),
                remedy="Earlier snapshots are safe; appending works again once the cause is removed.",
            ) from error


def by_name(probes: Probes) -> dict[str, ProbeRecord]:
    """Probe records by their names.

    Raises:
        ArchiveError: two have one name, a name cannot be a group of the archive, or one has no sample.
    """
    records = list(probes.values() if isinstance(probes, Mapping) else probes)
    named = {record.name: record for record in records}
    if len(named) != len(records):
        raise ArchiveError("two probes have the same name", got=", ".join(record.name for record in records))
    for name in named:
        if not schema.PROBE_NAME.fullmatch(name):
            raise ArchiveError(
                "a probe cannot have that name in an archive",
                expected="up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
                got=repr(name),
            )
    for record in records:
        if record.count < 1 or (record.targets is not None and not np.size(record.targets)):
            raise ArchiveError("a probe holds nothing", got=f"{record.count} samples", where=f"probe {record.name!r}")
    return named


def _new_header(records: Mapping[str, ProbeRecord], provenance: Provenance) -> Header:
    run = {"run_id": str(uuid.uuid4()), **provenance.run}
    software = f"kerneltrack {version('kerneltrack')}"
    attrs = {
        "format": schema.FORMAT,
        "format_version": schema.FORMAT_VERSION,
        "Conventions": "CF-1.11",
        "archive_id": str(uuid.uuid4()),
        "run_id": str(run["run_id"]),
        "role": "main",
        "source": software,
        "date_created": _now(),
        "history": f"{_now()} created by {software}",
    }
    return Header(attrs, [Segment(0, -1, time.time())], records, replace(provenance, run=run))


def _of_control(control: ControlOf | None) -> dict[str, str | int]:
    if control is None:
        return {}
    of = "placebo_of" if control.placebo else "control_of"
    return {of: control.archive_id, "fork_step": control.fork_step, "batches": control.batches}


def _with_events(header: Header, spool: Spool, *events: str) -> Header:
    """The header with the events in its history, and that a dead writer's lock was broken, if one was."""
    found = [f"the lock of a writer that is gone (process {spool.broken.pid}) was broken"] if spool.broken else []
    lines = [*header.attrs["history"].splitlines(), *(f"{_now()} {event}" for event in (*found, *events))]
    return replace(header, attrs={**header.attrs, "history": joining.history(lines)})


def _changes(old: Provenance, new: Provenance | None) -> list[str]:
    """What a resumed run says otherwise of itself than the run that it continues: versions, device, settings."""
    before, after = (_leaves(provenance.run if provenance else {}) for provenance in (old, new))
    return [
        f"{key} {json.dumps(value)}, was {json.dumps(before.get(key))}"
        for key, value in after.items()
        if value != before.get(key) and key not in _OF_ONE_START
    ]


def _leaves(value: Json, key: str = "") -> dict[str, Json]:
    """The leaves of a nested JSON value by their dotted keys."""
    if isinstance(value, Mapping) and value:
        return {
            k: leaf for name, item in value.items() for k, leaf in _leaves(item, f"{key}.{name}".lstrip(".")).items()
        }
    return {key: layout.plain(value, key)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _require_same_run(
    header: Header, records: Mapping[str, ProbeRecord], provenance: Provenance | None, path: Path
) -> None:
    run_id = None if provenance is None else provenance.run.get("run_id")
    if run_id is not None and str(run_id) != header.attrs["run_id"]:
        raise ArchiveExistsError(
            "this is the archive of another run",
            expected=f"run {run_id}",
            got=f"run {header.attrs['run_id']}",
            where=str(path),
            remedy="Give another path, or the checkpoint of that run.",
        )
    ours = {name: record.fingerprint for name, record in records.items()}
    theirs = {name: record.fingerprint for name, record in header.probes.items()}
    if ours != theirs:
        raise ArchiveError(
            "the archive was measured on other probes",
            expected=_probes_in_words(header.probes),
            got=_probes_in_words(records),
            where=str(path),
            remedy="Resume with the same probes (where they were drawn, leave probe= out), or write a new archive.",
        )


def _probes_in_words(records: Mapping[str, ProbeRecord]) -> str:
    """Probes by name, number of points and the beginning of their fingerprints."""
    return ", ".join(f"{name!r} of {r.count} points ({r.fingerprint[:15]}…)" for name, r in records.items())
