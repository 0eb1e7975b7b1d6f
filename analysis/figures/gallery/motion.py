"""Losses, the three linearisation errors, and how far the kernel has moved."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ...derived import learned_modes, learned_shares, representative_rows, similarities
from ..layout import from_control, layer_names, moment_map, moments, over_time, sheet, steps_text
from ..panels import Series, bars, below, mark_changes, stacked, time_axis
from ..registry import Scene, figure

_LEDGER_MODES = 12
_MEASURE = "Measure them: NTKTracker(observables='default')."


@figure(
    "loss",
    "Loss",
    "Loss on the probe and, where it was recorded, of the training batch of the update that leaves each state; "
    "dashed: the control.",
    section="motion",
)
def loss(scene: Scene) -> Figure:
    """Probe loss and training loss."""
    lines = scene.lines_of(
        {"probe_loss": "probe", "training_loss": "training batch"},
        figure="loss",
        remedy="Tell the tracker the loss: NTKTracker(loss='half_mse' | 'mse' | 'cross_entropy' | callable).",
    )
    page, (ax,) = sheet(scene, height=0.36)
    over_time(scene, ax, [*lines, *from_control(scene, "probe_loss", "probe, control")], "loss", y="log")
    return page


@figure(
    "linearisation",
    "Three linearisation errors",
    "Squared relative errors. One update: of J Δθ against the real change of the outputs. Kernel flow: of −J P Jᵀ m/N "
    "against it. Anchored: of the network linearised at initialisation against the whole way travelled; far below 1 "
    "means lazy.",
    section="motion",
)
def linearisation(scene: Scene) -> Figure:
    """The three errors over time."""
    names = {
        "linearization_error": "one update",
        "kernel_flow_error": "kernel flow",
        "anchored_linearization_error": "anchored",
    }
    lines = scene.lines_of(names, figure="linearisation", remedy=_MEASURE)
    page, (ax,) = sheet(scene, height=0.4)
    over_time(scene, ax, lines, "squared relative error", y="log")
    return page


@figure(
    "kernel-motion",
    "How far the kernel has moved, and towards what",
    "Kernel distance from initialisation, 1 − cosine of the two kernels (blind to scale), and kernel–target "
    "alignment, beside what it is on average for permuted targets; dashed: the control.",
    section="motion",
)
def kernel_motion(scene: Scene) -> Figure:
    """Kernel distance and kernel–target alignment."""
    names = {
        "kernel_distance_from_initial": "distance from initialisation",
        "kernel_target_alignment": "kernel–target alignment",
        "kernel_target_alignment_null": "… of permuted targets",
    }
    lines = scene.lines_of(names, figure="kernel-motion", remedy=_MEASURE)
    first = next(name for name in names if scene.run.has(name))
    page, (ax,) = sheet(scene, height=0.36)
    over_time(scene, ax, [*lines, *from_control(scene, first, "control")], "", ylim=(0, None))
    return page


@figure(
    "angular-velocity",
    "How fast the kernel turns",
    "Angle between the kernels at t − Δ and t over Δ, in radians an update, at the one lag Δ of the run; nothing where no state "
    "was taken Δ updates earlier. At the edge of stability much of it is to and fro.",
    "kernel_angular_velocity",
    section="motion",
)
def angular_velocity(scene: Scene) -> Figure:
    """ω_Δ(t)."""
    page, (ax,) = sheet(scene, height=0.36)
    line = Series("ω", scene.masked("kernel_angular_velocity", why="the figure"), scene.style.category[0])
    over_time(scene, ax, [line, *from_control(scene, "kernel_angular_velocity", "control")], "rad per update", y="log")
    return page


@figure(
    "layer-shares",
    "Which layers carry the kernel",
    "Each layer's share of the kernel's trace, stacked from the first layer (bottom, dark) to the last (top, light). "
    "The shares add up to one.",
    "layer_share",
    section="motion",
)
def layer_shares(scene: Scene) -> Figure:
    """Tr Θ_l / tr Θ."""
    run = scene.run
    rows = np.flatnonzero(run.measured & np.isfinite(run.values("layer_share")).all(axis=1))
    shares = run.values("layer_share")[rows]
    carrying = np.flatnonzero(shares.any(axis=0))  # a layer that never trained has no band
    labels = [layer_names(run, shares.shape[1])[index] for index in carrying]
    shares = shares[:, carrying]
    page, (ax,) = sheet(scene, height=0.42)
    stacked(ax, run.steps[rows], shares, scene.style, labels=labels)
    time_axis(ax, scene.time)
    mark_changes(ax, scene.marks, scene.style)
    return page


@figure(
    "kernel-distances",
    "Kernel distance between all moments",
    "1 − cosine of the kernels at every pair of moments, from the stored eigenpairs: dark where the kernel stood still, "
    "light where it had turned. A dark square on the diagonal is a stretch in which training was linear. Moments are "
    "evenly spread over the snapshots, not over time.",
    "eigenvalues",
    "eigenvectors",
    section="motion",
)
def kernel_distances(scene: Scene) -> Figure:
    """1 − cos(Θ_s, Θ_t), the middle of its bounds."""
    rows = moments(scene, "a distance between moments")
    low, high = similarities(scene.run, rows)
    reach = float(np.max(high - low) / 2)
    # float32 eigenvectors alone are off by some 1e-6
    title = f"known to ± {reach:.1g}" if reach > 1e-4 else ""
    distances = 1 - (low + high) / 2
    limits = (0.0, float(np.max(distances)) or 1.0)
    return moment_map(scene, rows, distances, title=title, limits=limits, bar_label="1 − cosine")


@figure(
    "activations",
    "How far hidden neurons have moved",
    "Left: root mean square deviation of a single neuron of each layer from its value at initialisation. Right: the "
    "deviation of the layer as a whole, the norm of its vector of activations. In a wide lazy network the first "
    "vanishes and the second does not.",
    "activation_neuron_deviation",
    "activation_layer_deviation",
    section="motion",
)
def activations(scene: Scene) -> Figure:
    """Deviations per neuron and per layer."""
    names = (("activation_neuron_deviation", "one neuron (RMS)"), ("activation_layer_deviation", "whole layer (norm)"))
    page, axes = sheet(scene, 1, 2, height=0.42)
    for ax, (name, title) in zip(axes, names, strict=True):
        values = scene.masked(name, why="the figure")
        shown = [i for i in range(values.shape[1]) if np.isfinite(values[:, i]).any()]
        colours, labels = scene.style.ordered(len(shown)), layer_names(scene.run, values.shape[1])
        lines = [Series(labels[i], values[:, i], c) for i, c in zip(shown, colours, strict=True)]
        over_time(scene, ax, lines, "deviation", title=title, labels=False)
    return page


@figure(
    "ledger",
    "Who learned what, when",
    "The real change of the outputs in the update that leaves each snapshot, split into kernel gradient flow, what "
    "optimizer and minibatch made of it, and the network's curvature. Each part is given as the share of the residual "
    "that it took off (negative where it added to it), summed over modes: left the whole, right kernel flow alone, by "
    "layer.",
    "ledger_kernel_flow",
    "ledger_remainder",
    "ledger_curvature",
    "residual_coefficients",
    section="motion",
)
def ledger(scene: Scene) -> Figure:
    """−⟨part, m⟩/‖m‖² of the three parts, and of kernel flow by layer."""
    run, style = scene.run, scene.style
    parts, by_layer = learned_shares(run)
    page, axes = sheet(scene, 1, 2, height=0.46)
    names = ("kernel flow", "optimizer", "curvature")
    lines = [Series(n, parts[:, i], style.category[i]) for i, n in enumerate(names)]
    lines.append(Series("all", parts.sum(axis=1), style.ink, "dashed"))
    over_time(scene, axes[0], lines, "share of the residual", title="by cause", labels=False)
    labels, colours = layer_names(run, by_layer.shape[1]), style.ordered(by_layer.shape[1])
    layers = [Series(labels[i], by_layer[:, i], c) for i, c in enumerate(colours)]
    over_time(scene, axes[1], layers, "", title="flow by layer", labels=False)
    return page


@figure(
    "ledger-modes",
    "What one update did, mode by mode",
    "The same split along the leading modes, at the first, a middle and the last snapshot: how much of the residual each "
    "part took off along each mode, as a share of the whole residual. Bars above zero learned, bars below unlearned.",
    "ledger_kernel_flow",
    "ledger_remainder",
    "ledger_curvature",
    "residual_coefficients",
    section="motion",
)
def ledger_modes(scene: Scene) -> Figure:
    """−⟨part_i, m_i⟩/‖m‖² for the first modes."""
    run, style = scene.run, scene.style
    rows = [row for row in representative_rows(run, 1000) if np.isfinite(run.at("ledger_curvature", row)).any()]
    rows = [rows[i] for i in sorted({0, len(rows) // 2, len(rows) - 1})]
    page, axes = sheet(scene, 1, len(rows), height=0.4)
    for ax, row in zip(axes, rows, strict=True):
        learned = learned_modes(run, row)[:, :_LEDGER_MODES]
        names = ("kernel flow", "optimizer and minibatch", "curvature")
        bars(ax, learned, style, labels=names, title=steps_text(run.steps[row]), xlabel="mode i")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}".replace("-", "−")))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_ylabel("share of the residual")
    below(axes[0])
    return page
