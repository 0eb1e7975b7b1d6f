"""Dials: sharpness three ways with its bound, what oscillates at it, and how lazy or rich a run is."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ...derived import alignment_order
from ...derived import oscillation as oscillation_of
from ...text import subscript
from ..layout import layer_names, over_time, sheet
from ..panels import Marks, Series, mark_changes, told
from ..registry import Scene, figure

_RAW = {"gauss_newton_sharpness": "Gauss–Newton", "hessian_sharpness": "Hessian", "batch_sharpness": "batch"}
_SCALED = {
    "stability_ratio": "ρ, Gauss–Newton",
    "hessian_stability_ratio": "Hessian",
    "batch_stability_ratio": "batch",
    "one_step_criterion": "q/2, the real update",
    "one_step_criterion_batch": "q/2 on its batch",
}
_MEASURE = "Measure them: NTKTracker(loss=..., observables=['default', 'hessian_sharpness', 'batch_sharpness', ...])."


@figure(
    "sharpness",
    "Sharpness: Gauss–Newton, Hessian, and batches along their gradients",
    "Left: λ₁ of the Gauss–Newton matrix and of the whole Hessian of the loss on the probe, and the curvature of training "
    "batches along their own gradients with its standard error over batches; dashed where the first of them would be at the "
    "edge of stability. Right: the same in the optimizer's metric over its threshold, and half of q = −uᵀHu/(gᵀu) of the real "
    "update u, on the probe and on the batch it was made from: above 1 that loss's quadratic model rises. "
    "With momentum q judges one step.",
    section="spectrum",
)
def sharpness(scene: Scene) -> Figure:
    """The trio raw, and over its bound."""
    asked = {name: label for name, label in _RAW.items() if name != "gauss_newton_sharpness"}
    scene.lines_of(
        {**asked, "one_step_criterion": "q", "one_step_criterion_batch": "q"}, figure="sharpness", remedy=_MEASURE
    )
    page, axes = sheet(scene, 1, 2, height=0.46)
    raw = _lines(scene, _RAW)
    bound, top = _bound(scene, raw)
    over_time(scene, axes[0], [*raw, *bound], "sharpness", title="raw", labels=False, ylim=(0, top))
    _error_of_batches(scene, axes[0], raw)
    over_time(
        scene, axes[1], _lines(scene, _SCALED), "", title="over the bound of stability", labels=False, ylim=(0, None)
    )
    axes[1].axhline(1, color=scene.style.ink, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1.5)
    return page


def _lines(scene: Scene, names: dict[str, str]) -> list[Series]:
    """A line for each that the archive holds, in the colour of its place; q is halved, for its bound is 2."""
    found = []
    for (name, label), colour in zip(names.items(), scene.style.category, strict=False):
        if scene.run.has(name):
            half = 0.5 if name.startswith("one_step_criterion") else 1.0
            found.append(Series(label, half * scene.masked(name, why="the figure"), colour))
    return found


def _error_of_batches(scene: Scene, ax: Axes, lines: list[Series]) -> None:
    batch = next((one for one in lines if one.label == _RAW["batch_sharpness"]), None)
    if batch is None or not scene.run.has("batch_sharpness_error"):
        return
    error = scene.masked("batch_sharpness_error", why="the figure")
    known = np.isfinite(batch.values + error)
    steps, values, error = scene.run.steps[known], batch.values[known], error[known]
    low, high = values - error, values + error
    area = ax.fill_between(steps, low, high, color=batch.colour, alpha=0.2, linewidth=0)
    line = next(one for one in ax.lines if one.get_label() == batch.label)
    told(ax).marks.append(Marks("band", batch.label, batch.colour, steps, values, low, high, artists=(area, line)))


def _bound(scene: Scene, lines: list[Series]) -> tuple[list[Series], float | None]:
    """Where Gauss–Newton's λ₁ would be at the edge, what it is over ρ, and where the axes must end for it; nothing and None."""
    if not scene.run.has("gauss_newton_sharpness", "stability_ratio"):
        return [], None
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = scene.masked("gauss_newton_sharpness", why="the figure") / scene.masked(
            "stability_ratio", why="the figure"
        )
    known = np.isfinite(bound) & (bound > 0)
    top = max(float(np.nanmax(line.values, initial=0.0)) for line in lines)
    if not known.any() or bound[known].min() >= 5 * top:  # a bound far above leaves the curves no room
        return [], None
    line = Series("bound", bound[known], scene.style.ink, "dashed", scene.run.steps[known], steps=True)
    return [line], 1.08 * max(top, float(min(bound[known].max(), 3 * top)))


