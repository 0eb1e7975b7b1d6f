"""Style: how figures look, as values. A style never changes matplotlib's global state beyond the figure it is used for.

Colours are colour-blind-safe: categories are those of Okabe & Ito (2008), ordered families come from ``plasma``. The
style "page" draws with marker colours that the report replaces by CSS variables, so that one SVG serves the light page,
the dark page and print.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kerneltrack.errors import AnalysisError

#: Okabe & Ito's palette without its yellow, which vanishes on white.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
#: Eight steps of plasma, monotone in lightness. Its bright third is cut off: it cannot be read on white, where lines
#: carry their labels in their own colour. The dark style cuts the other end.
PLASMA = ("#0d0887", "#3f049c", "#6700a8", "#8d0ba5", "#ad2793", "#c8437b", "#de5f65", "#ef7e50")


@dataclass(frozen=True)
class Style:
    """A look: inks, palettes, width and matplotlib's rcParams.

    Attributes:
        name: what ``plot --style`` calls it.
        ink: text and axes.
        muted: ticks, nulls, annotations.
        grid: grid lines.
        ground: the background, or "none".
        category: colours of unordered series.
        order: colours of ordered series, first to last.
        width: inches of a full-width figure.
        interpolation: of images between their pixels; "none" embeds them as they are.
        rc: further rcParams.
        variables: marker colour → CSS variable, for the report.
    """

    name: str
    ink: str = "#1a1a1a"
    muted: str = "#6b6b6b"
    grid: str = "#e3e3e3"
    ground: str = "white"
    category: tuple[str, ...] = OKABE_ITO
    order: tuple[str, ...] = PLASMA
    width: float = 7.0
    interpolation: str = "bilinear"
    rc: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> Any:
        """The rcParams of this style, complete."""
        return {
            "axes.edgecolor": self.muted,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "text.color": self.ink,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "axes.facecolor": "none",
            "figure.facecolor": self.ground,
            "savefig.facecolor": self.ground,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.7,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "font.size": 9,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "lines.linewidth": 1.6,
            "lines.solid_capstyle": "round",
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "font.family": "sans-serif",
            "svg.fonttype": "none",
            "svg.hashsalt": "kerneltrack",
            "pdf.fonttype": 42,
            "savefig.dpi": 200,
            **self.rc,
        }

    @contextmanager
    def drawing(self, what: str) -> Iterator[None]:
        """Draw in this style; for every call into matplotlib, whose global state is as before afterwards.

        Args:
            what: is drawn, for the error.

        Raises:
            AnalysisError: the numbers have no place on the axes: beyond what squares, NaN throughout, none positive on
                a logarithmic one. Archives may hold any number, and matplotlib refuses each kind in its own way.
        """
        import matplotlib
        import numpy as np

        try:
            with matplotlib.rc_context(self.parameters()), np.errstate(all="ignore"), warnings.catch_warnings():
                # A letter that no font has, axes too small for their labels: the figure shows it, and no user can act on it.
                warnings.simplefilter("ignore", UserWarning, append=True)
                yield
        except AnalysisError:
            raise
        except (ArithmeticError, ValueError) as error:
            raise AnalysisError(f"{what} cannot be drawn from these numbers", got=str(error)) from error

    def ordered(self, count: int) -> list[str]:
        """``count`` colours of the ordered family, spread over its whole length."""
        last = len(self.order) - 1
        return [self.order[round(i * last / max(count - 1, 1))] for i in range(count)]


def _markers(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"#{prefix}{i:02x}" for i in range(1, count + 1))


_CATEGORY, _ORDER = _markers("fe01", len(OKABE_ITO)), _markers("fe02", len(PLASMA))
_INK, _MUTED, _GRID = "#fe0301", "#fe0302", "#fe0303"

PAPER = Style("paper", width=5.5)
SLIDE = Style(
    "slide",
    width=10,
    rc={
        "font.size": 14,
        "axes.titlesize": 16,
        "axes.labelsize": 14,
        "xtick.labelsize": 12.5,
        "ytick.labelsize": 12.5,
        "legend.fontsize": 12.5,
        "lines.linewidth": 2.4,
    },
)
DARK = Style(
    "dark",
    ink="#ececec",
    muted="#a8a8a8",
    grid="#333840",
    ground="#14171c",
    category=("#56b4e9", "#ff8a3d", "#2fc79a", "#e49ac2", "#ffc24d", "#9cc9f5"),
    order=("#b13aa6", "#c34c97", "#d4587f", "#e26660", "#f1814d", "#fb9f3a", "#fec029", "#f7e425"),
)
PAGE = Style(
    "page",
    ink=_INK,
    muted=_MUTED,
    grid=_GRID,
    ground="none",
    category=_CATEGORY,
    order=_ORDER,
    width=8.4,
    interpolation="none",
    variables={
        **{marker: f"var(--category-{i})" for i, marker in enumerate(_CATEGORY, 1)},
        **{marker: f"var(--order-{i})" for i, marker in enumerate(_ORDER, 1)},
        _INK: "var(--ink)",
        _MUTED: "var(--muted)",
        _GRID: "var(--grid)",
    },
)

STYLES: Mapping[str, Style] = {style.name: style for style in (PAPER, SLIDE, DARK, PAGE)}
