"""The controls of a run: archives in its folder that say of themselves that they go on from one of its states."""

from __future__ import annotations

from pathlib import Path

from kerneltrack.errors import AnalysisError, ArchiveError

from .opening import load
from .run import Run
from .trajectory import Trajectory

#: How many files of a folder are asked.
MOST = 256


def controls_beside(run: Run) -> Trajectory:
    """Controls of ``run`` in its folder, by fork and name; those with the run's batches before others of the same fork.

    An archive that cannot be read, or measures something else, is none.
    """
    return _beside(run, "control_of")


def controls_of(runs: Trajectory) -> Trajectory:
    """Controls of any of several runs in their folders, less those among the runs; each folder is looked through once."""
    from kerneltrack.archive import says

    place = {run.archive_id: run for run in runs if run.archive_id and run.path}
    given = {Path(run.path).resolve() for run in runs if run.path}
    found: list[Run] = []
    for folder in dict.fromkeys(Path(run.path).parent for run in place.values()):
        for path in sorted(folder.glob("*.h5"))[: MOST + len(runs)]:
            if path.resolve() not in given and (run := place.get(says(path, "control_of"))) is not None:
                found += filter(None, (_loaded(path, run),))
    return Trajectory(tuple(found))


def placebos_beside(run: Run) -> Trajectory:
    """The same of placebos: the run's own rates on other batches."""
    return _beside(run, "placebo_of")


def _beside(run: Run, attribute: str) -> Trajectory:
    from kerneltrack.archive import says

    if not run.path:
        return Trajectory(())
    found = []
    for path in sorted(Path(run.path).parent.glob("*.h5"))[:MOST]:
        if says(path, attribute) == run.archive_id and (other := _loaded(path, run)) is not None:
            found.append(other)
    return Trajectory(tuple(sorted(found, key=lambda r: (r.fork_step or 0, r.batches != "same_batches", r.name))))


def _loaded(path: Path, run: Run) -> Run | None:
    try:
        found = load(path, probe=run.probe).only
        Trajectory((run, found)).comparable()
    except (AnalysisError, ArchiveError):
        return None
    return found
