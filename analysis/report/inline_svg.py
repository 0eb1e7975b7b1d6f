"""A figure as an SVG that belongs to its page: CSS variables as colours, its fonts, its own ids, values to hover.

matplotlib draws with the marker colours of the style "page"; here they become ``var(--…)``, so that the same drawing is
right on a light page, on a dark one and in print. Text stays text: it can be searched, copied and read aloud.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, replace

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..figures import CELLS, PAGE
from .hover import hover
from .phone import PIECE, is_sheet, narrowed, pieces


@dataclass(frozen=True)
class InlineSvg:
    """An SVG element for a page.

    Attributes:
        markup: the ``<svg>`` element.
        hover: JSON of :func:`~.hover.hover`.
        pieces: of a sheet, for a phone: the ``viewBox`` of each and its part of the screen's width.
        narrow: of what is no sheet and no lines alone, for a phone: the same laid out narrowly, as another element.
        boxes: JSON: where the panels of ``hover`` stand in ``narrow``.
    """

    markup: str
    hover: str
    pieces: tuple[tuple[str, float], ...] = ()
    narrow: str = ""
    boxes: str = ""


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
        engine = figure.get_layout_engine()
        markup, panels = _adapt(_drawn(figure), name, alternative), hover(figure)
        drawn = InlineSvg(markup, _json(panels))
        if panels and all("scale" in panel for panel in panels):
            return drawn  # the page draws it anew
        if is_sheet(figure):
            whole = 72 * PIECE
            shown = [(" ".join(f"{v:.1f}" for v in piece), min(1.0, piece[2] / whole)) for piece in pieces(figure)]
            return replace(drawn, pieces=tuple(shown))
        narrowed(figure)
        figure.set_layout_engine(engine)
        narrow = _adapt(_drawn(figure), f"{name}-narrow", alternative)
        return replace(drawn, narrow=narrow, boxes=_json([panel["box"] for panel in hover(figure)]))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


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
    svg = re.sub(r"<image [^>]*>", _sharp_or_smooth, svg)
    svg = _with_own_ids(svg, name)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    head = re.match(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert head is not None  # matplotlib writes a viewBox
    share = min(1.0, float(head.group(1).split()[2]) / (72 * PAGE.width))
    opening = (
        f'<svg style="--share: {share:.3g}" viewBox="{head.group(1)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(alternative)}">'
    )
    return opening + svg[head.end() :]


def _sharp_or_smooth(found: re.Match[str]) -> str:
    """A picture is embedded in its own resolution and smoothed by the browser, which knows the screen's; cells stay sharp."""
    image = re.sub(r' style="image-rendering[^"]*"', "", found.group())
    if image != found.group() and f'id="{CELLS}"' not in image:
        return image
    return f'{image.removesuffix("/>").rstrip()} style="image-rendering: pixelated"/>'


def _with_own_ids(svg: str, name: str) -> str:
    """Every id once on the page. matplotlib gives equal images one id; a reference may take the first."""
    seen: dict[str, int] = {}

    def own(found: re.Match[str]) -> str:
        key = found.group(1)
        seen[key] = seen.get(key, 0) + 1
        return f'id="{name}-{key}"' if seen[key] == 1 else f'id="{name}-{key}.{seen[key]}"'

    return re.sub(r'\bid="([^"]*)"', own, svg)
