"""What did each change of the learning rate do? An effect only beside a control, and only where both differ."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ...derived import MOVED, nearest
from ...lr_decay import ChangeEffects, LrDecayEffects
from ...statements import UNDECIDED, Verdict
from ...text import count, number
from ...trajectory import Run
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
    "more; without a control nothing is called an effect"
)
_SOURCE = (
    f"the difference to a control; ×{MOVED:g}: convention of this package, for less may be the error of an estimate"
)


def rates(run: Run, effects: LrDecayEffects | AnalysisError) -> list[Verdict]:
    """One answer for each change and each trend; one in all where there are none, or where nothing is known for that error."""
    if isinstance(effects, AnalysisError):
        return [_without_effects(run, effects)]
    found = [_of_change(change, effects.energy_k) for change in effects.changes]
    trends = [moved(course, effects.energy_k) for course in effects.trends]
    return found + [
        Verdict(RATE, UNDECIDED, f"Learning rate {trend.value}.", _THRESHOLD, _SOURCE, findings=(trend,))
        for trend in trends
    ]


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
    factors = _factors(change, energy_k)
    if not factors:
        because = f"Learning rate {finding.value}: run and control hold none of the numbers at one step."
        return Verdict(RATE, UNDECIDED, because, _THRESHOLD, _SOURCE, findings=(finding,))
    listed = ", ".join(f"{_LABELS[name]} ×{number(factor, 2)}" for name, factor in factors.items())
    answer = "an effect" if any(_differs(factor) for factor in factors.values()) else "no effect"
    return Verdict(
        RATE,
        answer,
        f"Learning rate {finding.value}: {listed} of the control's.",
        _THRESHOLD,
        _SOURCE,
        "×1 of the control's. One control is of one seed and one order of batches: it does not say how far they vary.",
        factors,
        (finding,),
    )


def _factors(change: ChangeEffects, energy_k: tuple[int, ...]) -> dict[str, float]:
    """Run over control: of the residual's energy one step after the change, of λ_1 and the loss at the last common moment."""
    wanted = [("eigenvalue_1", "eigenvalue_1", -1), ("probe_loss", "probe_loss", -1)]
    k = nearest(energy_k, 20)
    wanted += [("residual_energy", f"residual_energy_{k}", 0)] if k is not None else []
    found = {}
    for name, stored, which in wanted:
        both = [
            (m.numbers[stored], m.control[stored]) for m in change.after if stored in m.numbers and stored in m.control
        ]
        both = [(mine, theirs) for mine, theirs in both if np.isfinite(mine + theirs) and theirs > 0]
        if both:
            found[name] = both[which][0] / both[which][1]
    return found


def _differs(factor: float) -> bool:
    # a factor of 1.1 in the decimal numbers of a file is 1.1 less a rounding after the division
    return max(factor, 1 / factor if factor > 0 else np.inf) >= MOVED * (1 - 1e-12)
