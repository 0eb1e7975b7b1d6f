"""A continuation: a run that goes on from a fork, as a control or as a placebo; what both kinds of loops need for one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kerneltrack.archive import IfExists, open_archive
from kerneltrack.errors import ArchiveError, ForkError
from kerneltrack.schedule import At, Schedule
from kerneltrack.snapshot import Batches, ControlOf
from kerneltrack.tracking import arguments
from kerneltrack.tracking.batch_trail import BatchTrail
from kerneltrack.tracking.fork import Fork
from kerneltrack.tracking.held_rates import Settings
from kerneltrack.tracking.options import Options
from kerneltrack.undisturbed import held_generators


class Comparison:
    """Compares the batches of a continuation with those of its run, update by update.

    Attributes:
        differs_at: the first update whose batches were others, or None.
    """

    def __init__(self, fork: Fork) -> None:
        self._fork, self._own = fork, BatchTrail()
        self._told = False  # whether the first update is known to be the same
        self.differs_at: int | None = None

    def note(self, step: int, batch: Any) -> None:
        """A batch of the update that leaves ``step``."""
        self._own.note(step, batch)

    def wants_loss(self, step: int) -> bool:
        """Whether the run told the loss of this update, at the same weights."""
        return step == self._fork.step and step in self._fork.trail.losses

    def ended(self, step: int, loss: float | None) -> None:
        """The update has ended."""
        if loss is not None:
            self._own.losses[step] = loss
        if self.differs_at is None and self._own.differs(self._fork.trail, step):
            self.differs_at = step
        if step == self._fork.step:
            self._told = self._own.tells(self._fork.trail, step)

    @property
    def batches(self) -> Batches:
        """What is known so far."""
        return "same_batches" if self._told and self.differs_at is None else "other_batches"

    def sentence(self, *, placebo: int = 0) -> str:
        """The same in words, for a line; "" where there is nothing to say."""
        if placebo or self.batches == "same_batches":
            return ""
        why = "nothing tells its batches from the run's: give update(batch), or update.loss, in the run"
        if self.differs_at is not None:
            why = f"its batches are others than the run's from step {self.differs_at} on"
        return f"other_batches: {why}; what differs between the two is not the rate's doing alone"


def draw_of(placebo: bool | int) -> int:
    """Which draw of other batches is meant, from 1; 0 for a control.

    Raises:
        TrackerError: neither a bool nor a number from 0.
    """
    if isinstance(placebo, bool):
        return int(placebo)
    return arguments.number("placebo", placebo, least=0, remedy="True, or 2, 3, … for other draws.")


def place_of(fork: Fork, archive: str | Path | None, *, placebo: int) -> Path:
    """Where the continuation is written: as given, or beside the run's archive.

    Raises:
        TrackerError: what is given is no path of an archive.
    """
    run = fork.origin.options.archive
    kind = "control" if not placebo else f"placebo{placebo if placebo > 1 else ''}"
    return arguments.archive(run.with_name(f"{run.stem}-{kind}-{fork.step}.h5") if archive is None else archive)


def steps_of(fork: Fork, steps: int | None) -> int:
    """How many updates the continuation makes: as given, or as many as the run made after the fork.

    Raises:
        TrackerError: no number from 1, or none is given and the run made no update after the fork.
        ForkError: the run's archive is not there.
    """
    made = steps if steps is not None else max(_run_of(fork)[1], default=fork.step) - fork.step
    return arguments.number("steps", made, least=1, remedy="As many as the run made after the fork.")


def control_of(fork: Fork, *, placebo: int) -> ControlOf:
    """What the continuation's archive says of the run.

    Raises:
        ForkError: the run's archive is not there.
    """
    return ControlOf(archive_id=_run_of(fork)[0], fork_step=fork.step, placebo=placebo > 0)


def options_of(fork: Fork, path: Path, *, steps: int, if_exists: IfExists) -> Options:
    """The run's options, but for the archive, and for the steps at which it is measured: those that the run has."""
    _, found, windows = _run_of(fork)
    options = fork.origin.options
    schedule = _schedule(found, windows, fork.step, fork.step + steps, light=_is_light(options.measured.schedule))
    measured = replace(options.measured, schedule=schedule)
    return replace(options, archive=path, measured=measured, if_exists=if_exists, max_overhead=None)


def tracker_state(fork: Fork) -> dict[str, Any]:
    """The run's tracker at the fork, for another archive: θ_0, the rows before, and how far it had come."""
    return {name: value for name, value in fork.tracker.items() if name not in ("run_id", "forks")}


def reseed(fork: Fork, loader: Any, placebo: int) -> None:
    """Other draws than the run's for a placebo, and the same whenever it is asked for again."""
    seed = (1_000_003 * (fork.step + 1) + placebo) % 2**32
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    for generator in held_generators(loader):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)


def settings_at(fork: Fork, step: int, *, placebo: int) -> Settings:
    """What the update that leaves ``step`` uses: the settings before the fork, or of a placebo those of the run then."""
    if not placebo:
        return fork.settings
    known = [settings for at, settings in fork.course if at <= step]
    return known[-1] if known else fork.course[0][1] if fork.course else fork.settings


def _run_of(fork: Fork) -> tuple[str, list[int], list[int]]:
    path = fork.origin.options.archive
    try:
        with open_archive(path) as archive:
            windows = archive.column("window").tolist()
            return str(archive.attrs["archive_id"]), archive.steps.tolist(), windows
    except ArchiveError as error:
        raise ForkError(
            "the archive of the run that the fork is of cannot be read",
            expected=f"the archive {path}, to measure at the same steps and to say which run this is a control of",
            got=str(error),
            remedy="Run the control once the run has ended, where its archive is.",
        ) from error


def _schedule(steps: list[int], windows: list[int], first: int, last: int, *, light: bool) -> Schedule:
    """The states of the run from ``first`` to ``last``, its groups again as groups; and the first in any case."""
    sizes: dict[int, int] = {first: 1}
    begun = first
    for step, window in sorted(zip(steps, windows, strict=True)):
        if not first <= step <= last:
            continue
        begun = step if window == 0 else begun
        sizes[begun] = max(sizes.get(begun, 1), window + 1)
    found = [
        At(tuple(step for step, size in sizes.items() if size == wanted), window=wanted, light=light)
        for wanted in sorted(set(sizes.values()))
    ]
    return found[0] if len(found) == 1 else _union(found)


def _union(schedules: Iterable[Schedule]) -> Schedule:
    first, *others = schedules
    for other in others:
        first = first | other
    return first


def _is_light(schedule: Schedule | dict[str, Schedule]) -> bool:
    given = list(schedule.values()) if isinstance(schedule, dict) else [schedule]
    return bool(np.all([element.light for each in given for element in each.elements]))
