"""Several runs in one figure: a line per run, or per group of runs its mean and, from six runs on, their range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kerneltrack.errors import AnalysisError

from ...comparison import Comparison, Sweep, grouped, slope_text
from ...derived import nearest, title_of
from ...lr_decay import SeedEffects, quantities
from ...text import BAND_RUNS
from ..layout import blank, literal
from ..panels import Series, band, below, slopes, time_axis
from ..style import Style

_COLUMNS = 2


def runs_figure(comparison: Comparison, style: Style, *, group: str | None = None) -> Figure:
    """One panel per quantity over the common positions.

    Args:
        comparison: the runs side by side.
        style: the look.
        group: a metadata key; None draws every run for itself.

    Raises:
        AnalysisError: a run has no such key.
    """
    groups = {name: [i] for i, name in enumerate(comparison.runs)} if group is None else grouped(comparison, group)
    labels = [literal(label if group is None else f"{group} {label}") for label in groups]
    rows = -(-len(comparison.values) // _COLUMNS)
    page, axes = blank(style, rows, _COLUMNS if len(comparison.values) > 1 else 1, height=0.33 * rows + 0.06)
    for ax, (name, values) in zip(axes, comparison.values.items(), strict=False):
        for label, columns, colour in zip(labels, groups.values(), style.ordered(len(groups)), strict=True):
            _draw(ax, comparison.positions, values[:, columns], label, colour)
        _frame(ax, comparison, title_of(name))
    for ax in axes[len(comparison.values) :]:
        ax.set_axis_off()
    below(axes[0])
    return page


def sweep_figure(found: Sequence[Sweep], style: Style) -> Figure:
    """Each quantity over the number it was swept against, a point per run, and the fitted power law with its slope."""
    rows = -(-len(found) // _COLUMNS)
    page, axes = blank(style, rows, _COLUMNS if len(found) > 1 else 1, height=0.36 * rows + 0.04)
    for ax, one in zip(axes, found, strict=False):
        slopes(ax, one.x, one.values, style, slope=one.slope, intercept=one.intercept, text=slope_text(one))
        ax.set_title(title_of(one.name))
        ax.set_xlabel(literal(one.against))
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    return page


def seeds_figure(effects: SeedEffects, energy_k: tuple[int, ...], style: Style) -> Figure:
    """Run less control after a learning-rate change: a thin line per seed, their mean, and zero; four quantities.

    Raises:
        AnalysisError: run and control share none of the four.
    """
    k, labels = nearest(energy_k, 20), dict(quantities(energy_k))
    wanted = ("eigenvalue_1", f"residual_energy_{k}", f"target_energy_{k}", "effective_rank")
    shown = {name: found for name in wanted if (found := [d for d in effects.differences if d.name == name])}
    if not shown:
        raise AnalysisError("the paired differences over seeds", expected=f"one of {', '.join(wanted)}", got="none")
    page, axes = blank(style, 2, _COLUMNS, height=0.58)
    for ax, (name, found) in zip(axes, shown.items(), strict=False):
        offsets = np.array([d.offset for d in found])
        for i in range(len(effects.pairs)):
            ax.plot(
                offsets,
                [d.differences[i] for d in found],
                color=style.category[0],
                alpha=0.4,
                linewidth=1,
                label="one seed" if i == 0 else "_seed",
                marker=".",
                markersize=3,
            )
        ax.plot(
            offsets,
            [d.mean for d in found],
            color=style.category[1],
            label="mean over seeds",
            marker="o",
            markersize=3.5,
        )
        ax.axhline(0, color=style.muted, linewidth=0.8)
        time_axis(ax, "log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}".replace("-", "−")))
        ax.set_xlabel("updates since the change")
        ax.set_title(labels[name])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    axes[0].set_ylabel("run less control")
    below(axes[0])
    return page


def _draw(ax: Axes, positions: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    if values.shape[1] >= BAND_RUNS:
        mean, spread = values.mean(axis=1), values.std(axis=1, ddof=1)
        band(ax, positions, mean - spread, mean + spread, Series(label, mean, colour))
        return
    for i in range(values.shape[1]):
        ax.plot(positions, values[:, i], color=colour, label=label if i == 0 else f"_{label}", linewidth=1.2)


def _frame(ax: Axes, comparison: Comparison, title: str) -> None:
    ax.set_title(title)
    if comparison.by == "loss":
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_xlabel("loss reached")
        return
    if comparison.by == "flow_time":
        ax.set_xlabel("flow time: Ση times momentum's gain")
        return
    positions = comparison.positions
    time_axis(ax, "log" if len(positions) > 4 and positions[len(positions) // 2] < 0.1 * positions[-1] else "linear")
    ax.set_xlabel({"step": "training step", "epoch": "epoch", "samples": "training samples"}[comparison.by])
