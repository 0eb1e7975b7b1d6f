"""A figure as an SVG that belongs to its page: CSS variables as colours, its fonts, its own ids, values to hover.

matplotlib draws with the marker colours of the style "page"; here they become ``var(--…)``, so that the same drawing is
right on a light page, on a dark one and in print. Text stays text: it can be searched, copied and read aloud.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from ..figures import PAGE, cell_names

#: Points of one line beyond which hover values are thinned: 2,000 is a pixel each on the widest page.
_HOVER_POINTS = 2000

#: Digits of a number that goes along: what a table for a paper takes from the page; float32 has no more.
_DIGITS = 6

#: Labels of axes whose named lines are read under the pointer.
_LINES = frozenset({"course", "profile"})


@dataclass(frozen=True)
class InlineSvg:
    """An SVG element for a page.

    Attributes:
        markup: the ``<svg>`` element.
        hover: JSON: per axes its box in fractions of the drawing and its lines with (x, y, step, value), or its map.
    """

    markup: str
    hover: str


def inline_svg(figure: Figure, name: str, alternative: str) -> InlineSvg:
    """Render a figure that was drawn in the style "page".

    Args:
        figure: the figure.
        name: what its ids start with; unique on the page.
        alternative: what is read aloud in its stead.

    Raises:
        AnalysisError: its numbers cannot be drawn.
    """
    with PAGE.drawing(f"the figure {name!r}"):
        drawing = _drawn(figure)
    return InlineSvg(_adapt(drawing, name, alternative), json.dumps(_hover(figure), separators=(",", ":")))


def _drawn(figure: Figure) -> str:
    """What ``savefig`` writes, without the one more drawing of everything by which it would place the axes."""
    if (engine := figure.get_layout_engine()) is not None:
        figure.set_dpi(FigureCanvasSVG(figure).fixed_dpi)  # lengths of texts are those that will be drawn
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _adapt(svg: str, name: str, alternative: str) -> str:
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for marker, variable in PAGE.variables.items():
        svg = svg.replace(marker, variable)
    svg = _with_own_ids(svg, name)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    # Images are embedded in their own resolution and smoothed by the browser, which knows the screen's.
    svg = re.sub(r"image-rendering: ?[a-z-]+;?", "", svg)
    head = re.match(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert head is not None  # matplotlib writes a viewBox
    share = min(1.0, float(head.group(1).split()[2]) / (72 * PAGE.width))
    opening = (
        f'<svg style="--share: {share:.3g}" viewBox="{head.group(1)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(alternative)}">'
    )
    return opening + svg[head.end() :]


def _with_own_ids(svg: str, name: str) -> str:
    """Every id once on the page. matplotlib gives equal images one id; a reference may take the first."""
    seen: dict[str, int] = {}

    def own(found: re.Match[str]) -> str:
        key = found.group(1)
        seen[key] = seen.get(key, 0) + 1
        return f'id="{name}-{key}"' if seen[key] == 1 else f'id="{name}-{key}.{seen[key]}"'

    return re.sub(r'\bid="([^"]*)"', own, svg)


def _hover(figure: Figure) -> list[dict[str, Any]]:
    """Axes with named lines or maps, in fractions of the drawing with y downwards, as the browser counts.

    Where lines are all that a figure shows, its axes are told too: the page can draw it anew from the numbers.
    """
    found: list[dict[str, Any]] = []
    whole = all(_is_of_lines(ax) for ax in figure.axes if ax.axison)
    for ax in figure.axes:
        if ax.get_label() in _LINES and (lines := [line for line in ax.lines if _is_named(line)]):
            drawn = [_line(figure, ax, line) for line in lines]
            panel = {
                "box": _rounded(_box(ax)),
                "axis": ax.get_xlabel().removeprefix("training ") or "at",
                "title": _title(ax),
                "y": ax.get_ylabel(),
                "lines": drawn,
            }
            found.append(panel | (_axes(ax) if whole else {}))
        elif ax.get_label() == "map" and ax.images:
            found.append({"box": _rounded(_box(ax)), "title": _title(ax), "map": _map(ax)})
    return found


def _is_of_lines(ax: Axes) -> bool:
    """Whether named lines, and rules across the axes, are all that is drawn."""
    others = [line for line in ax.lines if not _is_named(line) and _is_data(ax, line)]
    return ax.get_label() in _LINES and not (ax.collections or ax.images or ax.patches or others)


def _is_data(ax: Axes, line: Line2D) -> bool:
    """Whether a line stands at numbers of both axes; a rule across them does at one."""
    return bool(line.get_transform() == ax.transData)


def _title(ax: Axes) -> str:
    return ax.get_title(loc="left") or ax.get_title()


def _axes(ax: Axes) -> dict[str, Any]:
    """What the page needs to draw the axes anew: their scales, labels, and rules across them."""
    rules = [line for line in ax.lines if not _is_data(ax, line)]
    upright = [x[0] for line in rules if len(set(x := np.asarray(line.get_xdata(orig=True)).tolist())) == 1]
    level = [
        {"y": float(y[0]), "colour": _colour(line)}
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


def _map(ax: Axes) -> dict[str, Any]:
    """A matrix drawn by ``imshow``: its values, and what its rows and columns stand for."""
    rows, columns = cell_names(ax)
    values = np.asarray(ax.images[0].get_array(), dtype=np.float64)
    up = bool(ax.get_ylim()[0] < ax.get_ylim()[1])
    return {
        "values": [[float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else None for v in row] for row in values.tolist()],
        "rows": rows,
        "columns": columns,
        "up": up,
    }


def _is_named(line: Line2D) -> bool:
    return not str(line.get_label()).startswith("_") and len(np.atleast_1d(line.get_xdata(orig=True))) > 0


def _box(ax: Axes) -> tuple[float, float, float, float]:
    box = ax.get_position()
    return box.x0, 1 - box.y1, box.x1, 1 - box.y0


def _line(figure: Figure, ax: Axes, line: Line2D) -> dict[str, Any]:
    data = np.asarray(line.get_xydata(), dtype=np.float64)
    data = data[np.isfinite(data).all(axis=1)]
    data = data[:: max(1, -(-len(data) // _HOVER_POINTS))]
    places = figure.transFigure.inverted().transform(ax.transData.transform(data))
    colour = _colour(line)
    points = [
        [round(float(x), 4), round(float(1 - y), 4), float(step), float(f"{value:.{_DIGITS}g}")]
        for (x, y), (step, value) in zip(places, data, strict=True)
        if np.isfinite(x) and np.isfinite(y)
    ]
    said: dict[str, Any] = {"label": str(line.get_label()).replace(r"\$", "$"), "colour": colour, "points": points}
    if line.get_linestyle() not in ("-", "None"):
        said["dash"] = True
    if line.get_drawstyle() == "steps-post":
        said["steps"] = True
    return said


def _colour(line: Line2D) -> str:
    """The page's variable of a line's colour."""
    return PAGE.variables.get(str(line.get_color()), "var(--ink)")


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(float(v), 4) for v in values]
