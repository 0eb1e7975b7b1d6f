"""At the edge of stability? The normalised sharpness ρ against 1, less what a sample of the data adds to it."""

from __future__ import annotations

import numpy as np

from ...derived import HELD
from ...statements import UNDECIDED, Verdict
from ...text import number
from ...trajectory import Run
from ...withheld import missing
from ..limits import AT_THE_EDGE
from ..stability import StabilityCourse, ratio_bias, stability, stability_course
from .reason import reason

EDGE = "At the edge of stability?"
#: How many times too large ρ of a sample may be where its bias was not measured: 30 of 1,500 digits gave 1.46.
SAMPLE = 1.5
_THRESHOLD = (
    f"below where ρ never reaches {AT_THE_EDGE:g}; at the edge where it does, and its median from then on lies within "
    f"{HELD[0]:g} and {HELD[1]:g}, also without the bias of a sample; beyond where the median is larger"
)
_SOURCE = (
    "the edge is at ρ = 1: Cohen et al. 2021 (arXiv 2103.00065), for Adam 2022 (2207.14484); the limits: convention of this "
    "package, for at the edge ρ hovers a little above 1"
)


def edge(run: Run) -> Verdict:
    """Whether λ_1 stood at its bound."""
    course, finding = stability_course(run), stability(run)
    if course is None or finding is None:
        because = reason(missing("stability_ratio", "the answer", run.path, run.withheld("stability_ratio")))
        return Verdict(EDGE, UNDECIDED, because, _THRESHOLD, _SOURCE)
    bias = 0.0 if run.settings.get("stability_scope") == "exact" else ratio_bias(run, course.rows)
    answer, because = _answer(course, bias)
    numbers = {"stability_ratio": course.level, "stability_ratio_bias": bias}
    return Verdict(EDGE, answer, because, _THRESHOLD, _SOURCE, "", numbers, (finding,))


def _answer(course: StabilityCourse, bias: float) -> tuple[str, str]:
    told = f"ρ = {number(course.level, 2)}"
    if not course.reached:
        return "below", f"{told} at most."
    if course.level < HELD[0]:
        return UNDECIDED, f"{told} in the median: the edge was reached, and left again."
    # limits and not ratios are moved: a ratio that is exactly at one stays there
    known = bool(np.isfinite(bias))
    arrival, low, high = (limit + bias if known else limit * SAMPLE for limit in (AT_THE_EDGE, *HELD))
    if course.highest < arrival or course.level < low:
        words = (
            f"{number(course.level - bias, 2)} without its bias"
            if known
            else f"a sample may make it ×{SAMPLE:g} too large"
        )
        return UNDECIDED, f"{told} in the median, {words}."
    return ("beyond" if course.level > high else "at the edge"), f"{told} in the median since the edge was reached."
