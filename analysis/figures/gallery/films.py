"""Films of the leading eigenfunctions: as images over two inputs, as lines over one, and by their most extreme samples."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from ...text import number
from ..canvas import Canvas, line_inputs
from ..film import Film
from ..layout import picture_sheet, row_label, sheet, steps_text
from ..moving import moving_functions
from ..panels import Series, functions, pictures, spread
from ..registry import Scene
from ..thumbnails import extremes, image_inputs

_IMAGES, _LINES, _SAMPLED = 6, 4, 5
#: A line of small text in parts of the axes' height.
_LINE = 0.065
#: Samples at either end of a function.
_ENDS = 4


def _held(scene: Scene, wanted: int) -> int:
    return min(wanted, int(scene.run.dataset.sizes["vector"]))


def _headed(page: Figure, scene: Scene) -> Figure:
    """A line above all, which tells the moment."""
    page.suptitle(steps_text(int(scene.run.steps[-1])), x=0.01, ha="left", fontsize="medium", fontweight="bold")
    return page


def _tell(page: Figure, step: int) -> None:
    assert page._suptitle is not None  # type: ignore[attr-defined]  # _headed made it
    page._suptitle.set_text(steps_text(step))  # type: ignore[attr-defined]


def image_film(scene: Scene) -> Film:
    """v_1, … over two inputs, each scaled to itself at each moment."""
    moving, canvas = moving_functions(scene.run, _held(scene, _IMAGES)), Canvas.of(scene.run)
    page, axes = picture_sheet(scene, canvas, 1, len(moving.signs), title_lines=3)
    for ax, image in zip(axes, canvas.paint(moving.at(len(moving) - 1)), strict=True):
        pictures(ax, image, scene.style, kind="signed", title="v")

    def show(moment: int) -> None:
        _tell(page, int(moving.matched.steps[moment]))
        for ax, image, name in zip(axes, canvas.paint(moving.at(moment)), moving.names(moment), strict=True):
            top = float(np.percentile(np.abs(image), 99)) or 1.0
            ax.images[0].set_data(image)
            ax.images[0].set_clim(-top, top)
            ax.set_title(name, fontsize="medium", fontweight="normal", loc="center", pad=3)

    return Film(_headed(page, scene), len(moving), show)


def line_film(scene: Scene) -> Film:
    """v_1, … over one input."""
    run, style, x = scene.run, scene.style, line_inputs(scene.run)
    moving = moving_functions(run, _held(scene, _LINES))
    order, colours = np.argsort(x, kind="stable"), style.ordered(len(moving.signs))
    page, (ax,) = sheet(scene, height=0.5)
    every = [moving.names(moment) for moment in range(len(moving))]
    widest = [max(names, key=len) for names in zip(*every, strict=True)]  # room is made for these
    last = moving.at(len(moving) - 1)
    functions(ax, x, [Series(n, v, c) for n, v, c in zip(widest, last.T, colours, strict=True)], style)
    reach = 1.08 * max(float(np.abs(moving.at(moment)).max()) for moment in range(len(moving)))
    ax.set_ylim(-reach, reach)
    lines, labels = ax.lines[: len(colours)], [text for text in ax.texts if isinstance(text, Annotation)]

    def show(moment: int) -> None:
        _tell(page, int(moving.matched.steps[moment]))
        values = moving.at(moment)[order]
        places = spread([0.5 + float(v) / (2 * reach) for v in values[-1]], _LINE)
        for i, name in enumerate(every[moment]):
            lines[i].set_ydata(values[:, i])
            labels[i].set_text(name)
            labels[i].xy = (1, places[i])

    return Film(_headed(page, scene), len(moving), show)


def sample_film(scene: Scene) -> Film:
    """The samples at which each function is least and greatest."""
    images, moving = image_inputs(scene.run), moving_functions(scene.run, _held(scene, _SAMPLED))
    ends, every = min(_ENDS, len(images) // 2), [moving.names(moment) for moment in range(len(moving))]
    rows, gap = len(moving.signs), {"width_ratios": [1.0] * ends + [0.3] + [1.0] * ends}
    height = 0.155 * rows * images.shape[1] / images.shape[2]
    page, axes = sheet(scene, rows, 2 * ends + 1, height=height, gridspec_kw=gap)
    grid = np.asarray(axes, dtype=object).reshape(rows, 2 * ends + 1)
    for i in range(rows):
        grid[i, ends].set_axis_off()
        for ax in (shown := np.delete(grid[i], ends)):
            pictures(ax, images[0], scene.style, title="0", limits=(0.0, 1.0))
        row_label(shown[0], max((names[i] for names in every), key=len), scene.style)
    grid = np.delete(grid, ends, axis=1)

    def show(moment: int) -> None:
        _tell(page, int(moving.matched.steps[moment]))
        for row, values, name in zip(grid, moving.at(moment).T, every[moment], strict=True):
            row[0].texts[0].set_text(name)
            for ax, sample in zip(row, extremes(values, ends), strict=True):
                ax.images[0].set_data(images[sample])
                _under(ax, number(float(values[sample]), 2))

    return Film(_headed(page, scene), len(moving), show)


def _under(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize="small", fontweight="normal", loc="center", pad=2)
