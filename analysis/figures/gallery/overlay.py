"""Many runs in one figure, each at its own snapshots: coloured by a key, controls dashed, from six runs on mean and spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...comparison import Key, Overlay, mean_course
from ...derived import title_of
from ...text import BAND_RUNS
from ..layout import blank, literal
from ..panels import Series, band, logarithmic, time_axis
from ..style import Style

_COLUMNS = 2
#: Points of one line: enough for half a page's width.
_POINTS = 64
#: Entries of the legend; of more values the first and the last say how the colours run.
_ENTRIES = 8


def overlay_figure(found: Overlay, style: Style, key: Key, names: Sequence[str]) -> Figure:
    """One panel per quantity.

    Args:
        found: the runs.
        style: the look.
        key: what the runs are coloured by.
        names: the quantities.
    """
    rows, single = -(-len(names) // _COLUMNS), len(names) == 1
    page, axes = blank(style, rows, 1 if single else _COLUMNS, height=0.33 * rows + 0.06)
    colours = colours_of(key, style)
    for ax, name in zip(axes, names, strict=False):
        for value, colour in enumerate(colours):
            _group(ax, found, [i for i, one in enumerate(key.of) if one == value], name, colour)
        _frame(ax, found, name)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    _legend(page, key, colours, any(c.is_control for c in found.courses), style.muted)
    return page


def colours_of(key: Key, style: Style) -> list[str]:
    """One for each value: those of unordered series while there are enough of them, else those of ordered ones."""
    few = len(key.values) <= len(style.category) and not key.ordered
    return list(style.category[: len(key.values)]) if few else style.ordered(len(key.values))


def _group(ax: Axes, found: Overlay, members: Sequence[int], name: str, colour: str) -> None:
    """Runs of one value: their mean and spread from six on, else their lines; controls are lines of their own."""
    runs = [i for i in members if not found.courses[i].is_control]
    steps, mean, spread = mean_course(found, runs, name)
    if steps.size:
        band(ax, steps, mean - spread, mean + spread, Series("_mean", mean, colour))
    for i in members:
        if found.courses[i].is_control or not steps.size:
            _line(ax, found, i, name, colour)


def _line(ax: Axes, found: Overlay, i: int, name: str, colour: str) -> None:
    course = found.courses[i]
    known = np.flatnonzero(np.isfinite(course.values[name]))
    known = known[np.unique(np.linspace(0, len(known) - 1, min(_POINTS, len(known))).round().astype(int))]
    pattern = (0, (5, 2)) if course.is_control else "-"
    values = course.values[name][known]
    ax.plot(course.steps[known], values, color=colour, linestyle=pattern, linewidth=0.9, label=f"_{course.name}")


def _frame(ax: Axes, found: Overlay, name: str) -> None:
    ax.set_title(title_of(name))
    steps = np.concatenate([course.steps for course in found.courses])
    skewed = len(steps) > 4 and float(np.median(steps)) < 0.1 * float(steps.max())
    time_axis(ax, "log" if skewed else "linear")
    known = [line.get_ydata() for line in ax.lines]
    values = np.concatenate([np.asarray(one, dtype=np.float64) for one in known]) if known else np.ones(1)
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        logarithmic(ax)


def _legend(page: Figure, key: Key, colours: Sequence[str], controls: bool, muted: str) -> None:
    entries = [(f"{key.name} {value}".strip(), colour) for value, colour in zip(key.values, colours, strict=True)]
    shown = entries if len(entries) <= _ENTRIES else [entries[0], entries[-1]]
    runs = [key.of.count(i) for i in range(len(key.values))]
    handles = [Line2D([], [], color=colour, label=literal(text)) for text, colour in shown]
    if controls:
        handles.append(Line2D([], [], color=muted, linestyle=(0, (5, 2)), label="controls"))
    if max(runs) >= BAND_RUNS:
        handles.append(Line2D([], [], color=muted, linewidth=5, alpha=0.3, label="± standard deviation over runs"))
    page.legend(handles=handles, loc="outside lower center", ncols=4)
