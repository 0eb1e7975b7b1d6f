"""Courses: quantities over training time, with learning-rate changes marked and lines labelled at their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, SymmetricalLogLocator

from ...trajectory import Floats, Ints
from ..style import Style
from .told import Marks, told

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Series:
    """One line: its label, its values at the panel's x, and how it is drawn.

    Attributes:
        label: at the line's end and in the hover box.
        values: (S,), NaN where there is none.
        colour: a colour of the style.
        line: "solid" for the run, "dashed" for a control, "dotted" for a null or a bound.
        x: its own x where that differs from the panel's.
        steps: whether it holds between changes, such as a bound, and is drawn as steps.
    """

    label: str
    values: Floats
    colour: str
    line: Literal["solid", "dashed", "dotted"] = "solid"
    x: Ints | Floats | None = None
    steps: bool = False


def line_plot(
    ax: Axes,
    steps: Ints | Floats,
    series: Sequence[Series],
    style: Style,
    *,
    ylabel: str,
    title: str = "",
    x: Scale = "linear",
    y: Scale = "linear",
    ylim: tuple[float | None, float | None] = (None, None),
    ends: bool = True,
) -> Axes:
    """Lines over training steps, each named at its end if ``ends``; returns ``ax``."""
    for one in series:
        draw(ax, steps, one)
    time_axis(ax, x)
    if y == "log":
        logarithmic(ax)
    else:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    ax.set_ylim(*ylim)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    if ends:
        label_ends(ax, steps, series)
    ax.set_label("course")
    return ax


def mark_changes(ax: Axes, changes: Sequence[tuple[int, str]], style: Style, *, labels: bool = True) -> Axes:
    """Vertical hairlines at (step, label) pairs; labels stand above the axes."""
    for step, label in changes:
        ax.axvline(step, color=style.muted, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if labels:
            ax.annotate(
                label,
                (step, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize="small",
                color=style.muted,
            )
    return ax


def draw(ax: Axes, x: Ints | Floats, one: Series) -> None:
    """One line; where most values stand alone between NaN they get dots, for a line needs two neighbours."""
    known = np.isfinite(one.values)
    at = x if one.x is None else one.x
    pattern = {"solid": "-", "dashed": (0, (5, 2)), "dotted": (0, (1, 1.6))}[one.line]
    ax.plot(
        at[known],
        one.values[known],
        color=one.colour,
        linestyle=pattern,
        label=one.label,
        marker="o" if known.sum() < 3 else "",
        markersize=4,
        linewidth=1.2 if one.line != "solid" else None,
        drawstyle="steps-post" if one.steps else "default",
    )


def band(ax: Axes, x: Ints | Floats, low: Floats, high: Floats, one: Series) -> Axes:
    """A line with a band from ``low`` to ``high``; returns ``ax``."""
    area = ax.fill_between(x, low, high, color=one.colour, alpha=0.2, linewidth=0)
    draw(ax, x, one)
    told(ax).marks.append(Marks("band", one.label, one.colour, x, one.values, low, high, artists=(area, ax.lines[-1])))
    return ax


def stacked(ax: Axes, x: Ints | Floats, shares: Floats, style: Style, *, labels: Sequence[str]) -> Axes:
    """Shares (S, parts) that add up to one, as layers of colour named at their right end; returns ``ax``."""
    edges = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)], axis=1)
    colours = style.ordered(shares.shape[1])
    for i, colour in enumerate(colours):
        low, high = edges[:, i], edges[:, i + 1]
        area = ax.fill_between(x, low, high, color=colour, alpha=0.8, linewidth=0.4, label=labels[i])
        told(ax).marks.append(Marks("area", labels[i], colour, x, shares[:, i], low, high, artists=(area,)))
    centres = (edges[-1, 1:] + edges[-1, :-1]) / 2
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of the trace")
    ax.grid(visible=False)
    gap = 1.25 * _font_points(ax) / 72 / max(ax.bbox.height / ax.figure.dpi, 1e-6)
    for height, label, colour in zip(spread(centres.tolist(), gap), labels, colours, strict=True):
        ax.annotate(
            label,
            (1, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize="small",
            annotation_clip=False,
        )
    ax.set_label("course")
    return ax


def time_axis(ax: Axes, scale: Scale) -> None:
    """Training steps along x, with thousands separated; "log" keeps step 0."""
    if scale == "log":
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ax.xaxis.set_major_locator(SymmetricalLogLocator(linthresh=1, base=10))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))  # more of them touch where steps have five digits
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("training step")
    ax.margins(x=0.015)


def logarithmic(ax: Axes) -> None:
    """A logarithmic y axis with plain labels: decades as 10ⁿ, and 2 and 5 between them where the axis is short."""
    ax.set_yscale("log")
    ax.autoscale_view()
    low, high = (float(np.log10(v)) for v in ax.get_ylim())
    if high - low < 2:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def decade(value: float) -> str:
    """A tick of a logarithmic axis: plain where it is short, else 10ⁿ or 2·10ⁿ."""
    if value <= 0:
        return ""
    if 1e-3 < value < 1e5:
        return _tick(value)
    exponent = math.floor(math.log10(value) + 1e-9)
    lead = round(value / 10**exponent)
    power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{power}" if lead == 1 else f"{lead}·10{power}"


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}".replace("-", "−")


def label_ends(ax: Axes, x: Ints | Floats, series: Sequence[Series]) -> None:
    """Each line's label beside its last value, in its colour, pushed apart where they would overlap.

    A line that lies on an earlier one all along says so, for it hides it.
    """
    entries = []
    for one in series:
        known = np.flatnonzero(np.isfinite(one.values) & ((one.values > 0) | (ax.get_yscale() != "log")))
        if one.label and known.size:
            at = x if one.x is None else one.x
            entries.append((float(at[known[-1]]), float(one.values[known[-1]]), one))
    if not entries:
        return
    ax.autoscale_view()
    to_axes = ax.transScale + ax.transLimits
    heights = [float(to_axes.transform((at, value))[1]) for at, value, _ in entries]
    # One line of small text in axes fractions; figures are about 3 inches high whatever their width.
    gap = 1.25 * _font_points(ax) / 72 / max(ax.bbox.height / ax.figure.dpi, 1e-6)
    for i, (height, (_, _, one)) in enumerate(zip(spread(heights, gap), entries, strict=True)):
        under = next((other.label for _, _, other in entries[:i] if _coincide(ax, x, other, one)), "")
        ax.annotate(
            f"{one.label} (on {under})" if under else one.label,
            (1, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=one.colour,
            fontsize="small",
            annotation_clip=False,
        )


#: In parts of the axes: half of a line's width in an axes of three inches.
_SAME = 0.004


def _coincide(ax: Axes, x: Ints | Floats, first: Series, second: Series) -> bool:
    """Whether the second line lies on the first one wherever it has values."""
    at, other = (x if one.x is None else one.x for one in (first, second))
    known = np.isfinite(second.values)
    if len(at) != len(other) or not np.array_equal(at, other) or known.sum() < 2:
        return False
    to_axes = ax.transScale + ax.transLimits
    up = [to_axes.transform(np.column_stack([at, one.values])[known])[:, 1] for one in (first, second)]
    return bool(np.all(np.abs(up[0] - up[1]) < _SAME))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The nearest heights in the same order that keep ``gap`` between neighbours, and stay between 0 and 1 as far as all fit.

    >>> spread([0.5, 0.5], 0.2)
    [0.4, 0.6]
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[tuple[float, int]] = []  # mean of wanted centres, members: blocks merge until none touch

    def touch() -> bool:
        (below, under), (above, over) = blocks[-2:]
        apart = _within(above, over, gap) - _within(below, under, gap)
        return apart < gap * (under + over) / 2 - _TOUCHING

    for i in order:
        blocks.append((min(max(heights[i], 0.0), 1.0), 1))
        while len(blocks) > 1 and touch():
            centre, size = blocks.pop()
            left, count = blocks.pop()
            blocks.append(((left * count + centre * size) / (count + size), count + size))
    placed = [_within(c, n, gap) + gap * (j - (n - 1) / 2) for c, n in blocks for j in range(n)]
    result = [0.0] * len(heights)
    for i, height in zip(order, placed, strict=True):
        result[i] = height
    return result


#: Blocks this near to each other's edge touch: what rounding leaves is no overlap.
_TOUCHING = 1e-12


def _within(centre: float, members: int, gap: float) -> float:
    """The centre of a block moved so far that none of it leaves the axes."""
    half = gap * (members - 1) / 2
    return min(max(centre, half), 1 - half) if half <= 0.5 else 0.5


def _font_points(ax: Axes) -> float:
    return float(ax.yaxis.label.get_fontsize())
