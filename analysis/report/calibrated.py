"""What is said of the network as a Gaussian process."""

from __future__ import annotations

import numpy as np

from ..statements import Finding, Held
from ..text import count, number
from ..trajectory import Run
from .course import course

#: Squared errors over their predicted variance that are called calibrated: of 100 right ones the mean is within 0.72 and 1.28 at
#: two standard errors, and errors of one point's outputs are not independent.
_CALIBRATED = (0.5, 2.0)


def calibrated(run: Run) -> Finding | None:
    """Whether linearised Laplace says how far the network errs on points that it has not seen; nothing elsewhere."""
    if not run.has("posterior_calibration", "ntk_gp_nll"):
        return None
    ratio, likelihood = run.values("posterior_calibration"), run.values("ntk_gp_nll")
    rows = np.flatnonzero(run.measured & np.isfinite(ratio + likelihood))
    if not len(rows):
        return None
    last, best = rows[-1], rows[int(np.argmin(likelihood[rows]))]
    value = float(ratio[last])
    low, high = _CALIBRATED
    word = "too sure of itself" if value > high else "too unsure of itself" if value < low else "calibrated"
    return Finding(
        "Uncertainty",
        number(value, 2),
        f"At step {count(run.steps[last])} the network's squared errors on these points are {number(value, 2)} of the variance "
        f"that its kernel predicts from the other probe's data: it is {word} (calibrated from {low:g} to {high:g}). The "
        f"likelihood was best at step {count(run.steps[best])}, {number(float(likelihood[best]), 2)} nats an output.",
        "1 for errors as large as predicted.",
        "calibration",
        Held("theory", max(value, 1 / value) if value > 0 else float("nan"), high),
        course(run, ratio),
    )
