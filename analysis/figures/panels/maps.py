"""Maps: a quantity between all pairs of moments or classes, and a quantity over modes and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...trajectory import Floats, Ints
from ..style import Style
from .courses import Scale, decade, time_axis
from .told import Cells, told

#: Magnitudes from dark to light; what has a sign takes the diverging map of the pictures.
MAGNITUDES, SIGNED = "cividis", "RdBu_r"
#: The id of a map's image in an SVG: the page keeps its cells sharp however large they are shown, unlike a picture's pixels.
CELLS = "cells"
#: Dots across the widest map: of two moments in one of them a drawing shows one, and drawing both takes twice the time.
_PIXELS = 1400


def heat_map(
    ax: Axes,
    values: Floats,
    style: Style,
    *,
    labels: Sequence[str],
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    axis: str = "training step",
    bar_label: str = "",
) -> Axes:
    """A symmetric matrix of values with the moments' labels on both axes; returns ``ax``."""
    image = ax.imshow(values, cmap=MAGNITUDES, vmin=limits[0], vmax=limits[1], origin="lower", interpolation="none")
    ticks = np.unique(np.linspace(0, len(labels) - 1, min(6, len(labels))).round().astype(int))
    ax.set_xticks(ticks, [labels[i] for i in ticks])
    ax.set_yticks(ticks, [labels[i] for i in ticks])
    _frame(ax, style, axis, axis, title)
    told(ax).cells = Cells.square(values, labels, labels)
    _bar(ax, image, style, bar_label)
    image.set_gid(CELLS)
    return ax


def block_map(
    ax: Axes,
    values: Floats,
    style: Style,
    *,
    title: str,
    limits: tuple[float, float],
    bar: bool,
    xlabel: str,
    ylabel: str,
) -> Axes:
    """A small matrix, cell by cell, classes counted from 0 on both axes; returns ``ax``."""
    image = ax.imshow(
        values, cmap=SIGNED if limits[0] < 0 else MAGNITUDES, vmin=limits[0], vmax=limits[1], interpolation="none"
    )
    ticks = np.arange(0, len(values), max(1, -(-len(values) // 10)))
    ax.set_xticks(ticks, [str(i) for i in ticks])
    ax.set_yticks(ticks, [str(i) for i in ticks])
    _frame(ax, style, xlabel, ylabel, title)
    names = [f"{xlabel} {i}" for i in range(len(values))]
    told(ax).cells = Cells.square(values, names, names)
    image.set_gid(CELLS)
    if bar:
        _bar(ax, image, style, "")
    return ax


def named_map(
    ax: Axes,
    values: Floats,
    style: Style,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limit: float,
    bar_label: str,
) -> Axes:
    """Signed values (R, C) in rows of names, the first on top, over moments; returns ``ax``.

    Colours are even up to ±limit and logarithmic beyond it, as far as the values go and at least to four times the limit.
    """
    known = np.abs(values[np.isfinite(values)])
    top = max(4 * limit, float(known.max(initial=0.0)))
    norm = SymLogNorm(limit, vmin=-top, vmax=top)
    image = ax.imshow(values, cmap=SIGNED, norm=norm, aspect="auto", interpolation="none")
    ticks = np.unique(np.linspace(0, len(columns) - 1, min(6, len(columns))).round().astype(int))
    ax.set_xticks(ticks, [columns[i] for i in ticks])
    ax.set_yticks(range(len(rows)), list(rows))
    _frame(ax, style, "training step", "", title)
    told(ax).cells = Cells.square(values, rows, columns)
    image.set_gid(CELLS)
    bar = _bar(ax, image, style, bar_label)
    above = [limit * factor for factor in (1, 4, 20, 100, 1000) if limit * factor <= top]
    levels = [*(-v for v in reversed(above)), 0.0, *above]
    bar.set_ticks(levels, labels=[f"{v:,.0f}".replace("-", "−") for v in levels])
    bar.ax.minorticks_off()
    bar.ax.axhline(limit, color=style.ink, linewidth=1)
    return ax


def mode_time_map(
    ax: Axes, steps: Ints, values: Floats, style: Style, *, title: str, x: Scale, bar_label: str, floor: Floats
) -> Axes:
    """Positive values (S, modes) as colour over time and mode index, both from their edges; returns ``ax``.

    Args:
        ax: where to draw.
        steps: (S,) ascending.
        values: (S, modes).
        style: the look.
        title: above it.
        x: the time axis.
        bar_label: beside the colour bar.
        floor: (S,) below which a value is rounding; it is left white.
    """
    kept = _a_pixel_each(steps, x)
    steps, values, floor = steps[kept], values[kept], floor[kept]
    shown = np.where(values > np.maximum(floor, 0)[:, None], values, np.nan)
    known = shown[np.isfinite(shown)]
    across = _edges(steps.astype(np.float64), x)
    up = np.arange(values.shape[1] + 1) + 1.0
    told(ax).cells = Cells(
        shown.T,
        [f"mode {i:,}" for i in range(1, len(up))],
        [f"step {step:,}" for step in steps],
        np.column_stack([across[:-1], across[1:]]),
        np.column_stack([up[:-1], up[1:]]),
    )
    norm = LogNorm(float(known.min()), float(known.max())) if known.size else Normalize(0, 1)
    mesh = ax.pcolormesh(across, up, shown.T, cmap=MAGNITUDES, norm=norm, rasterized=True)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    time_axis(ax, x)
    _frame(ax, style, "training step", "mode i", title)
    bar = _bar(ax, mesh, style, bar_label)
    bar.formatter = FuncFormatter(lambda value, _: decade(value))
    return ax


def _a_pixel_each(steps: Ints, scale: Scale) -> Ints:
    """Which of very many moments are drawn: the last in each of :data:`_PIXELS` equal parts of the axis that has any."""
    if len(steps) <= _PIXELS:
        return np.arange(len(steps))
    at = np.log1p(steps - steps[0]) if scale == "log" else (steps - steps[0]).astype(np.float64)
    part = np.floor(at / at[-1] * (_PIXELS - 1)).astype(np.int64)
    return np.flatnonzero(np.append(part[1:] != part[:-1], True))


def _edges(places: Floats, scale: Scale) -> Floats:
    """Cell borders halfway between places (in log(1 + t) on a logarithmic axis); the outer cells are as wide inside."""
    if len(places) < 2:
        return np.array([places[0] - 0.5, places[0] + 0.5])
    at = np.log1p(places) if scale == "log" else places
    middles = (at[1:] + at[:-1]) / 2
    edges = np.concatenate([[2 * at[0] - middles[0]], middles, [2 * at[-1] - middles[-1]]])
    edges[0] = max(edges[0], 0.0) if places[0] >= 0 else edges[0]
    return np.asarray(np.expm1(edges) if scale == "log" else edges)


def _frame(ax: Axes, style: Style, xlabel: str, ylabel: str, title: str) -> None:
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title, fontweight="normal", color=style.ink)
    ax.set_label("map")


def _bar(ax: Axes, drawn: ScalarMappable, style: Style, label: str) -> Colorbar:
    figure = ax.figure
    assert isinstance(figure, Figure)
    bar = figure.colorbar(drawn, ax=ax, shrink=0.9, pad=0.02, aspect=24)
    bar.ax.spines["outline"].set_visible(False)
    bar.ax.tick_params(length=2, color=style.muted)
    bar.set_label(label)
    return bar
