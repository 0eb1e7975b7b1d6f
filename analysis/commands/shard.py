"""A share of many checkpoints, for one job of an array; and the archives of all shares, joined to that of a single job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kerneltrack.archive import Archive, ArchiveWriter, open_archive
from kerneltrack.errors import ArchiveError, TrackerError
from kerneltrack.snapshot import Array, Provenance, Snapshot

from ..output import new_archive

T = TypeVar("T")
_JOIN = "kerneltrack merge shard-*.h5 -o run.h5"


@dataclass(frozen=True)
class Shard:
    """The i-th of n shares of a list, one after the other; i counts from 1."""

    index: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """From "i/n".

        Raises:
            TrackerError: anything else.
        """
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
            raise TrackerError(
                "--shard", expected="i/n with i from 1 to n", got=text, remedy="For example --shard 2/8."
            )
        return cls(int(index), int(of))

    def bounds(self, count: int) -> tuple[int, int]:
        """The first position, and that behind the last."""
        return count * (self.index - 1) // self.of, count * self.index // self.of

    @property
    def facts(self) -> dict[str, int]:
        """What the archive's provenance says of it."""
        return {"index": self.index, "of": self.of}


def stored(path: Path, run_id: str) -> int | None:
    """How many rows of this shard are stored already, whole or with parts beside it; None where there is no archive.

    Raises:
        TrackerError: it is another one.
    """
    if not path.exists():
        return None
    with open_archive(path) as archive:
        if archive.provenance.run.get("run_id") != run_id:
            raise TrackerError(
                "there is another archive already; nothing was touched",
                expected="none, or what this shard of these checkpoints has left",
                where=str(path),
                remedy="Give another path.",
            )
        return len(archive)


def join(paths: Sequence[Path], output: Path) -> int:
    """Join the archives of all shards of a run; returns the number of rows.

    Raises:
        ArchiveError: they are no shards of one run, one is missing or there twice, or one is not complete.
        OutputError: ``output`` exists or is no place for an archive.
    """
    archives: list[Archive] = []
    try:
        archives.extend(open_archive(path) for path in paths)
        archives.sort(key=lambda archive: _shard(archive).index)
        _require_whole(archives)
        first = archives[0]
        run = {key: value for key, value in first.provenance.run.items() if key not in ("shard", "run_id")}
        origin = Provenance(run={**run, "joined_from": len(archives)}, parameters=first.provenance.parameters)
        with (
            new_archive(output) as partial,
            ArchiveWriter(partial, probes=first.probes.values(), provenance=origin) as one,
        ):
            for archive in archives:
                for snapshot in _rows(archive):
                    one.append(snapshot)
        return sum(map(len, archives))
    finally:
        for archive in archives:
            archive.close()


def _shard(archive: Archive) -> Shard:
    found: Any = archive.provenance.run.get("shard")
    if not isinstance(found, Mapping):
        raise ArchiveError(
            "this archive is no shard", where=str(archive.path), remedy="merge without -o joins an archive's own parts."
        )
    return Shard(int(found["index"]), int(found["of"]))


def _require_whole(archives: Sequence[Archive]) -> None:
    shards, first = [_shard(archive) for archive in archives], archives[0]
    for archive in archives[1:]:
        if _of(archive) != _of(first):
            raise ArchiveError(
                "shards of different runs", expected=f"those of {first.path.name}", got=archive.path.name, remedy=_JOIN
            )
    of = shards[0].of
    if missing := sorted(set(range(1, of + 1)) - {shard.index for shard in shards}):
        raise ArchiveError(
            "a shard is missing", expected=f"all {of}", got=f"none of {', '.join(map(str, missing))}", remedy=_JOIN
        )
    if len(shards) > of:
        raise ArchiveError("a shard is there twice", expected=f"{of}", got=len(shards), remedy=_JOIN)
    total: Any = first.provenance.run["replayed_from"]
    for shard, archive in zip(shards, archives, strict=True):
        start, stop = shard.bounds(len(total))
        if len(archive) != stop - start:
            raise ArchiveError(
                f"shard {shard.index} is not complete",
                expected=f"{stop - start} snapshots",
                got=len(archive),
                where=str(archive.path),
                remedy="Run its job again: it goes on where it was.",
            )


def _of(archive: Archive) -> object:
    """What all shards of a run have in common."""
    run = archive.provenance.run
    probes = {name: (probe.fingerprint, dict(probe.settings)) for name, probe in archive.probes.items()}
    return _shard(archive).of, run["replayed_from"], run["replay"], probes


def _rows(archive: Archive) -> Iterator[Snapshot]:
    """The snapshots with what is NaN in them, as it was stored: reading leaves that out."""
    columns = {path: path.split("/")[1:] for path in archive.columns if path.startswith("probes/")}
    measured = {f"probes/{probe}/{name}" for s in archive for probe, values in s.probes.items() for name in values}
    for position, snapshot in enumerate(archive):
        probes = {probe: dict(values) for probe, values in snapshot.probes.items()}
        for path, (probe, name) in columns.items():
            if name not in probes.get(probe, {}):
                value = archive.column(path, position)
                if path not in measured or not _is_filled(value):
                    probes.setdefault(probe, {})[name] = value
        yield replace(snapshot, probes=probes)


def _is_filled(value: Array) -> bool:
    """Whether these are the NaN that stand where nothing was stored."""
    return value.tobytes() == np.full_like(value, np.nan).tobytes()
