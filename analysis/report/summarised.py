"""summary_of(): the answers to what people ask of a run, then every other finding of the report."""

from __future__ import annotations

from kerneltrack.errors import AnalysisError

from ..lr_decay import LrDecayEffects, lr_decay_effects
from ..statements import Summary
from ..trajectory import Run, Trajectory, controls_beside, placebos_beside
from ..withheld import gauge_note, misleading, mode_note, sample_note
from .findings import findings, headline
from .verdicts import aligned, edge, lazy_or_rich, rates


def summary_of(run: Run, control: Run | None = None) -> Summary:
    """What the report finds, the answers first.

    Args:
        run: the run.
        control: the run that did not change the learning rate: only with it anything is called an effect.

    Raises:
        AnalysisError: nothing was measured, or the control is not comparable.
    """
    if not run.measured.any():
        raise AnalysisError("no snapshot of this probe holds a measurement", where=run.path or None)
    controls = controls_beside(run) if control is None else Trajectory((control,))
    notes = Trajectory((run, controls[0])).comparable() if controls else ()
    effects = _effects(run, controls)
    verdicts = (lazy_or_rich(run), edge(run), aligned(run), *rates(run, effects))
    told_of = None if isinstance(effects, AnalysisError) else effects
    told = [finding for verdict in verdicts for finding in verdict.findings]
    withheld = [f"{name} is {words}." for name, words in misleading(run)]
    return Summary(
        run=run.name,
        probe=run.probe,
        headline=headline(run),
        verdicts=verdicts,
        findings=tuple(finding for finding in findings(run, told_of) if finding not in told),
        notes=(*notes, *withheld, *filter(None, (gauge_note(run), mode_note(run), sample_note(run)))),
    )


def _effects(run: Run, controls: Trajectory) -> LrDecayEffects | AnalysisError:
    try:
        return lr_decay_effects(run, controls, placebos_beside(run))
    except AnalysisError as error:
        return error
