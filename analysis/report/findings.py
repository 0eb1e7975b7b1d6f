"""Findings: what the numbers of one run say, in words, each with its numbers, its null and the figure that shows it.

Only statements backed by a stored number; a threshold that turns a number into a word is named in the sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kerneltrack.conventions import no_plain_descent
from kerneltrack.errors import AnalysisError

from ..derived import MOVED, STANDS_OUT, FreezeHere, freeze_here, nearest, representative_rows
from ..lr_decay import NO_CONTROL, ChangeEffects, LrDecayEffects, TrendCurve, sentence, trend_sentence
from ..statements import Finding, Held
from ..statements import percent as _percent
from ..text import count, duration, number
from ..trajectory import Floats, Run
from ..withheld import seen
from . import dials, motion
from .beside_control import differing, factors
from .calibrated import calibrated
from .course import course
from .estimated import estimated
from .features import known_functions
from .forgetting import forgetting
from .learning import learning
from .limits import RICH
from .metrics import weighted
from .stability import stability


def findings(run: Run, effects: LrDecayEffects | None = None) -> list[Finding]:
    """Everything that can be said about a run, in the order of the report."""
    found = [finding for make in MAKERS if (finding := make(run)) is not None]
    if effects is not None:
        found += [changed(change, effects.energy_k) for change in effects.changes]
        found += [moved(trend, effects.energy_k) for trend in effects.trends]
    return found


def changed(change: ChangeEffects, energy_k: tuple[int, ...]) -> Finding:
    """What one change of the learning rate was followed by."""
    null = "" if change.has_control else "No control: what followed is not called an effect."
    if change.no_control not in ("", NO_CONTROL):
        null = f"What followed is not called an effect: {change.no_control}."
    rates = f"{change.change.old[0]:g} → {change.change.new[0]:g}"
    return Finding(
        "Learning-rate change", rates, sentence(change, energy_k), null, "lr-decay", _beside(change, energy_k)
    )


def moved(trend: TrendCurve, energy_k: tuple[int, ...]) -> Finding:
    """What went on while the learning rate moved continuously."""
    rates = f"{trend.rates[0]:g} → {trend.rates[1]:g}"
    return Finding(
        "Learning-rate trend", rates, trend_sentence(trend, energy_k), "", "lr-trend", _beside(trend, energy_k)
    )


def _beside(change: ChangeEffects | TrendCurve, energy_k: tuple[int, ...]) -> Held | None:
    """How far it is from the control, of what other batches alone do not do; None without a control."""
    found = factors(change, energy_k)
    told = differing(change, energy_k, found)
    apart = [max(found[name], 1 / found[name]) if found[name] > 0 else math.inf for name in told]
    return Held("chance", max(apart, default=1.0), MOVED) if found else None


def alignment(run: Run) -> Finding | None:
    """How much of the target lies in the first modes."""
    if not run.has("target_energy", "energy_k"):
        return None
    energies, rows = run.values("target_energy"), _finite_rows(run, run.values("target_energy")[:, 0])
    column, k = _column(run, 20)
    if len(rows) < 1:
        return None
    first, last = energies[rows[0], column], energies[rows[-1], column]
    null = [f"{number(first, 2)} at step {count(run.steps[rows[0]])}"]
    chance = k / run.dimension
    if run.has("target_energy_null"):
        permuted = float(run.values("target_energy_null")[rows[-1], column])
        null.append(f"{number(permuted, 2)} with permuted labels")
        chance = max(chance, permuted) if permuted > 0 else chance
    null.append(f"{number(k / run.dimension, 2)} for a random direction")
    return Finding(
        "Target alignment",
        f"E(y, {k}) = {number(last, 2)}",
        f"At step {count(run.steps[rows[-1]])} the first {k} of {count(run.dimension)} eigenfunctions hold "
        f"{_percent(last)} of the target's energy; "
        f"at step {count(run.steps[rows[0]])} they held {_percent(first)}.{_in_sample(run)}",
        "Nulls: " + ", ".join(null) + ".",
        "target-energy",
        Held("chance", float(last), chance),
        course(run, energies[:, column]),
    )


def _in_sample(run: Run) -> str:
    """An alignment with labels that the kernel has learned is no prediction."""
    return {"yes": " In-sample: these points are trained on.", "no": " These points are held out."}.get(seen(run), "")


def _containment(run: Run) -> Finding | None:
    if not run.has("output_energy", "energy_k"):
        return None
    energies = run.values("output_energy")
    column, k = _column(run, 200 if run.dimension > 400 else max(run.dimension // 4, 1))
    rows = _finite_rows(run, energies[:, column])
    if not len(rows):
        return None
    lowest = rows[int(np.argmin(energies[rows, column]))]
    bound = math.floor(1000 * float(energies[lowest, column])) / 1000  # rounded up it would be none
    return Finding(
        "Output containment",
        f"E(f, {k}) ≥ {number(bound, 3)}",
        f"In every one of {count(len(rows))} snapshots at least {_percent(energies[lowest, column])} of the output's "
        f"energy lies in the first {k} eigenfunctions (least at step {count(run.steps[lowest])}).",
        f"Null: {number(k / run.dimension, 2)} for a random direction.",
        "output-energy",
        Held("chance", float(energies[lowest, column]), k / run.dimension),
        course(run, energies[:, column]),
    )


def _classes(run: Run) -> Finding | None:
    """What labels explain of the kernel; never without what permuted labels explain."""
    if not run.has("class_pair_r2", "class_pair_r2_null", "class_pair_r2_score"):
        return None
    explained, null, score = (run.values(f"class_pair_r2{end}") for end in ("", "_null", "_score"))
    rows = _finite_rows(run, explained + null + score)
    if not len(rows):
        return None
    first, last = rows[0], rows[-1]
    return Finding(
        "Class structure",
        f"R² = {number(float(explained[last]), 2)}",
        f"At step {count(run.steps[last])} the labels explain {_percent(explained[last])} of the kernel's variation between "
        f"points; at step {count(run.steps[first])} they explained {_percent(explained[first])}.",
        f"Permuted labels explain {number(float(null[last]), 2)}: the labels stand {number(float(score[last]), 2)} of their "
        "standard deviations above that.",
        "",
        Held("chance", float(score[last]), STANDS_OUT),
        course(run, explained),
    )


def kernel_motion(run: Run) -> Finding | None:
    """How far the kernel turned since the start."""
    if not run.has("kernel_distance_from_initial"):
        return None
    distance = run.values("kernel_distance_from_initial")
    rows = _finite_rows(run, distance)
    last = rows[-1]
    return Finding(
        "Kernel motion",
        number(float(distance[last]), 2),
        f"By step {count(run.steps[last])} the kernel had turned by {number(float(distance[last]), 2)} (1 − cosine) "
        "from where it was at the start.",
        "0 for a kernel that only changes its scale.",
        "kernel-motion",
        Held("theory", float(distance[last]), RICH / 2),
        course(run, distance),
    )


def laziness(run: Run) -> Finding | None:
    """How much of the outputs' way the network linearised at the start explains."""
    if not run.has("anchored_linearization_error"):
        return None
    error = run.values("anchored_linearization_error")
    last = _finite_rows(run, error)[-1]
    return Finding(
        "Laziness",
        number(float(error[last]), 2),
        f"At step {count(run.steps[last])} the network linearised at initialisation misses {_percent(error[last])} "
        "(squared) of the way its outputs travelled.",
        "0 for a lazy run, one that its initial kernel explains.",
        "linearisation",
        Held("theory", float(error[last]), RICH),
        course(run, error),
    )


