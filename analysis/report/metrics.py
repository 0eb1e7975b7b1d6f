"""What is said of the kernel in the metric of the loss, or of the optimizer, beside the kernel itself."""

from __future__ import annotations

from kerneltrack.errors import AnalysisError

from ..derived import weighted_spectrum
from ..statements import Finding
from ..text import count, number
from ..trajectory import Run


def weighted(run: Run) -> Finding | None:
    """How many modes the other kernel has beside the kernel itself; nothing where both are one spectrum up to a factor."""
    try:
        found = weighted_spectrum(run)
    except AnalysisError:
        return None  # no second spectrum is stored
    if found.proportional:
        return None  # a mean of squares, or one rate: the metric changes nothing
    first, last = ((float(found.other_ratio[i]), float(found.own_ratio[i])) for i in (0, -1))
    before = (
        f"; at step {count(found.steps[0])} of {number(first[0], 2)}, the kernel of {number(first[1], 2)}"
        if len(found.steps) > 1
        else ""
    )
    return Finding(
        "Weighted kernel",
        f"{number(last[0], 2)} modes, not {number(last[1], 2)}",
        f"At step {count(found.steps[-1])} {found.kernel} has a participation ratio of {number(last[0], 2)}, the kernel itself "
        f"of {number(last[1], 2)}{before}.",
        "One number for a mean of squares, and for an optimizer with one rate.",
        "weighted-spectrum",
    )
