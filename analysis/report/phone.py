"""A figure on a phone: what is no line is shown part by part, or laid out again as narrow as the screen.

Figures of lines alone are drawn anew by the page, from their numbers. A sheet of several pictures keeps its one drawing and is
shown in pieces, a row's neighbours together as far as a phone is wide. A single map, or panels over each other, are laid out in
less width.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

#: Inches of a narrow sheet, so that its letters are as large on a phone as a wide one's on a desk; and of the widest piece.
WIDTH, PIECE = 4.6, 4.3
#: Height over width beyond which a narrow sheet is not.
_STEEPEST = 0.86
#: Points around a piece, for what stands out of its box by a hair.
_MARGIN = 2.0


def is_sheet(figure: Figure) -> bool:
    """Whether there are panels beside each other."""
    return len({round(ax.get_position().x0, 2) for ax in _panels(figure)}) > 1


def narrowed(figure: Figure) -> None:
    """Make the figure as narrow as a phone; who draws it next lays it out."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(WIDTH, min(height, _STEEPEST * WIDTH, height * max(WIDTH / width, 0.8)))


def pieces(figure: Figure) -> list[tuple[float, float, float, float]]:
    """The rectangles (left, top, width, height) in which a sheet is shown, in points from its upper left corner."""
    _, height = figure.get_size_inches() * 72
    boxes = _merged(figure, sorted((_box(figure, ax) for ax in _panels(figure)), key=lambda b: (-round(b.y1), b.x0)))
    others = [*figure.legends, *filter(None, [figure._suptitle])]  # type: ignore[attr-defined]  # as its films have it
    boxes += [text.get_window_extent(_renderer(figure)) for text in others]
    boxes.sort(key=lambda box: -round(box.y1))
    return [
        (b.x0 - _MARGIN, height - b.y1 - _MARGIN, b.width + 2 * _MARGIN, b.height + 2 * _MARGIN)
        for b in (Bbox(box.get_points() * 72 / figure.dpi) for box in boxes)
    ]


def _merged(figure: Figure, boxes: Sequence[Bbox]) -> list[Bbox]:
    """Neighbours in a row as one, in parts of like width that a phone can show."""
    rows: list[list[Bbox]] = []
    for box in boxes:
        if (
            rows
            and rows[-1][-1].y0 < box.y1 - box.height / 2
            and rows[-1][-1].x1 <= box.x1
            and _level(rows[-1][-1], box)
        ):
            rows[-1].append(box)
        else:
            rows.append([box])
    merged = []
    for row in rows:
        width = statistics.median(box.width for box in row) * 72 / figure.dpi
        together = max(1, int(PIECE * 72 / width))
        parts = -(-len(row) // together)
        each = -(-len(row) // parts)
        merged += [Bbox.union(row[i : i + each]) for i in range(0, len(row), each)]
    return merged


def _level(first: Bbox, second: Bbox) -> bool:
    """Whether two boxes stand in one row: each one's middle is within the other's height."""
    middle = (first.y0 + first.y1) / 2
    return bool(second.y0 < middle < second.y1)


def _panels(figure: Figure) -> list[Axes]:
    """The axes that show something, without the bars of their colours."""
    bars = {id(bar.ax) for ax in figure.axes for image in (*ax.images, *ax.collections) if (bar := image.colorbar)}
    return [ax for ax in figure.axes if id(ax) not in bars and (ax.axison or ax.has_data())]


def _box(figure: Figure, ax: Axes) -> Bbox:
    """With its title, labels and the bar of its colours."""
    renderer = _renderer(figure)
    bars = [bar.ax for image in (*ax.images, *ax.collections) if (bar := image.colorbar)]
    return Bbox.union([box for one in (ax, *bars) if (box := one.get_tightbbox(renderer)) is not None])


def _renderer(figure: Figure) -> RendererAgg:
    """One that measures text as it is drawn."""
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer
