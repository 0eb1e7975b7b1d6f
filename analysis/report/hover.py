"""What a drawing says under the pointer, as numbers for the page: values with their places, and what it takes to draw it anew.

Places are fractions of the drawing with y downwards, as the browser counts. A panel holds ``lines`` (each point is x and y of its
place, the number it stands over, its value, and two edges where it has them), a ``map`` (values with the places of its rows and
columns) or ``spots`` (rectangles with what they stand for). Where every panel of a figure is of lines, their axes go along.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from ..figures import PAGE, Cells, Marks, told

#: Points of one line beyond which hover values are thinned: 2,000 is a pixel each on the widest page.
_POINTS = 2000
#: Columns and rows of a map, likewise: a cell is then three pixels or more, also on a logarithmic axis.
_COLUMNS, _ROWS = 200, 80
#: Digits of a number that goes along: what a table for a paper takes from the page; float32 has no more.
_DIGITS = 6
#: Labels of axes whose named lines are read under the pointer.
_LINES = frozenset({"course", "profile"})


def hover(figure: Figure) -> list[dict[str, Any]]:
    """A panel for each axes that says something, in the figure's order."""
    whole = all(_is_of_lines(ax) for ax in figure.axes if ax.axison)
    return [panel for ax in figure.axes if (panel := _panel(figure, ax, whole)) is not None]


def _panel(figure: Figure, ax: Axes, whole: bool) -> dict[str, Any] | None:
    """Of one axes; ``whole``: the figure can be drawn anew."""
    box, says = ax.get_position(), told(ax)
    frame = {"box": _rounded((box.x0, 1 - box.y1, box.x1, 1 - box.y0)), "title": _title(ax)}
    if says.cells is not None:
        return frame | {"map": _map(ax, says.cells)}
    if says.spots:
        return frame | {"spots": [_spot(figure, ax, one) for one in says.spots]}
    lines = [_line(figure, ax, line) for line in ax.lines if _is_named(line) and not says.knows(line)]
    lines += [_marks(figure, ax, mark) for mark in says.marks]
    if ax.get_label() not in _LINES or not lines:
        return None
    axis = ax.get_xlabel().removeprefix("training ") or "at"
    return frame | {"axis": axis, "y": ax.get_ylabel(), "lines": lines} | (_axes(ax) if whole else {})


def _is_of_lines(ax: Axes) -> bool:
    """Whether named lines, told marks and rules across the axes are all that is drawn."""
    others = [line for line in ax.lines if not _is_named(line) and _is_data(ax, line)]
    drawn = [*ax.collections, *ax.images, *ax.patches, *others]
    return ax.get_label() in _LINES and all(told(ax).knows(artist) for artist in drawn)


def _is_data(ax: Axes, line: Line2D) -> bool:
    """Whether a line stands at numbers of both axes; a rule across them does at one."""
    return bool(line.get_transform() == ax.transData)


def _is_named(line: Line2D) -> bool:
    return not str(line.get_label()).startswith("_") and len(np.atleast_1d(line.get_xdata(orig=True))) > 0


def _title(ax: Axes) -> str:
    return ax.get_title(loc="left") or ax.get_title()


def _axes(ax: Axes) -> dict[str, Any]:
    """What the page needs to draw the axes anew: their scales, labels, and rules across them."""
    rules = [line for line in ax.lines if not _is_data(ax, line)]
    upright = [x[0] for line in rules if len(set(x := np.asarray(line.get_xdata(orig=True)).tolist())) == 1]
    level = [
        {"y": float(y[0]), "colour": _colour(line.get_color())} | _dash(line)
        for line in rules
        if len(set(y := np.asarray(line.get_ydata(orig=True)).tolist())) == 1
    ]
    scale = {"symlog": "log", "log": "pure"}.get(ax.get_xscale(), "linear")
    return {
        "x": ax.get_xlabel(),
        "scale": scale,
        "log": ax.get_yscale() == "log",
        "marks": [float(x) for x in upright],
        "named": [[float(x), text] for x, text in _named(ax, upright)],
        "rules": level,
    }


def _named(ax: Axes, upright: list[float]) -> list[tuple[float, str]]:
    """The labels above the axes of rules across it."""
    above = [text for text in ax.texts if isinstance(text, Annotation) and text.xy[0] in upright and text.xy[1] == 1]
    return [(float(text.xy[0]), text.get_text()) for text in above]


def _line(figure: Figure, ax: Axes, line: Line2D) -> dict[str, Any]:
    """A line as it is drawn."""
    x, y = np.asarray(line.get_xydata(), dtype=np.float64).T
    said = _said(str(line.get_label()), line.get_color(), _points(figure, ax, x, y, y)) | _dash(line)
    if line.get_drawstyle() == "steps-post":
        said["steps"] = True
    return said


