"""The kernel beside what it is in the metric of the loss, or of the optimizer."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...derived import weighted_spectrum
from ...trajectory import Floats
from ..layout import over_time, sheet, steps_text
from ..panels import Series, profiles
from ..registry import Scene, figure

#: Shares of the first eigenvalue that float32 does not tell from nothing.
_ROUNDING = 1e-7


@figure(
    "weighted-spectrum",
    "The kernel in the metric of the loss, or of the optimizer",
    "Left: eigenvalues over the first one, of the kernel (dashed) and of S^½ΘS^½ or J P Jᵀ, whichever is stored, at the first and "
    "at the last moment that has both. Right: participation ratio (Σλ)²/Σλ² of both. Both are one for a mean of squares, and for "
    "an optimizer with one rate.",
    "eigenvalues",
    section="spectrum",
)
def spectra(scene: Scene) -> Figure:
    """Two spectra, and how many modes each has."""
    found, style = weighted_spectrum(scene.run), scene.style
    page, (left, right) = sheet(scene, 1, 2, height=0.46)
    lines = []
    for i, row in enumerate(dict.fromkeys((0, len(found.steps) - 1))):
        when, colour = steps_text(int(found.steps[row])), style.ordered(2)[i]
        own, other = (_above_rounding(values[row] / values[row, 0]) for values in (found.own, found.other))
        lines += [Series(f"Θ, {when}", own, colour, "dashed"), Series(when, other, colour)]
    profiles(left, np.arange(1, found.own.shape[1] + 1), lines, style, xlabel="mode i", ylabel="λᵢ / λ₁", y="log")
    other_name = "$S^{1/2}\\Theta S^{1/2}$" if "loss" in found.kernel else "J P Jᵀ"
    both = [
        Series("Θ", found.own_ratio, style.category[0], "dashed", x=found.steps),
        Series(other_name, found.other_ratio, style.category[1], x=found.steps),
    ]
    over_time(scene, right, both, "participation ratio", labels=False, ylim=(0, None))
    return page


def _above_rounding(share: Floats) -> Floats:
    return np.where(share > _ROUNDING, share, np.nan)
