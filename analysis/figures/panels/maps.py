"""Maps: a quantity between all pairs of moments or classes, and a quantity over modes and time."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...trajectory import Floats, Ints
from ..style import Style
from .courses import Scale, decade, time_axis

#: Magnitudes from dark to light; what has a sign takes the diverging map of the pictures.
MAGNITUDES, SIGNED = "cividis", "RdBu_r"


#: What the rows and columns of a map stand for, for the value under the pointer.
_CELLS: WeakKeyDictionary[Axes, tuple[list[str], list[str]]] = WeakKeyDictionary()


def cell_names(ax: Axes) -> tuple[list[str], list[str]]:
    """Names of the rows and of the columns of the map drawn on ``ax``."""
    return _CELLS[ax]


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
    _CELLS[ax] = list(labels), list(labels)
    _bar(ax, image, style, bar_label)
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
    _CELLS[ax] = names, names
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
    """Signed values (R, C) in rows of names, the first on top, over moments; colours end at ±limit; returns ``ax``."""
    image = ax.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    ticks = np.unique(np.linspace(0, len(columns) - 1, min(6, len(columns))).round().astype(int))
    ax.set_xticks(ticks, [columns[i] for i in ticks])
    ax.set_yticks(range(len(rows)), list(rows))
    _frame(ax, style, "training step", "", title)
    _CELLS[ax] = list(rows), list(columns)
    _bar(ax, image, style, bar_label).ax.axhline(5, color=style.ink, linewidth=1)
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
    shown = np.where(values > np.maximum(floor, 0)[:, None], values, np.nan)
    known = shown[np.isfinite(shown)]
    across = _edges(steps.astype(np.float64), x)
    up = np.arange(values.shape[1] + 1) + 1.0
    norm = LogNorm(float(known.min()), float(known.max())) if known.size else Normalize(0, 1)
    mesh = ax.pcolormesh(across, up, shown.T, cmap=MAGNITUDES, norm=norm, rasterized=True)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    time_axis(ax, x)
    _frame(ax, style, "training step", "mode i", title)
    bar = _bar(ax, mesh, style, bar_label)
    bar.formatter = FuncFormatter(lambda value, _: decade(value))
    return ax


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