def _marks(figure: Figure, ax: Axes, mark: Marks) -> dict[str, Any]:
    """What a panel says of itself."""
    edges = [side for side in (mark.low, mark.high) if side is not None]
    points = _points(figure, ax, mark.x, mark.heights, mark.values, *edges)
    said = _said(mark.label, mark.colour, points) | {"kind": mark.kind}
    if mark.sizes is not None and len(points) == len(mark.sizes):
        said["sizes"] = [round(float(size), 1) for size in mark.sizes]
    return said


def _said(label: str, colour: Any, points: list[list[float]]) -> dict[str, Any]:
    return {"label": label.replace(r"\$", "$"), "colour": _colour(colour), "points": points}


def _points(figure: Figure, ax: Axes, x: Any, heights: Any, *values: Any) -> list[list[float]]:
    """Place and numbers of each point that has them all, at most so many as there are pixels."""
    table = np.column_stack([np.asarray(column, dtype=np.float64) for column in (x, heights, *values)])
    table = table[np.isfinite(table).all(axis=1)]
    table = table[:: max(1, -(-len(table) // _POINTS))]
    at = _places(figure, ax, table[:, :2])
    return [
        [*_rounded(place), float(row[0]), *(_digits(v) for v in row[2:])]
        for place, row in zip(at.tolist(), table.tolist(), strict=True)
        if np.isfinite(place).all()
    ]


def _places(figure: Figure, ax: Axes, data: Any) -> np.ndarray:
    """Numbers of the axes (n, 2) as fractions of the drawing."""
    there = np.asarray(figure.transFigure.inverted().transform(ax.transData.transform(np.asarray(data))))
    return there * (1, -1) + (0, 1)


def _map(ax: Axes, cells: Cells) -> dict[str, Any]:
    """Cells with what their rows and columns stand for, and where these lie in parts of the axes: left, right; top, bottom."""
    across = _parts(ax, cells.across, 0)
    up = 1 - _parts(ax, cells.up, 1)
    rows, columns = _chosen(up, _ROWS), _chosen(across, _COLUMNS)
    values = np.asarray(cells.values, dtype=np.float64)[np.ix_(rows, columns)]
    return {
        "values": [[_digits(v) if np.isfinite(v) else None for v in row] for row in values.tolist()],
        "rows": [cells.rows[i] for i in rows],
        "columns": [cells.columns[i] for i in columns],
        "x": [_rounded(sorted(pair)) for pair in across[columns].tolist()],
        "y": [_rounded(sorted(pair)) for pair in up[rows].tolist()],
    }


def _parts(ax: Axes, edges: Any, axis: int) -> np.ndarray:
    """Edges (n, 2) along an axis (0: x, 1: y) in parts of the axes."""
    data = np.ones((edges.size, 2)) * (ax.get_xlim()[0], ax.get_ylim()[0])
    data[:, axis] = np.asarray(edges, dtype=np.float64).ravel()
    there = ax.transAxes.inverted().transform(ax.transData.transform(data))
    return np.asarray(there)[:, axis].reshape(edges.shape)


def _chosen(edges: np.ndarray, most: int) -> list[int]:
    """Which of the stripes (n, 2) are told: all, or one in each of ``most`` equal parts of the axes that has any."""
    if len(edges) <= most:
        return list(range(len(edges)))
    part = np.floor(most * np.clip(edges.mean(axis=1), 0, 1 - 1e-9)).astype(int)
    return sorted(np.unique(part, return_index=True)[1].tolist())


def _spot(figure: Figure, ax: Axes, spot: Any) -> dict[str, Any]:
    corners = _places(figure, ax, np.column_stack([spot.x, spot.y]))
    (left, bottom), (right, top) = corners.tolist()
    rows = [[label, value if isinstance(value, str) else _digits(value), _colour(c)] for label, value, c in spot.rows]
    return {"at": _rounded((left, top, right, bottom)), "head": spot.head, "rows": rows}


def _dash(line: Line2D) -> dict[str, str]:
    """How a line is broken, in SVG's words: nothing for one that is not."""
    offset_and_pattern = line._unscaled_dash_pattern  # type: ignore[attr-defined]  # matplotlib has no public name for it
    pattern = offset_and_pattern[1]
    return {"dash": " ".join(f"{1.2 * length:.3g}" for length in pattern)} if pattern else {}


def _colour(colour: Any) -> str:
    """The page's variable of a marker colour."""
    return PAGE.variables.get(str(colour), "var(--ink)")


def _digits(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(v), 4) for v in values]
