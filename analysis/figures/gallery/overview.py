"""The run at a glance: λ_1 and its bound, loss, alignment and the kernel's angle over one time axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerneltrack.errors import AnalysisError

from ..layout import from_control, over_time, sheet
from ..panels import Series
from ..registry import Scene, figure

#: Rows without which there is nothing to look at together.
_LEAST = 2


@figure(
    "overview",
    "The run at a glance",
    "Over one time axis, each row on a scale of its own: the largest eigenvalue of the kernel and the value at which the next "
    "update would be at the edge of stability (where the loss is no mean of squares, the sharpness and its own); the loss on the "
    "probe; kernel–target alignment with its mean over permuted labels (dotted); the angle of the kernel with that of the start. "
    "Dashed: the control.",
    section="summary",
)
def overview(scene: Scene) -> Figure:
    """A row for each that the archive holds."""
    rows = [draw for draw in (row(scene) for row in (_edge, _loss, _alignment, _angle)) if draw is not None]
    if len(rows) < _LEAST:
        raise AnalysisError(
            "the figure 'overview' needs 'stability_ratio', 'probe_loss', 'kernel_target_alignment' or 'kernel_angle_from_initial'",
            expected=f"{_LEAST} of them",
            got=len(rows),
            where=scene.run.path or None,
            remedy="Measure them: NTKTracker(loss=…, observables='default').",
        )
    page, axes = sheet(scene, len(rows), 1, height=0.15 * len(rows) + 0.04, sharex=True)
    for i, (draw, ax) in enumerate(zip(rows, axes, strict=True)):
        draw(ax, i == 0)
        if i < len(rows) - 1:
            ax.xaxis.label.set_visible(False)  # named all the same: the page redraws each row by itself
    page.align_ylabels(axes)
    return page


Drawing = Callable[[Axes, bool], None]


def _edge(scene: Scene) -> Drawing | None:
    """λ_1, or the sharpness, and the bound, which is that over ρ."""
    run, squares = scene.run, scene.run.has("stability_bound")
    label, stored = ("λ₁", "eigenvalues") if squares else ("sharpness", "gauss_newton_sharpness")
    if not run.has(stored, "stability_ratio"):
        return None
    largest = scene.masked(stored, why="the figure")
    column = 0 if squares else None
    largest = largest if column is None else scene.run.groups.both_phases(largest[:, column])
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = largest / scene.masked("stability_ratio", why="the figure")
    known, top = np.isfinite(bound) & (bound > 0), float(np.nanmax(largest, initial=0.0))
    # a rate that falls to nothing sends the bound to infinity, and λ₁ into the axis
    high = 1.15 * max(top, min(float(bound[known].max(initial=0.0)), 2 * top))
    lines = [
        Series(label, largest, scene.style.category[0]),
        *from_control(scene, stored, "control", column=column),
        Series("bound", np.where(bound < high, bound, np.nan), scene.style.ink, "dotted", steps=True),
    ]
    return lambda ax, first: _over_time(scene, ax, lines, label, first, ylim=(0, high))


def _loss(scene: Scene) -> Drawing | None:
    if not scene.run.has("probe_loss"):
        return None
    loss = scene.masked("probe_loss", why="the figure")
    lines = [Series("loss", loss, scene.style.category[1]), *from_control(scene, "probe_loss", "control")]
    scale = "log" if (loss[np.isfinite(loss)] > 0).all() else "linear"
    return lambda ax, first: _over_time(scene, ax, lines, "loss", first, y=scale)


def _alignment(scene: Scene) -> Drawing | None:
    lines, run, style = [], scene.run, scene.style
    if run.has("kernel_target_alignment"):
        lines.append(Series("alignment", scene.masked("kernel_target_alignment", why="the figure"), style.category[2]))
        lines += from_control(scene, "kernel_target_alignment", "control")
    if run.has("kernel_target_alignment", "kernel_target_alignment_null"):
        null = scene.masked("kernel_target_alignment_null", why="the figure")
        lines.append(Series("by chance", null, style.category[2], "dotted"))
    return (lambda ax, first: _over_time(scene, ax, lines, "alignment", first, ylim=(0, None))) if lines else None


def _angle(scene: Scene) -> Drawing | None:
    """As stored, or from 1 − cosine."""
    run = scene.run
    if run.has("kernel_angle_from_initial"):
        angle = scene.masked("kernel_angle_from_initial", why="the figure")
    elif run.has("kernel_distance_from_initial"):
        angle = np.arccos(1 - scene.masked("kernel_distance_from_initial", why="the figure"))
    else:
        return None
    lines = [Series("angle", angle, scene.style.category[3])]
    return lambda ax, first: _over_time(scene, ax, lines, "angle (rad)", first, ylim=(0, None))


def _over_time(scene: Scene, ax: Axes, lines: list[Series], ylabel: str, first: bool, **options: Any) -> None:
    over_time(scene, ax, lines, ylabel, labels=first, **options)
    if options.get("y") != "log":
        ax.yaxis.set_major_locator(MaxNLocator(3))
