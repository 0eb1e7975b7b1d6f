"""The spectrum over time: eigenvalues, their scaled form, the edge of stability, rank (NSA, Figs. 2a to 2d)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...derived import followed, representative_rows, speeds
from ...text import subscript
from ...trajectory import Floats, Ints
from ..layout import from_control, over_time, sheet, steps_text
from ..panels import Series, mark_changes, mode_time_map, profiles
from ..registry import Scene, figure


@figure(
    "eigenvalues",
    "Eigenvalues over training",
    "Eigenvalues λᵢ of the un-normalised kernel on the probe, for a few i, on a logarithmic axis. Vertical lines mark "
    "learning-rate changes.",
    "eigenvalues",
    section="spectrum",
)
def eigenvalues(scene: Scene) -> Figure:
    """λ_i^t."""
    values, chosen = scene.masked("eigenvalues", why="the figure"), followed(scene.run)
    page, (ax,) = sheet(scene, height=0.45)
    colours = scene.style.ordered(len(chosen))
    lines = [Series(f"λ{subscript(i)}", values[:, i - 1], c) for i, c in zip(chosen, colours, strict=True)]
    over_time(scene, ax, lines, "eigenvalue λᵢ", y="log")
    return page


@figure(
    "scaled-eigenvalues",
    "Eigenvalues times the learning rate",
    "s η λᵢ / N with the learning rate η of each update and s from the loss (1 for the mean of ½(f − y)²): the share "
    "of mode i that one update takes. At 2 (dotted) gradient descent is at the edge of stability. Levels that stay put "
    "mean that λ grows as η falls.",
    "eigenvalues",
    "learning_rate",
    section="spectrum",
)
def scaled_eigenvalues(scene: Scene) -> Figure:
    """(η_t / N) λ_i^t."""
    chosen = followed(scene.run, 6)
    steps, values = _before_and_after(scene, speeds(scene.run, chosen))
    page, (ax,) = sheet(scene)
    colours = scene.style.ordered(len(chosen))
    over_time(
        scene,
        ax,
        [Series(f"i = {i}", values[:, j], colours[j], x=steps) for j, i in enumerate(chosen)],
        "η λᵢ / N",
        y="log",
    )
    ax.axhline(2, color=scene.style.ink, linewidth=1, linestyle=(0, (1, 2)))
    return page


def _before_and_after(scene: Scene, values: Floats) -> tuple[Ints, Floats]:
    """Add at every exact change what the state had at the old rate, so that a jump is drawn as one."""
    values = np.where(scene.run.measured[:, None], values, np.nan)
    exact = [change for change in scene.changes if change.exact and change.new[0]]
    rows = [change.before for change in exact]
    old = [values[change.before] * change.old[0] / change.new[0] for change in exact]
    return np.insert(scene.run.steps, rows, scene.run.steps[rows]), np.insert(
        values, rows, np.reshape(old, (-1, values.shape[1])), axis=0
    )


@figure(
    "stability",
    "The largest eigenvalue and the bound of stability",
    "λ₁ of the kernel against the value at which the next update would be at the edge of stability (2N/η for gradient "
    "descent on the mean of ½(f − y)²). Where the loss is no mean of squares, the sharpness against its own value at the edge. "
    "When the learning rate falls the bound rises; a control that kept the rate is dashed.",
    "eigenvalues",
    section="spectrum",
)
def stability(scene: Scene) -> Figure:
    """λ_1, or the sharpness, and its bound."""
    label, stored, column = _at_the_edge(scene)
    largest = scene.masked(stored, why="the figure")
    largest = largest if column is None else largest[:, column]
    ratio = scene.masked("stability_ratio", why="the figure") if column is None else None
    bound = scene.masked("stability_bound", why="the figure") if ratio is None else largest / ratio
    page, (ax,) = sheet(scene, height=0.45)
    lines = [
        Series(label, largest, scene.style.category[0]),
        *from_control(scene, stored, f"{label}, control", column=column),
    ]
    known = np.isfinite(bound) & (bound > 0)
    top = 1.12 * max(float(np.max(bound[known])), float(np.nanmax(largest)))
    # A rate that falls to nothing sends the bound to infinity, and λ₁ into the axis.
    steep = np.max(bound[known]) > 20 * np.nanmax(largest)
    low = 0.8 * min(float(np.min(bound[known])), float(np.nanmin(largest)))
    options: dict[str, Any] = {"y": "log", "ylim": (low, top)} if steep else {"ylim": (0, top)}
    at = scene.run.steps[known]
    lines.append(Series("bound", bound[known], scene.style.ink, "dashed", at, steps=True))
    over_time(scene, ax, lines, f"{label} and its bound", **options)
    return page


def _at_the_edge(scene: Scene) -> tuple[str, str, int | None]:
    """What is drawn against its bound: a name, what is stored of it, and its column there."""
    run = scene.run
    if not run.has("stability_bound") and run.has("gauss_newton_sharpness", "stability_ratio"):
        return "sharpness", "gauss_newton_sharpness", None
    return "λ₁", "eigenvalues", 0


@figure(
    "spectra",
    "The whole spectrum at a few moments",
    "All stored eigenvalues over their index on logarithmic axes, from dark (early) to light (late).",
    "eigenvalues",
    section="spectrum",
)
def spectra(scene: Scene) -> Figure:
    """λ_i over i."""
    run = scene.run
    rows = representative_rows(run, 5)
    values = run.values("eigenvalues")
    page, (ax,) = sheet(scene)
    colours = scene.style.ordered(len(rows))
    series = [
        Series(steps_text(run.steps[row]), np.where(values[row] > 0, values[row], np.nan), colour)
        for row, colour in zip(rows, colours, strict=True)
    ]
    index = np.arange(1, values.shape[1] + 1, dtype=np.float64)
    profiles(ax, index, series, scene.style, xlabel="mode i", ylabel="eigenvalue λᵢ", y="log")
    return page


@figure(
    "spectrum-map",
    "The whole spectrum over training",
    "Every stored eigenvalue as colour (logarithmic) over training time and mode index. What grows brightens to the "
    "right; eigenvalues at or below the noise floor are left blank.",
    "eigenvalues",
    section="spectrum",
)
def spectrum_map(scene: Scene) -> Figure:
    """λ_i^t as a heat map."""
    run = scene.run
    rows = np.flatnonzero(run.measured)
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    rows = rows[np.append(run.steps[rows][1:] != run.steps[rows][:-1], True)]
    floor = run.values("noise_floor")[rows] if run.has("noise_floor") else np.zeros(len(rows))
    page, (ax,) = sheet(scene, height=0.45)
    mode_time_map(
        ax,
        run.steps[rows],
        run.values("eigenvalues")[rows],
        scene.style,
        title="",
        x=scene.time,
        bar_label="λᵢ",
        floor=floor,
    )
    mark_changes(ax, scene.marks, scene.style)
    return page


@figure(
    "rank",
    "How many modes carry the kernel",
    "Effective rank (the exponential of the spectrum's entropy) and participation ratio ((Σλ)²/Σλ²) over training.",
    "effective_rank",
    "participation_ratio",
    section="spectrum",
)
def rank(scene: Scene) -> Figure:
    """Effective rank and participation ratio."""
    page, (ax,) = sheet(scene, height=0.36)
    lines = [
        Series("effective rank", scene.masked("effective_rank", why="the figure"), scene.style.category[0]),
        Series("participation ratio", scene.masked("participation_ratio", why="the figure"), scene.style.category[1]),
        *from_control(scene, "effective_rank", "effective rank, control"),
    ]
    over_time(scene, ax, lines, "modes", ylim=(0, None))
    return page
