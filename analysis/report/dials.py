"""What the dials say of a run, in words: sharpness three ways, the change of weights, and which came first."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import alignment_order
from ..statements import Finding, Held, percent
from ..text import count, number, plain
from ..trajectory import Floats, Ints, Run
from ..withheld import seen
from .course import course
from .limits import AT_THE_EDGE, RICH

#: A third of the snapshots is what is called the end of a run.
_LATE = 3
_OF_THE_BOUND = {
    "hessian_stability_ratio": "the Hessian's λ₁",
    "batch_stability_ratio": "batches along their gradients",
}
#: q of the update's own batch before that of the probe: a step is made to fit its batch.
_CRITERIA = {"one_step_criterion_batch": "its own batch's loss", "one_step_criterion": "the probe's loss"}


def sharpness(run: Run) -> Finding | None:
    """Where Hessian and batches stood against the bound, and how often the real update overshot; None without any of these."""
    told, value, held, path = [], "", None, ""
    for name, subject in _OF_THE_BOUND.items():
        rows = _late(run, name)
        if rows.size:
            level = number(float(np.median(run.values(name)[rows])), 2)
            told.append(f"{subject} at {level}")
            if not value:
                value, path = f"{subject}: {level}", name
                held = Held("theory", float(np.median(run.values(name)[rows])), AT_THE_EDGE)
    sentences = (
        [f"Over the last third of the snapshots, of the bound of stability: {' and '.join(told)} (medians)."]
        if told
        else []
    )
    if (share := _late(run, "gauss_newton_share")).size:
        part = percent(float(np.median(run.values("gauss_newton_share")[share])))
        sentences.append(f"The Gauss–Newton matrix has {part} of the Hessian's λ₁.")
    name, of = next(((n, of) for n, of in _CRITERIA.items() if _late(run, n).size), ("", ""))
    if name:
        values = run.values(name)[_late(run, name)]
        if not value:
            value, path = f"q = {number(float(np.median(values)), 2)}", name
            held = Held("theory", float(np.median(values)), 2.0)
        sentences.append(_overshooting(values, of, momentum=_has_momentum(run)))
    if not sentences:
        return None
    null = "At 1 a step along the steepest direction no longer lowers the quadratic model of the loss." if told else ""
    line = course(run, run.values(path)) if path else ()
    return Finding("Sharpness", value or "told below", " ".join(sentences), null, "sharpness", held, line)


def _overshooting(q: Floats, of: str, *, momentum: bool) -> str:
    over = int(np.sum(q >= 2))
    words = (
        f"The real update had q = {number(float(np.median(q)), 2)} (median), and q ≥ 2, a step after which the quadratic model "
        f"of {of} is higher than before, in {count(over)} of {count(len(q))} snapshots."
    )
    return f"{words} With momentum this judges single steps." if momentum else words


def _late(run: Run, name: str) -> Ints:
    """The last third of the rows that hold a number; none where it is not stored."""
    if not run.has(name):
        return np.zeros(0, dtype=np.int64)
    rows = np.flatnonzero(run.measured & np.isfinite(run.values(name)))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    return np.asarray(rows[-max(len(rows) // _LATE, 1) :])


def _has_momentum(run: Run) -> bool:
    """Whether an optimizer is told that has one; of one that is not told nothing is known."""
    told = run.optimizers
    groups = [g for o in told if isinstance(o, dict) for g in o.get("groups", ())] if isinstance(told, list) else []
    return any(isinstance(g, dict) and (g.get("momentum") or g.get("betas")) for g in groups)


def weights(run: Run) -> Finding | None:
    """Which layer's weights changed most and least of their own size, in the spectral norm; None where it is not stored."""
    if not run.has("weight_spectral_change"):
        return None
    values = run.values("weight_spectral_change")
    rows = np.flatnonzero(run.measured & np.isfinite(values).any(axis=1))
    row = int(rows[np.argmax(run.steps[rows])])
    known = np.flatnonzero(np.isfinite(values[row]))
    most, least = (int(known[pick(values[row, known])]) for pick in (np.argmax, np.argmin))
    names = run.settings.get("layers")
    called = names if isinstance(names, list) and len(names) == values.shape[1] else range(1, values.shape[1] + 1)
    change = number(float(values[row, most]), 2)
    other = (
        ""
        if most == least
        else f", those of {plain(called[least])} the least, by {number(float(values[row, least]), 2)}"
    )
    return Finding(
        "Weights",
        f"‖ΔW‖₂ ≤ {change} ‖W₀‖₂",
        f"By step {count(run.steps[row])} the weights of layer {plain(called[most])} had changed by {change} of their spectral "
        f"norm at the start, the most of all{other}.",
        "0 for weights that stand still; of a lazy run it falls with width.",
        "lazy-rich",
        Held("theory", float(values[row, most]), RICH**0.5),
        course(run, values[:, most]),
    )


def silent_alignment(run: Run) -> Finding | None:
    """Whether alignment came before the loss fell; None where snapshots do not tell, or alignment stood from the start."""
    try:
        found = alignment_order(run)
    except AnalysisError:
        return None  # there is no order to speak of
    if found.order == "with":
        return None  # both happened between two snapshots
    word = "silent alignment" if found.order == "before" else "the loss fell first"
    return Finding(
        "Silent alignment",
        f"{found.order} the loss fell",
        f"The alignment with the target had nine tenths of its last value at step {count(found.aligned)}, and the loss had "
        f"fallen by a tenth at step {count(found.fallen)}: {word}.{_in_sample(run)}",
        "Both are known to the spacing of the snapshots.",
        "lazy-rich",
        None,
        course(run, run.values("kernel_target_alignment")),
    )


def _in_sample(run: Run) -> str:
    return " In-sample: these points are trained on." if seen(run) == "yes" else ""
