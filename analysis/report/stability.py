"""ρ over a run: when λ_1 came to its bound, and where it stood from then on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..derived import learning_rate_changes
from ..statements import Finding, Held
from ..text import count, number
from ..trajectory import Floats, Run
from .course import course as course_of
from .limits import AT_THE_EDGE


@dataclass(frozen=True)
class StabilityCourse:
    """The stability ratio of a run.

    Attributes:
        ratio: (S,) of each snapshot, over a pair the mean of both phases, for at the edge they differ.
        top: the row of the largest one.
        since: rows from the first that reached the edge until the learning rate changed; empty where none did.
        ended: the step of that change, or None.
    """

    ratio: Floats
    top: int
    since: NDArray[np.intp]
    ended: int | None

    @property
    def reached(self) -> bool:
        """Whether the ratio came to :data:`AT_THE_EDGE`."""
        return bool(self.since.size)

    @property
    def rows(self) -> NDArray[np.intp]:
        """Those that a statement on the edge rests on."""
        return self.since if self.reached else np.array([self.top])

    @property
    def level(self) -> float:
        """The median ratio since the edge was reached, or the largest one."""
        return float(np.median(self.ratio[self.rows]))

    @property
    def highest(self) -> float:
        """The largest ratio of :attr:`rows`."""
        return float(np.max(self.ratio[self.rows]))


def stability_course(run: Run) -> StabilityCourse | None:
    """The course of ρ; None where no measured snapshot has one."""
    if not run.has("stability_ratio"):
        return None
    ratio = run.groups.both_phases(run.values("stability_ratio"))
    rows = np.flatnonzero(run.measured & np.isfinite(ratio))
    if not rows.size:
        return None
    top = int(rows[np.argmax(ratio[rows])])
    reached = rows[ratio[rows] >= AT_THE_EDGE]
    if not reached.size:
        return StabilityCourse(ratio, top, reached, None)
    # What comes after a step of the learning rate has another bound: it says nothing of how long the edge was held.
    ends = [change.step for change in learning_rate_changes(run)[0] if change.step > run.steps[reached[0]]]
    since = rows[(rows >= reached[0]) & (run.steps[rows] < min(ends, default=np.inf))]
    return StabilityCourse(ratio, top, since, ends[0] if ends else None)


def stability(run: Run) -> Finding | None:
    """Whether λ_1 came to its bound, and what the median ratio was from then on."""
    course = stability_course(run)
    if course is None:
        return None
    level = number(course.level, 2)
    bias = ratio_bias(run, course.rows)  # a sample of the data has a larger ratio than the loss that is trained
    limit = AT_THE_EDGE + (bias if np.isfinite(bias) else 0.0)
    held, path = Held("theory", course.level, limit), course_of(run, course.ratio)
    if not course.reached:
        words = f"λ₁ never reached {AT_THE_EDGE:g} of its bound: the largest ratio was {level} at step "
        words += f"{count(run.steps[course.top])}."
        words += _scope(run, course.rows, below=True)
        return Finding("Edge of stability", f"ρ ≤ {level}", words, "", "stability", held, path)
    until = "since" if course.ended is None else f"until the learning rate changed at step {count(course.ended)}"
    words = (
        f"λ₁ first stood at {AT_THE_EDGE:g} or more of its bound at step {count(run.steps[course.since[0]])}; "
        f"the median ratio over the {count(len(course.since))} snapshots {until} is {level}."
    )
    return Finding(
        "Edge of stability",
        f"ρ ≈ {level}",
        words + _bound_moved(run, course.since) + _scope(run, course.since),
        "Above 1 the quadratic model of the loss is unstable.",
        "stability",
        held,
        path,
    )


def ratio_bias(run: Run, rows: NDArray[np.intp]) -> float:
    """By about how much a sample of the data makes ρ too large at these rows; NaN where that was not measured."""
    bias = run.values("stability_ratio_bias")[rows] if run.has("stability_ratio_bias") else np.full(len(rows), np.nan)
    return float(np.nanmedian(bias)) if np.isfinite(bias).any() else float("nan")


def _scope(run: Run, rows: NDArray[np.intp], *, below: bool = False) -> str:
    """What a ratio measured on a sample of the data does not say; "" where it is of the training loss itself."""
    scope = run.settings.get("stability_scope", "")
    if scope == "exact":
        return ""
    words = f" This speaks of the loss on the probe ({scope or 'scope not stored'}). "
    words += "A sample of the data makes the ratio too large on average"
    if np.isfinite(bias := ratio_bias(run, rows)):
        words += f", here by about {number(bias, 2)}"
    noise = " It does not say that training was stable: each minibatch has a curvature of its own." if below else ""
    return f"{words}.{noise}"


def _bound_moved(run: Run, rows: NDArray[np.intp]) -> str:
    """By how much a rate that moved continuously moved the bound, which then says less of λ₁."""
    rates = run.learning_rates[rows].max(axis=1, initial=0.0)
    rates = rates[np.isfinite(rates) & (rates > 0)]
    if not rates.size or rates.max() == rates.min():
        return ""
    with np.errstate(over="ignore"):
        factor = number(float(rates.max() / rates.min()), 2)
    return f" The learning rate, and the bound with it, moved by ×{factor} meanwhile."
