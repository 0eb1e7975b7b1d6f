"""Opening: archives become runs and trajectories."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kerneltrack.errors import AnalysisError

from .run import PathLike, Run
from .trajectory import Trajectory

if TYPE_CHECKING:
    from kerneltrack.archive import Archive, Shelved


def load(paths: PathLike | Iterable[PathLike], *, probe: str | None = None) -> Trajectory:
    """Open one archive or many as a trajectory. Of many, a few hold their files open at a time.

    Args:
        paths: a path, or several.
        probe: which probe to look through; None: each archive's first.

    Raises:
        AnalysisError: no path, an archive without that probe, or without a snapshot.
        ArchiveError: a file that cannot be read as an archive.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise AnalysisError("load(paths)", expected="at least one archive", got="none")
    return Trajectory(tuple(_load(os.fspath(path), probe) for path in several))


def _load(path: str, probe: str | None) -> Run:
    from kerneltrack.archive import Shelved, open_archive

    archive = open_archive(path)
    names = tuple(archive.probes)
    if not names:
        raise AnalysisError("the archive holds no probe", where=path)
    if probe is not None and probe not in names:
        raise AnalysisError(f"probe {probe!r}", expected=f"one of {', '.join(names)}", got="no such probe", where=path)
    if len(archive) == 0:
        raise AnalysisError(
            "the archive holds no snapshot yet", where=path, remedy="Wait for the run's first measurement."
        )
    return run_of(Shelved(archive), probe or names[0], path)


def run_of(archive: Archive | Shelved, probe: str, path: str) -> Run:
    """An open archive seen through ``probe``."""
    record = archive.probes[probe]
    return Run(
        dataset=archive.to_xarray(probe),
        probe=probe,
        probes=tuple(archive.probes),
        path=path,
        fingerprint=record.fingerprint,
        identity=record.identity,
        in_training=record.in_training,
        input_shapes=tuple(tuple(shape) for _, shape in record.input_shapes.values()),
        software=str(archive.attrs.get("source", "")),
        stored_count=record.count,
    )
