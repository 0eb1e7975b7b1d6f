"""Learning-rate changes of several runs: each with its own control, and over seeds where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerneltrack.errors import AnalysisError

from ..text import Table
from ..trajectory import PathLike, Run, Trajectory, controls_beside, load, placebos_beside
from .effects import LrDecayEffects, lr_decay_effects
from .seeds import SeedEffects, effects_over_seeds, matched_control, seed_sentence, seed_table
from .wording import sentence, tables, trend_sentence

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class RunsEffects:
    """Every run with its control, and what they say together.

    Attributes:
        runs: (run, control or None, effects), in order.
        seeds: paired differences over seeds; empty below two runs with controls.
    """

    runs: tuple[tuple[Run, Run | None, LrDecayEffects], ...]
    seeds: tuple[SeedEffects, ...]


def analyse(trajectory: Trajectory, controls: Sequence[PathLike]) -> RunsEffects:
    """Each run against its control: the one given, or of several the one that was in the same state at a change.

    Without any each has those that lie beside it and say that they are its controls.

    Raises:
        AnalysisError: no change, a control that is not comparable, or a run of several that has no control among them.
    """
    if not controls:
        return _with_their_own(trajectory)
    beside = load(controls, probe=trajectory[0].probe)
    found = []
    for run in trajectory:
        control = beside[0] if len(beside) == 1 else matched_control(run, list(beside))
        if control is None:
            raise AnalysisError(f"{run.name} has no control among those given", got=", ".join(c.name for c in beside))
        found.append((run, control, lr_decay_effects(run, control, placebos_beside(run))))
    several = len(trajectory) > 1 and len(beside) > 1
    return RunsEffects(tuple(found), effects_over_seeds(trajectory, beside) if several else ())


def _with_their_own(trajectory: Trajectory) -> RunsEffects:
    """Each run against the controls that lie beside it and say so; over seeds where every run has one that may be called that."""
    own = [controls_beside(run) for run in trajectory]
    found = tuple(
        (run, controls[0] if controls else None, lr_decay_effects(run, controls, placebos_beside(run)))
        for run, controls in zip(trajectory, own, strict=True)
    )
    paired = all(any(change.has_control for change in effects.changes) for _, _, effects in found)
    if len(trajectory) < 2 or not paired:
        return RunsEffects(found, ())
    return RunsEffects(found, effects_over_seeds(trajectory, Trajectory(tuple(c for each in own for c in each))))


def as_dict(found: RunsEffects) -> Any:
    """Plain JSON values: one run's effects, a list of them, or runs and seeds."""
    each = [effects.to_dict() for _, _, effects in found.runs]
    if found.seeds:
        return {"runs": each, "seeds": [effects.to_dict() for effects in found.seeds]}
    return each if len(each) > 1 else each[0]


def lines_and_tables(found: RunsEffects) -> tuple[list[str], list[Table]]:
    """Sentences and tables, in order; over seeds first."""
    energy_k = found.runs[0][2].energy_k
    lines = [seed_sentence(effects, energy_k) for effects in found.seeds]
    shown = [seed_table(effects, energy_k) for effects in found.seeds]
    for run, _, effects in found.runs:
        head = f"{run.name}: " if len(found.runs) > 1 else ""
        lines += [head + sentence(change, effects.energy_k) for change in effects.changes]
        lines += [head + trend_sentence(course, effects.energy_k) for course in effects.trends]
        shown += tables(effects)
    return lines, shown
