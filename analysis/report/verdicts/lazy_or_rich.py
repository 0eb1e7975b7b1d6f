"""Lazy or rich? A network is lazy while its kernel at the start explains it, and rich where the kernel turned.

One threshold for all numbers, since all of them are squares of relative changes, or their roots: below 1 % lazy, from 10 % on
rich. 1 − cosine of a small angle θ is θ²/2, half of the square: 0.005 and 0.05. A relative change of the kernel is the
root: below 0.1. They are this package's convention; the literature orders runs by these numbers and names no limit of theirs.

The one published limit is ½, of the Jacobian-stability constant C' (Zhang, Martens and Grosse 2019). Wide networks pass it
while their kernel moves by a thousandth, for the Jacobian moves more than its Gram matrix: so C' ≥ ½ is no sign of
features, and C' decides only where nothing else is stored.
"""

from __future__ import annotations

import numpy as np

from ...statements import UNDECIDED, Finding, Verdict, percent
from ...text import count, number
from ...trajectory import Run
from ..findings import kernel_motion, laziness
from ..limits import LAZY, RICH

LAZY_OR_RICH = "Lazy or rich?"
#: Name → (words, below this lazy, from this on rich); the relative change holds the kernel's scale, which is no feature.
LIMITS = {
    "anchored_linearization_error": ("linearisation error since the start", LAZY, RICH),
    "kernel_distance_from_initial": ("kernel distance (1 − cosine)", LAZY / 2, RICH / 2),
    "relative_kernel_change": ("relative change of the kernel", LAZY**0.5, float("nan")),
}
CONDITION, REFUTED = "jacobian_stability", 0.5
#: The loss must have fallen by this share: before, every network is lazy. Of "silent alignment", where learning begins.
LEARNED = 0.1
_THRESHOLD = (
    "lazy where the linearisation error is below 0.01, 1 − cosine below 0.005 and the kernel's relative change below 0.1, once the "
    "loss has fallen by a tenth; rich where the linearisation error is at least 0.1 and 1 − cosine at least 0.05"
)
_SOURCE = (
    "the numbers: Lee et al. 2019, Fort et al. 2020, Chizat, Oyallon and Bach 2019; their limits: convention of this package, a "
    "squared relative change of 1 % and of 10 %; the fall of the loss: Atanasov, Bordelon and Pehlevan 2021"
)


def lazy_or_rich(run: Run) -> Verdict:
    """Whether the kernel at the start explains the run."""
    row, numbers = _last(run)
    answer, because = _answer(run, row, numbers)
    c = numbers.get(CONDITION, float("nan"))
    limit, source = _THRESHOLD, _SOURCE
    if set(numbers) == {CONDITION}:
        limit = "lazy where C' is below ½; more refutes a condition that is sufficient for lazy training, and shows no features"
        source = "Zhang, Martens and Grosse 2019 (arXiv 1905.10961)"
    elif np.isfinite(c):
        because += f" C' = {number(c, 2)}, where ½ or more refutes a condition sufficient for lazy training."
    found = (laziness(run), kernel_motion(run)) if row is not None else ()
    findings: tuple[Finding, ...] = tuple(finding for finding in found if finding is not None)
    null = "" if findings else "0 for a network that is linear in its parameters."
    return Verdict(LAZY_OR_RICH, answer, because, limit, source, null, numbers, findings)


def _last(run: Run) -> tuple[int | None, dict[str, float]]:
    """The last row after the start that holds every stored number of :data:`LIMITS`, and they; None and nothing without one."""
    names = [name for name in LIMITS if run.has(name)] or [name for name in (CONDITION,) if run.has(name)]
    if not names or not run.measured.any():
        return None, {}
    known = run.measured & np.all([~np.isnan(run.values(name)) for name in names], axis=0)
    rows = np.flatnonzero(known & (run.steps > run.steps[run.measured].min()))
    if not rows.size:
        return None, {}
    row = int(rows[np.argmax(run.steps[rows])])
    # C' of a lazy run may be rounding, which takes nothing from the others
    told = [*names, *(name for name in (CONDITION,) if name not in names and run.has(name))]
    return row, {name: float(run.values(name)[row]) for name in told}


def _answer(run: Run, row: int | None, numbers: dict[str, float]) -> tuple[str, str]:
    if row is None:
        return UNDECIDED, (
            "No snapshot after the start holds how far outputs or kernel moved: measure anchored_linearization_error and "
            "kernel_distance_from_initial, which are in the default set."
        )
    told = {name: value for name, value in numbers.items() if name in LIMITS}
    if not told:
        c = numbers[CONDITION]
        return ("lazy" if c < REFUTED else UNDECIDED), f"C' = {number(c, 2)} at step {count(run.steps[row])}."
    listed = ", ".join(f"{LIMITS[name][0]} {number(value, 2)}" for name, value in told.items())
    because = f"At step {count(run.steps[row])}: {listed}."
    rich = [name for name in told if np.isfinite(LIMITS[name][2])]
    if all(value < LIMITS[name][1] for name, value in told.items()):
        left = _left(run, row)
        if left > 1 - LEARNED:
            return (
                UNDECIDED,
                f"{because} The loss is still at {percent(left)} of its start: so far every network is lazy.",
            )
        return "lazy", because if np.isfinite(left) else f"{because} How far the loss fell is not stored."
    if rich and all(told[name] >= LIMITS[name][2] for name in rich):
        return "rich", because
    return UNDECIDED, f"{because} They lie between the limits, or on different sides of them."


def _left(run: Run, row: int) -> float:
    """The least loss on the probe up to a row over that of the start, or of squared residuals; NaN if neither is stored."""
    rows = np.flatnonzero(run.measured & (run.steps <= run.steps[row]))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    if run.has("probe_loss"):
        loss = run.values("probe_loss")[rows]
    elif run.has("residual"):
        loss = np.array([float(np.sum(run.at("residual", int(i)) ** 2)) for i in rows])
    else:
        return float("nan")
    loss = loss[np.isfinite(loss)]
    return float(loss.min() / loss[0]) if loss.size and loss[0] > 0 else float("nan")