@figure(
    "oscillation",
    "What goes to and fro at the edge of stability",
    "Of every three states in a row. Left: the part of the probe's loss that oscillates with period 2, as the losses show it and "
    "as ½ tr(SΣ) predicts it, beside the loss itself. Right: the share of each of the first modes in the oscillation of the "
    "outputs.",
    "outputs",
    "eigenvectors",
    "probe_loss",
    section="spectrum",
)
def oscillation(scene: Scene) -> Figure:
    """Excess loss and modes of each triple."""
    found, style = oscillation_of(scene.run), scene.style
    page, axes = sheet(scene, 1, 2, height=0.46)
    at = found.steps
    parts = [
        Series("predicted", found.excess, style.category[0], x=at),
        Series("seen", np.where(found.seen > 0, found.seen, np.nan), style.category[1], "dotted", x=at),
        Series("loss", scene.masked("probe_loss", why="the figure"), style.ink, "dashed"),
    ]
    over_time(scene, axes[0], parts, "loss", y="log", labels=False)
    modes, colours = found.modes.shape[1], style.ordered(found.modes.shape[1])
    lines = [Series(f"v{subscript(i + 1)}", found.modes[:, i], colours[i], x=at) for i in range(modes)]
    over_time(scene, axes[1], lines, "share of the oscillation", labels=False, ylim=(0, 1))
    return page


@figure(
    "edge-swing",
    "The swing that holds the sharpness at the edge of stability",
    "Of every three states in a row at which exactly one mode is at the edge: the square of the parameters' swing along it, and "
    "the one at which the sharpness would stand still. Where they part, the sharpness rises (seen below) or falls.",
    "edge_swing",
    "edge_swing_predicted",
    section="spectrum",
)
def edge_swing(scene: Scene) -> Figure:
    """Both on one axis."""
    page, axes = sheet(scene, 1, 1)
    lines = _lines(scene, {"edge_swing": "seen", "edge_swing_predicted": "in balance"})
    over_time(scene, axes[0], lines, "⟨u, δ⟩²", labels=False, y="log")
    return page


@figure(
    "lazy-rich",
    "Lazy or rich: kernel, weights, hidden neurons, and which came first",
    "Upper left: how far the kernel has turned, and what the network linearised at the start misses of the outputs' way. Upper "
    "right: ‖W_t − W_0‖₂/‖W_0‖₂ of each layer. Lower left: root mean square change of a hidden neuron. Lower right: alignment "
    "over its last value and loss over its first, where these are above zero, with t_A and t_L, where the one has nine tenths "
    "and the other has lost one.",
    "weight_spectral_change",
    section="motion",
)
def lazy_rich(scene: Scene) -> Figure:
    """Four dials."""
    page, axes = sheet(scene, 2, 2, height=0.86)
    names = {"kernel_distance_from_initial": "1 − cosine", "anchored_linearization_error": "linearisation"}
    moved = [
        Series(label, scene.masked(name, why="the figure"), scene.style.category[i])
        for i, (name, label) in enumerate(names.items())
        if scene.run.has(name)
    ]
    over_time(scene, axes[0], moved, "", title="kernel and outputs", labels=False, ylim=(0, None))
    _by_layer(scene, axes[1], "weight_spectral_change", "‖ΔW‖₂ / ‖W₀‖₂")
    _by_layer(scene, axes[2], "activation_neuron_deviation", "RMS Δh of a neuron")
    _which_came_first(scene, axes[3])
    return page


def _by_layer(scene: Scene, ax: Axes, name: str, title: str) -> None:
    """A line for each layer that has the number; an empty panel, which says so, where none has."""
    if not scene.run.has(name):
        _not_measured(scene, ax, title)
        return
    values = scene.masked(name, why="the figure")
    shown = [i for i in range(values.shape[1]) if np.isfinite(values[:, i]).any()]
    labels, colours = layer_names(scene.run, values.shape[1]), scene.style.ordered(len(shown))
    lines = [Series(labels[i], values[:, i], colour) for i, colour in zip(shown, colours, strict=True)]
    over_time(scene, ax, lines, "", title=title, labels=False, ylim=(0, None))


def _not_measured(scene: Scene, ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.annotate("not measured", (0.5, 0.5), xycoords="axes fraction", ha="center", color=scene.style.muted)


def _which_came_first(scene: Scene, ax: Axes) -> None:
    """Alignment over its last value, loss over its first."""
    lines = []
    for i, (name, label, place) in enumerate((("kernel_target_alignment", "alignment", -1), ("probe_loss", "loss", 0))):
        if scene.run.has(name):
            values = scene.masked(name, why="the figure")
            known = values[np.isfinite(values)]
            if known.size and known[place] > 0:  # a part of what is not above zero says nothing
                lines.append(Series(label, values / known[place], scene.style.category[i]))
    if not lines:
        _not_measured(scene, ax, "alignment, and loss")
        return
    over_time(scene, ax, lines, "alignment, and loss", labels=False, ylim=(0, None))
    try:
        found = alignment_order(scene.run)
    except AnalysisError:
        return  # there is no order to mark, and the sentence says nothing either
    mark_changes(ax, [(found.aligned, "$t_A$"), (found.fallen, "$t_L$")], scene.style)
