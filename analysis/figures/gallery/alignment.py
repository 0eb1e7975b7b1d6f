"""Where target, output and residual lie along the eigenfunctions (NSA, Figs. 2e, 2f, 3 and 4)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...derived import Function, energy_profile, nearest_k, representative_rows
from ...trajectory import Floats
from ..layout import over_time, sheet, steps_text
from ..panels import Series, profiles
from ..registry import Scene, figure

_FEW = (5, 20, 100, 400)


def _energies_over_time(scene: Scene, function: Function, symbol: str) -> Figure:
    run, name = scene.run, f"{function}_energy"
    energies = scene.masked(name, why="the figure")
    grid = run.values("energy_k").astype(int)
    shown = [i for i in nearest_k(run, _FEW) if grid[i] < run.dimension]
    colours = scene.style.ordered(len(shown))
    page, (ax,) = sheet(scene)
    over_time(
        scene,
        ax,
        [Series(f"k = {grid[i]}", energies[:, i], c) for i, c in zip(shown, colours, strict=True)],
        f"E({symbol}, k)",
        ylim=(0, 1.02),
    )
    for i, colour in zip(shown, colours, strict=True):
        for level, pattern in _nulls(scene, function, energies, i, int(grid[i])):
            if np.isfinite(level):
                ax.axhline(level, color=colour, linewidth=0.9, linestyle=pattern, alpha=0.75, zorder=1)
    return page


def _nulls(scene: Scene, function: Function, energies: Floats, i: int, k: int) -> list[tuple[float, object]]:
    """E_0 (dash-dot), permuted labels (dashed), k/(modes) (dotted), where they exist."""
    first = representative_rows(scene.run, 1)[0]
    nulls: list[tuple[float, object]] = [(k / scene.run.dimension, (0, (1, 2)))]
    if function == "target":
        nulls.append((float(energies[first, i]), (0, (6, 2, 1, 2))))
        if scene.run.has("target_energy_null"):
            nulls.append(
                (float(scene.run.values("target_energy_null")[representative_rows(scene.run, 2)[-1], i]), (0, (4, 3)))
            )
    return nulls


def _energy_figure(function: Function, symbol: str, caption: str) -> None:
    """Registers the figure of E(φ, k) over training for one function φ."""

    @figure(
        f"{function}-energy",
        f"How much of the {function} the top eigenfunctions hold",
        caption,
        f"{function}_energy",
        "energy_k",
        section="alignment",
    )
    def energy(scene: Scene) -> Figure:
        return _energies_over_time(scene, function, symbol)


_energy_figure(
    "target",
    "y",
    "Relative energy E(y, k) of the target in the span of the first k eigenvectors, over training. Thin lines are the "
    "nulls of the same colour: the value at the first snapshot (dash-dot), the mean over permuted labels at the last "
    "one (dashed), and k over the number of modes, what a random direction would have (dotted).",
)
_energy_figure(
    "output",
    "f",
    "Relative energy E(f, k) of the network's output in the span of the first k eigenvectors, over training; dotted: "
    "k over the number of modes, what a random direction would have.",
)
_energy_figure(
    "residual",
    "m",
    "Relative energy E(m, k) of the residual in the span of the first k eigenvectors, over training. What is learned "
    "leaves the top modes; what remains lies in the bottom ones. Dotted: k over the number of modes.",
)


@figure(
    "energy-curves",
    "Energy over the number of modes",
    "E(φ, k) for every k, at a few moments from dark (early) to light (late): left the target, right the output. "
    "Dotted: a random direction, k over the number of modes; dashed: permuted labels at the last snapshot.",
    "target_coefficients",
    "output_coefficients",
    section="alignment",
)
def energy_curves(scene: Scene) -> Figure:
    """E_t(y, k) and E_t(f, k) over k."""
    run, style = scene.run, scene.style
    rows = representative_rows(run, 5)
    page, axes = sheet(scene, 1, 2, height=0.48, sharey=True)
    functions: tuple[tuple[Function, str], ...] = (("target", "target y"), ("output", "output f"))
    for ax, (function, title) in zip(axes, functions, strict=True):
        curves = [energy_profile(run, function, row) for row in rows]
        index = np.arange(1, len(curves[0]) + 1, dtype=np.float64)
        series = [
            Series(steps_text(run.steps[row]), curve, colour)
            for row, curve, colour in zip(rows, curves, style.ordered(len(rows)), strict=True)
        ]
        series.append(Series("random direction", index / run.dimension, style.muted, "dotted"))
        if function == "target" and run.has("target_energy_null"):
            null = run.values("target_energy_null")[rows[-1]]
            series.append(Series("permuted labels", null, style.muted, "dashed", run.values("energy_k")))
        label = "E(φ, k)" if function == "target" else ""
        profiles(
            ax,
            index,
            series,
            style,
            xlabel="number of modes k",
            ylabel=label,
            title=title,
            ylim=(0, 1.02),
            legend=function == "target",
        )
    return page
