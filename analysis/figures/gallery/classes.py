"""How the kernel comes to tell classes apart: block means, and the means of three kinds of pairs."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError, ObservableError
from kerneltrack.observables import class_blocks, class_labels, pair_kernel

from ...derived import full_kernel, rows_with_kernels
from ...trajectory import Run
from ..layout import over_time, sheet, steps_text
from ..panels import Series, block_map
from ..registry import Scene, figure

_LEVELS = (("class_diagonal", "same point"), ("class_within", "same class"), ("class_between", "different classes"))
_MOMENTS = 3


@figure(
    "class-blocks",
    "The kernel between classes",
    "Mean kernel between points of two classes (the kernel of a point with itself is left out), divided by the mean "
    "kernel of a point with itself, at a few of the moments at which the kernel is known. As classes are learned, "
    "the diagonal stands out of a flat ground.",
    "targets",
    section="motion",
)
def blocks(scene: Scene) -> Figure:
    """Class-block means at the first, a middle and the last moment."""
    run = scene.run
    labels = _labels(run)
    rows = rows_with_kernels(run, _MOMENTS, why="the figure 'class-blocks'")
    maps = []
    for row in rows:
        kernel = pair_kernel(full_kernel(run, row))
        maps.append(class_blocks(kernel, labels) / float(np.trace(kernel) / len(kernel)))
    top = max(float(np.nanmax(np.abs(m))) for m in maps)
    lowest = min(float(np.nanmin(m)) for m in maps)
    low = -top if lowest < 0 else lowest
    page, axes = sheet(scene, 1, len(rows), height=0.33 + 0.07, width=0.1 + 0.3 * len(rows))
    for ax, row, values in zip(axes, rows, maps, strict=True):
        block_map(
            ax,
            values,
            scene.style,
            title=steps_text(run.steps[row]),
            limits=(low, top),
            bar=ax is axes[-1],
            xlabel="class",
            ylabel="class" if ax is axes[0] else "",
        )
    return page


@figure(
    "class-levels",
    "Three levels of the kernel",
    "Mean kernel of a point with itself, between points of one class, and between points of different classes, summed "
    "over outputs. What the kernel knows of classes is the distance of the lower two. Large classes weigh more.",
    *(name for name, _ in _LEVELS),
    section="motion",
)
def levels(scene: Scene) -> Figure:
    """Diagonal, within, between."""
    page, (ax,) = sheet(scene, height=0.38)
    lines = [
        Series(label, scene.masked(name, why="the figure"), colour)
        for (name, label), colour in zip(_LEVELS, scene.style.category, strict=False)
    ]
    positive = all(np.all(one.values[np.isfinite(one.values)] > 0) for one in lines)
    over_time(scene, ax, lines, "mean of Θ(n, m)", y="log" if positive else "linear")
    return page


def _labels(run: Run) -> np.ndarray:
    try:
        return class_labels(run.values("targets"))
    except ObservableError as error:
        raise AnalysisError(
            "the figure 'class-blocks' needs 'targets' that are classes", got=error.problem, where=run.path or None
        ) from error
