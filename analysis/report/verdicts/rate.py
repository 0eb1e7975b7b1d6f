"""What did each change of the learning rate do? An effect only beside a control, and only where both differ."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ...derived import MOVED
from ...lr_decay import ChangeEffects, LrDecayEffects, TrendCurve
from ...statements import UNDECIDED, Finding, Verdict
from ...text import count, number
from ...trajectory import Run
from ..beside_control import differing, differs, factors
from ..findings import changed, moved
from .reason import reason

RATE = "What did the change of the rate do?"
_LABELS = {
    "eigenvalue_1": "λ₁",
    "probe_loss": "loss on the probe",
    "residual_energy": "residual energy in the first modes",
}
_THRESHOLD = (
    f"an effect where λ₁, the loss or the residual energy in the first modes differs from the control's by ×{MOVED:g} or "
    "more, and by more than from any placebo's (the same rate on other batches); without a control nothing is called an effect"
)
_SOURCE = (
    f"the difference to a control; ×{MOVED:g}: convention of this package, for less may be the error of an estimate"
)


def rates(run: Run, effects: LrDecayEffects | AnalysisError) -> list[Verdict]:
    """One answer for each change and each trend; one in all where there are none, or where nothing is known for that error."""
    if isinstance(effects, AnalysisError):
        return [_without_effects(run, effects)]
    found = [_of_change(change, effects.energy_k) for change in effects.changes]
    return found + [_of_trend(course, effects.energy_k) for course in effects.trends]


def _without_effects(run: Run, error: AnalysisError) -> Verdict:
    rates = run.learning_rates[run.measured]
    if len(rates) < 2 or not rates.size or not np.all(rates == rates[0]):
        return Verdict(RATE, UNDECIDED, reason(error), _THRESHOLD, _SOURCE)
    kept = ", ".join(f"{rate:g}" for rate in rates[0])
    return Verdict(RATE, "no change", f"It was {kept} in all {count(len(rates))} snapshots.", _THRESHOLD, _SOURCE)


def _of_change(change: ChangeEffects, energy_k: tuple[int, ...]) -> Verdict:
    finding = changed(change, energy_k)
    if not change.has_control:
        because = f"Learning rate {finding.value}: {change.no_control}."
        return Verdict(RATE, UNDECIDED, because, _THRESHOLD, _SOURCE, findings=(finding,))
    return _beside_control(change, finding, energy_k)


def _of_trend(course: TrendCurve, energy_k: tuple[int, ...]) -> Verdict:
    finding = moved(course, energy_k)
    if not course.has_control:
        return Verdict(RATE, UNDECIDED, f"Learning rate {finding.value}.", _THRESHOLD, _SOURCE, findings=(finding,))
    return _beside_control(course, finding, energy_k)


def _beside_control(change: ChangeEffects | TrendCurve, finding: Finding, energy_k: tuple[int, ...]) -> Verdict:
    found = factors(change, energy_k)
    if not found:
        because = f"Learning rate {finding.value}: run and control hold none of the numbers at one step."
        return Verdict(RATE, UNDECIDED, because, _THRESHOLD, _SOURCE, findings=(finding,))
    listed = ", ".join(f"{_LABELS[name]} ×{number(factor, 2)}" for name, factor in found.items())
    apart = [name for name, factor in found.items() if differs(factor)]
    told = differing(change, energy_k, found)
    answer = "an effect" if told else UNDECIDED if apart else "no effect"
    why = "" if told or not apart else f" {_UNTOLD[change.null.kind]}"
    return Verdict(
        RATE,
        answer,
        f"Learning rate {finding.value}: {listed} of the control's.{why}",
        _THRESHOLD,
        _SOURCE,
        f"×1 of the control's. {change.null.sentence} One control is of one seed: it does not say how far seeds vary.",
        found,
        (finding,),
    )


#: Why what differs from the control is not told as an effect.
_UNTOLD = {
    "missing": "No placebo says whether other batches alone do as much.",
    "placebos": "Other batches alone do as much.",
    "deterministic": "",
}