def _first_order(run: Run) -> Finding | None:
    flow = ("kernel_flow_error", "The kernel predicts one update's change of the outputs")
    linear = ("linearization_error", "The linearised network follows one real update")
    # What momentum or Adam makes of the gradients is no fault of the kernel's.
    order = (linear, flow) if no_plain_descent(run.optimizers) else (flow, linear)
    return next((_accuracy(run, run.values(name), subject) for name, subject in order if run.has(name)), None)


def _accuracy(run: Run, error: Floats, subject: str) -> Finding:
    rows = _finite_rows(run, error)
    middle, worst = float(np.median(error[rows])), rows[int(np.argmax(error[rows]))]
    return Finding(
        "First-order accuracy",
        number(middle, 2),
        f"{subject} with a median squared relative error of {number(middle, 2)} over {count(len(rows))} snapshots; "
        f"the worst is {number(float(error[worst]), 2)} at step {count(run.steps[worst])}.",
        "1 for predicting no change.",
        "linearisation",
        Held("theory", middle, RICH),
        course(run, error),
    )


def _frozen(run: Run) -> Finding | None:
    try:
        curve = freeze_here(run)
    except AnalysisError:
        return None  # nothing on one scale is stored
    null = f"The network's last {curve.scale}: {number(curve.final, 2)}.{_frozen_accuracy(run, curve)}"
    # the theory of a kernel that stands still: that of the first snapshot is good enough
    held, path = Held("theory", float(curve.frozen[0]), curve.final), course(run, curve.frozen, curve.steps)
    if curve.good_enough is None:
        best = int(np.argmin(curve.frozen))
        return Finding(
            "Frozen kernel",
            "never good enough",
            f"Frozen at any of {count(len(curve.steps))} snapshots and trained to the end there, the linearised network stays "
            f"above the network's last {curve.scale} of {number(curve.final, 2)}: at best "
            f"{number(float(curve.frozen[best]), 2)}, at step {count(curve.steps[best])}.",
            null,
            "freeze-here",
            held,
            path,
        )
    return Finding(
        "Frozen kernel",
        f"from step {count(curve.good_enough)}",
        f"Frozen at step {count(curve.good_enough)} or later and trained to the end there, the linearised network reaches the "
        f"network's last {curve.scale} ({number(curve.error_there, 2)} against {number(curve.final, 2)}).",
        f"At step {count(curve.steps[0])} it is {number(float(curve.frozen[0]), 2)}.{_frozen_accuracy(run, curve)}",
        "freeze-here",
        held,
        path,
    )


