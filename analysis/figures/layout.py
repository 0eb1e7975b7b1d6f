"""A blank sheet: a Figure with axes in a style's width, without pyplot and its global list of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ..derived import representative_rows
from ..text import count, plain
from ..trajectory import Floats, Run
from .canvas import Canvas
from .panels import Series, heat_map, line_plot, mark_changes
from .registry import Scene
from .style import Style


def sheet(
    scene: Scene, rows: int = 1, columns: int = 1, *, height: float = 0.4, width: float = 1.0, **layout: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` times the style's width and ``height`` times that, and its axes row by row."""
    return blank(scene.style, rows, columns, height=height, width=width, **layout)


def blank(
    style: Style, rows: int = 1, columns: int = 1, *, height: float = 0.4, width: float = 1.0, **layout: Any
) -> tuple[Figure, list[Axes]]:
    """The same in a style, for figures that are not of one run."""
    figure = Figure(figsize=(width * style.width, height * style.width), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    return figure, list(np.asarray(axes).ravel())


def picture_sheet(
    scene: Scene, canvas: Canvas, rows: int, columns: int, *, title_lines: int = 1
) -> tuple[Figure, list[Axes]]:
    """A sheet as high as its images and their titles need."""
    line = 1.5 * 10 / 72 / scene.style.width  # a line of 10-point text, as a part of the width
    return sheet(scene, rows, columns, height=rows * (0.96 * canvas.aspect / columns + line * title_lines))


def over_time(
    scene: Scene, ax: Axes, series: list[Series], ylabel: str, *, labels: bool = True, **options: Any
) -> Axes:
    """A course over the run's steps with its learning-rate changes marked."""
    line_plot(ax, scene.run.steps, series, scene.style, ylabel=ylabel, x=scene.time, **options)
    return mark_changes(ax, scene.marks, scene.style, labels=labels)


#: Moments between all pairs of which a number is drawn.
_MOMENTS = 40


def moments(scene: Scene, what: str) -> list[int]:
    """Rows of measured snapshots, spread evenly, between all pairs of which ``what`` is drawn.

    Raises:
        AnalysisError: there are fewer than two.
    """
    rows = representative_rows(scene.run, _MOMENTS)
    if len(rows) < 2:
        raise AnalysisError(f"{what} needs two measured snapshots", got=len(rows), where=scene.run.path or None)
    return rows


def moment_map(scene: Scene, rows: Sequence[int], values: Floats, **options: Any) -> Figure:
    """A square map of one number for each pair of moments; ``options`` are the heat map's."""
    page, (ax,) = sheet(scene, height=0.52, width=0.66)
    labels = [count(int(scene.run.steps[row])) for row in rows]
    heat_map(ax, values, scene.style, labels=labels, **options)
    return page


def from_control(scene: Scene, name: str, label: str, *, column: int | None = None) -> list[Series]:
    """The control's course of a stored quantity as a dashed line, or nothing where there is none."""
    control = scene.beside(name)
    if control is None:
        return []
    values: Floats = control.values(name)
    label += f" ({control.other_batches})" if control.other_batches else ""
    return [Series(label, values if column is None else values[:, column], scene.style.muted, "dashed", control.steps)]


def steps_text(step: int) -> str:
    """A step for titles: "step 5,000"."""
    return f"step {step:,}"


def row_label(ax: Axes, text: str, style: Style) -> None:
    """What a row of pictures shares, upright at its left."""
    ax.text(
        -0.06,
        0.5,
        text,
        transform=ax.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize="small",
        color=style.muted,
    )


def layer_names(run: Run, count: int) -> list[str]:
    """The layers' names as the probe's settings have them, or their numbers."""
    named = run.settings.get("layers")
    several = named if isinstance(named, list) and len(named) == count else range(1, count + 1)
    return [literal(name) or "root" for name in several]


def literal(text: object) -> str:
    r"""A text from outside for a figure: one line, its dollars drawn as dollars and not as the ends of a formula.

    >>> print(literal("a $5 and $6\n"))
    a \$5 and \$6\n
    """
    return plain(text, 40).replace("$", r"\$")
