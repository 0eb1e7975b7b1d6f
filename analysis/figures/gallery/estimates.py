"""What was estimated of a kernel that was not formed, with its standard error."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..layout import over_time, sheet
from ..panels import Series, band
from ..registry import Scene, figure

_LABELS = (("participation_ratio", "(tr Θ)²/‖Θ‖²"), ("alignment", "alignment"), ("frobenius", "‖Θ‖"))


@figure(
    "estimates",
    "Sizes of a kernel that was not formed",
    "Participation ratio, kernel–target alignment and Frobenius norm, as far as they were measured, estimated from products of the "
    "kernel with random vectors. Bands are two standard errors of the estimate to either side; the vectors are the same at every "
    "moment, so that the course is more certain than its level.",
    "participation_ratio_estimate",
    "participation_ratio_estimate_error",
    section="spectrum",
)
def estimates(scene: Scene) -> Figure:
    """Each with a band of ±2 standard errors."""
    held = [(name, label) for name, label in _LABELS if scene.run.has(f"{name}_estimate", f"{name}_estimate_error")]
    page, axes = sheet(scene, 1, len(held), height=0.36)
    for ax, (name, label) in zip(axes, held, strict=True):
        value = scene.masked(f"{name}_estimate", why="the figure")
        error = scene.masked(f"{name}_estimate_error", why="the figure")
        one = Series(label, value, scene.style.category[0])
        band(ax, scene.run.steps, value - 2 * error, value + 2 * error, one)
        over_time(scene, ax, [one], label, ends=False)
    return page