def _frozen_accuracy(run: Run, curve: FreezeHere) -> str:
    """Both accuracies at the last snapshot of the curve, where they are stored."""
    names = ("kernel_logistic_accuracy", "network_accuracy")
    row = run.row(int(curve.steps[-1]))
    if curve.names[0] != "kernel_logistic_loss" or not run.has(*names) or row is None:
        return ""
    frozen, own = (_percent(run.values(name)[row]) for name in names)
    return f" At step {count(curve.steps[-1])} the linearised network is right on {frozen} of the points, the network on {own}."


def _rounding(run: Run) -> Finding | None:
    """The numerical field of the uncertainty: what rounding and the solver can have changed."""
    if not run.has("eigenvalues", "noise_floor", "eigen_residual"):
        return None
    floor, residual = run.values("noise_floor"), run.values("eigen_residual")
    values = run.values("eigenvalues")
    rows = _finite_rows(run, floor + residual)
    above = int(np.min(np.sum(values[rows] > floor[rows, None], axis=1)))
    worst = float(np.max(residual[rows] / values[rows, 0]))
    return Finding(
        "Rounding",
        f"{count(above)} of {count(values.shape[1])} modes",
        f"In every snapshot at least {count(above)} of {count(values.shape[1])} eigenvalues stand above the noise floor, which is "
        f"conservative; the solver's largest error is {number(worst, 2)} of λ₁.",
        "Numerical uncertainty only; the choice of the probe and the seed are others.",
        "spectra",
    )


def _cost(run: Run) -> Finding | None:
    spent = run.dataset["snapshot_seconds"].values if "snapshot_seconds" in run.dataset else np.array([np.nan])
    known = spent[np.isfinite(spent)]
    if not known.size:
        return None
    trained = run.dataset["train_seconds"].values if "train_seconds" in run.dataset else np.array([np.nan])
    trained = trained[np.isfinite(trained)]
    beside = f", beside {duration(float(trained.max()))} of training" if trained.size else ""
    return Finding(
        "Cost",
        duration(float(known.sum())),
        f"{count(len(known))} measurements took {duration(float(known.sum()))} in all, "
        f"{duration(float(np.median(known)))} each (median){beside}.",
    )


def _column(run: Run, wanted: int) -> tuple[int, int]:
    grid = tuple(int(k) for k in run.values("energy_k"))
    k = nearest(grid, wanted)
    assert k is not None  # has("energy_k") was asked before
    return grid.index(k), k


def _finite_rows(run: Run, values: Floats) -> np.ndarray:
    return np.flatnonzero(run.measured & np.isfinite(values))


def headline(run: Run) -> str:
    """One sentence: what was tracked."""
    rows = representative_rows(run, 2)
    if not rows:
        return f"{count(len(run))} snapshots, none of which holds a measurement of this probe."
    parameters = run.settings.get("parameter_count")  # a kernel that came as arrays does not tell it
    network = "a network" if parameters is None else f"a network with {count(int(parameters))} trainable parameters"
    return (
        f"The tangent kernel of {network}, measured on {count(run.count)} fixed points at "
        f"{count(int(run.measured.sum()))} moments between steps {count(run.steps[rows[0]])} and {count(run.steps[rows[-1]])}."
    )


#: What makes the statements, in the order of the report.
MAKERS: tuple[Callable[[Run], Finding | None], ...] = (
    alignment,
    known_functions,
    _containment,
    _classes,
    stability,
    dials.sharpness,
    weighted,
    kernel_motion,
    motion.turning,
    motion.period,
    motion.oscillating,
    laziness,
    dials.weights,
    dials.silent_alignment,
    _first_order,
    _frozen,
    _rounding,
    estimated,
    calibrated,
    learning,
    forgetting,
    _cost,
)
