"""Profiles: quantities over the index of a mode or the number of modes, at a few moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from ..style import Style
from ..trajectory import Floats
from .courses import Scale, Series, draw


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
) -> Axes:
    """Lines over a logarithmic mode index, with a legend; returns ``ax``."""
    for one in series:
        draw(ax, index, one)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if y == "log":
        ax.set_yscale("log")
    ax.set_ylim(*ylim)
    ax.margins(x=0.015)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    if len(series) > 1:
        ax.legend(loc="best", handlelength=1.6)
    ax.set_gid("profile")
    return ax


def scatter_factors(
    ax: Axes, index: Floats, predicted: Floats, measured: Floats, old: Floats, style: Style, *, title: str = ""
) -> Axes:
    """|factor| of one update along each mode: predicted as a line, measured as dots, the old rate's as a dotted line."""
    ax.plot(index, np.abs(old), color=style.muted, linestyle=(0, (1, 1.6)), linewidth=1.2, label="at the old rate, predicted")
    ax.plot(index, np.abs(predicted), color=style.category[0], label="|1 − η λᵢ/N| at the new rate, predicted")
    ax.plot(
        index, np.abs(measured), linestyle="", marker="o", markersize=4, markerfacecolor="none",
        markeredgecolor=style.category[1], label="measured over the first update",
    )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("mode i")
    ax.set_ylabel("factor of ⟨vᵢ, m⟩ in one update")
    ax.set_title(title)
    ax.legend(loc="lower right")
    ax.set_gid("profile")
    return ax
