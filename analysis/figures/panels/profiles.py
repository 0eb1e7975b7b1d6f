"""Profiles: quantities over the index of a mode or the number of modes, at a few moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ...trajectory import Floats, Ints
from ..style import Style
from .courses import Scale, Series, decade, draw, label_ends, logarithmic
from .told import Marks, Spot, told


def profiles(
    ax: Axes,
    index: Floats,
    series: Sequence[Series],
    style: Style,
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    y: Scale = "linear",
    ylim: tuple[float | None, float | None] = (None, None),
    legend: bool = True,
) -> Axes:
    """Lines over a logarithmic mode index, with a legend; returns ``ax``."""
    for one in series:
        draw(ax, index, one)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if y == "log":
        logarithmic(ax)
    ax.set_ylim(*ylim)
    ax.margins(x=0.015)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    if legend and len(series) > 1:
        below(ax)
    ax.set_label("profile")
    return ax


def functions(ax: Axes, x: Floats, series: Sequence[Series], style: Style, *, title: str = "") -> Axes:
    """Functions of one input (N,), in any order, as lines named at their ends; returns ``ax``."""
    order = np.argsort(x, kind="stable")
    lines = [replace(one, values=one.values[order]) for one in series]
    for one in lines:
        draw(ax, x[order], one)
    ax.axhline(0, color=style.muted, linewidth=0.8, zorder=1)
    ax.margins(x=0.015)
    ax.set_xlabel("input x")
    ax.set_title(title)
    label_ends(ax, x[order], lines)
    ax.set_label("profile")
    return ax


def scatter_factors(
    ax: Axes,
    index: Floats,
    predicted: Floats,
    measured: Floats,
    old: Floats,
    share: Floats,
    style: Style,
    *,
    title: str = "",
) -> Axes:
    """Factors of one update along each mode: predicted (line), measured (circles), and at the old rate (dotted).

    ``share`` is each mode's part of the residual's energy: it sets the area of the circles.
    """
    ax.plot(index, old, color=style.muted, linestyle=(0, (1, 1.6)), linewidth=1.2, label="old rate, predicted")
    ax.plot(index, predicted, color=style.category[0], label="new rate, predicted")
    # A mode that holds no residual has a ratio of two roundings: the area of a circle says how much it holds.
    area = 6 + 150 * np.sqrt(share / max(float(share.max(initial=0.0)), np.finfo(np.float64).tiny))
    colour, label = style.category[1], "new rate, measured"
    dots = ax.scatter(index, measured, s=area, facecolor="none", edgecolor=colour, linewidth=1.2, zorder=3, label=label)
    told(ax).marks.append(Marks("dots", label, colour, index, measured, sizes=np.sqrt(area / np.pi), artists=(dots,)))
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("mode i")
    ax.set_ylabel("factor in one update")
    ax.set_title(title)
    below(ax)
    ax.set_label("profile")
    return ax


def slopes(ax: Axes, x: Floats, values: Floats, style: Style, *, slope: float, intercept: float, text: str) -> Axes:
    """Points (one per run) on logarithmic axes and the power law exp(intercept) x^slope, if any; returns ``ax``."""
    if np.isfinite(slope):
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, np.exp(intercept) * ends**slope, color=style.category[1], linewidth=1.3, label="power law")
        ax.annotate(
            f"slope {text}",
            (1, 1),
            xycoords="axes fraction",
            xytext=(-2, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
            color=style.category[1],
        )
    ax.plot(
        x,
        values,
        linestyle="",
        marker="o",
        markersize=4.5,
        markerfacecolor="none",
        color=style.category[0],
        markeredgewidth=1.1,
        label="runs",
    )
    ax.set_xscale("log")
    if np.all(values > 0):
        ax.set_yscale("log")
        # a slope is read off an axis that is not all blown up around a constant
        low, high = values.min(), values.max()
        middle, reach = np.sqrt(low * high), max(np.sqrt(high / low), 1.5) * 1.15
        ax.set_ylim(middle / reach, middle * reach)
        narrow = reach < 2
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if narrow else (1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xticks(np.unique(x), [f"{v:,g}" for v in np.unique(x)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.12)
    ax.set_label("slopes")
    return ax


def bars(ax: Axes, values: Floats, style: Style, *, labels: Sequence[str], title: str, xlabel: str) -> Axes:
    """Parts (parts, modes) as bars on both sides of zero: what is above adds up above; returns ``ax``."""
    index = np.arange(1, values.shape[1] + 1)
    high, low = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for part, label, colour in zip(values, labels, style.category, strict=False):
        base = np.where(part >= 0, high, low)
        ax.bar(index, part, bottom=base, color=colour, label=label, width=0.75)
        high, low = high + np.maximum(part, 0), low + np.minimum(part, 0)
    ax.axhline(0, color=style.muted, linewidth=0.8)
    ax.set_xlabel(xlabel)
    ax.set_title(title)
    told(ax).spots += [
        Spot(
            (i - 0.375, i + 0.375),
            (float(bottom), float(top)),
            f"{xlabel.removesuffix(' i')} {i}",
            tuple((label, float(v), c) for label, v, c in zip(labels, column, style.category, strict=False)),
        )
        for i, bottom, top, column in zip(index.tolist(), low, high, values.T, strict=True)
    ]
    ax.set_label("bars")
    return ax


def learning(
    ax: Axes, points: Ints, predicted: Sequence[Series], measured: Sequence[tuple[Floats, Floats]], style: Style
) -> Axes:
    """Errors over the number of points: lines of what is predicted, dots and bars of what was measured; returns ``ax``."""
    for one, (mean, spread) in zip(predicted, measured, strict=True):
        draw(ax, points, one)
        bar = ax.errorbar(points, mean, yerr=spread, fmt="o", color=one.colour, markersize=4, linewidth=1)
        artists, label = tuple(bar.get_children()), f"{one.label}, measured"
        ends = (mean - spread, mean + spread)
        told(ax).marks.append(Marks("dots", label, one.colour, points, mean, *ends, artists=artists))
    ax.set_xscale("log")
    ax.set_xticks(points, [f"{n:,}" for n in points])
    ax.xaxis.set_minor_locator(NullLocator())
    logarithmic(ax)
    ax.set_xlabel("points n")
    ax.set_ylabel("squared error over ‖y‖²")
    below(ax)
    ax.set_label("profile")
    return ax


def ranked(
    ax: Axes,
    names: Sequence[str],
    heights: Floats,
    marks: Floats,
    style: Style,
    *,
    ylabel: str,
    labels: tuple[str, str],
    noun: str,
) -> Axes:
    """One bar a name, in the order given, with a second number as a ring; returns ``ax``."""
    index = np.arange(len(names))
    ax.bar(index, heights, color=style.category[0], width=0.7)
    ax.scatter(index, marks, facecolors="none", edgecolors=style.ink, s=22, zorder=3)
    ax.set_xticks(index, list(names))
    ax.set_ylabel(ylabel)
    colours = (style.category[0], style.ink)
    told(ax).spots += [
        Spot(
            (i - 0.35, i + 0.35),
            (0.0, float(both[0])),
            f"{noun} {name}",
            tuple((label, float(v), c) for label, v, c in zip(labels, both, colours, strict=True)),
        )
        for i, (name, both) in enumerate(zip(names, zip(heights, marks, strict=True), strict=True))
    ]
    ax.set_label("ranked")
    return ax


def below(ax: Axes) -> None:
    """One legend under the whole figure, where no line can run through it; panels that share their labels share it."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    handles, labels = ax.get_legend_handles_labels()
    if figure.legends:
        return
    # In em: text is about 0.55 wide per letter, a handle with its gaps 3.5.
    room = figure.get_figwidth() * 72 / float(ax.yaxis.label.get_fontsize())
    columns = max(1, min(len(labels), int(room / (0.55 * max(map(len, labels)) + 3.5))))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=1.6, columnspacing=1.4)
