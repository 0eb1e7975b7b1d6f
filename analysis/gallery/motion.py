"""Losses, the three linearisation errors, and how far the kernel has moved."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ..figures import Scene, figure
from ..panels import Series, mark_changes, stacked, time_axis
from ..text import plain
from .sheet import from_control, over_time, sheet


@figure(
    "loss", "Loss",
    "Loss on the probe and, where it was recorded, of the training batch of the update that leaves each state; "
    "dashed: the control.",
    section="motion",
)  # fmt: skip
def loss(scene: Scene) -> Figure:
    """Probe loss and training loss."""
    names = [("probe_loss", "probe"), ("training_loss", "training batch")]
    lines = [
        Series(label, scene.masked(name, why="the figure"), colour)
        for (name, label), colour in zip(names, scene.style.category, strict=False)
        if scene.run.has(name)
    ]
    if not lines:
        raise AnalysisError(
            "the figure 'loss' needs 'probe_loss' or 'training_loss', and the archive holds neither",
            remedy="Tell the tracker the loss: NTKTracker(loss='half_mse' | 'mse' | 'cross_entropy' | callable).",
        )
    page, (ax,) = sheet(scene, height=0.36)
    over_time(scene, ax, [*lines, *from_control(scene, "probe_loss", "probe, control")], "loss", y="log")
    return page


@figure(
    "linearisation", "Three linearisation errors",
    "Squared relative errors. One update: of J Δθ against the real change of the outputs. Kernel flow: of −J P Jᵀ "
    "m/N against it. "
    "Anchored: of the network linearised at initialisation against the whole way travelled; far below 1 means lazy.",
    section="motion",
)  # fmt: skip
def linearisation(scene: Scene) -> Figure:
    """The three errors over time."""
    names = [
        ("linearization_error", "one update"), ("kernel_flow_error", "kernel flow"),
        ("anchored_linearization_error", "anchored"),
    ]  # fmt: skip
    lines = [
        Series(label, scene.masked(name, why="the figure"), colour)
        for (name, label), colour in zip(names, scene.style.category, strict=False)
        if scene.run.has(name)
    ]
    if not lines:
        raise AnalysisError(
            "the figure 'linearisation' needs 'linearization_error', 'kernel_flow_error' or "
            "'anchored_linearization_error', "
            "and the archive holds none of them",
            remedy="Measure them: NTKTracker(observables='default').",
        )
    page, (ax,) = sheet(scene, height=0.4)
    over_time(scene, ax, lines, "squared relative error", y="log")
    return page


@figure(
    "kernel-motion", "How far the kernel has moved, and towards what",
    "Kernel distance from initialisation, 1 − cosine of the two kernels (blind to scale), and kernel–target "
    "alignment; dashed: the control.",
    section="motion",
)  # fmt: skip
def kernel_motion(scene: Scene) -> Figure:
    """Kernel distance and kernel–target alignment."""
    names = [
        ("kernel_distance_from_initial", "distance from "
                                         "initialisation"), ("kernel_target_alignment", "kernel–target alignment"),
    ]  # fmt: skip
    chosen = [(name, label) for name, label in names if scene.run.has(name)]
    if not chosen:
        raise AnalysisError(
            "the figure 'kernel-motion' needs 'kernel_distance_from_initial' or 'kernel_target_alignment', and the "
            "archive "
            "holds neither",
            remedy="Measure them: NTKTracker(observables='default').",
        )
    page, (ax,) = sheet(scene, height=0.36)
    lines = [
        Series(label, scene.masked(name, why="the figure"), colour)
        for (name, label), colour in zip(chosen, scene.style.category, strict=False)
    ]
    over_time(scene, ax, [*lines, *from_control(scene, chosen[0][0], "control")], "", ylim=(0, None))
    return page


@figure(
    "layer-shares", "Which layers carry the kernel",
    "Each layer's share of the kernel's trace, stacked from the first layer (bottom, dark) to the last (top, light). "
    "The shares add up to one.",
    "layer_share", section="motion",
)  # fmt: skip
def layer_shares(scene: Scene) -> Figure:
    """Tr Θ_l / tr Θ."""
    run = scene.run
    rows = np.flatnonzero(run.measured & np.isfinite(run.values("layer_share")).all(axis=1))
    shares, named = run.values("layer_share")[rows], run.settings.get("layers")
    several = named if isinstance(named, list) and len(named) == shares.shape[1] else range(1, shares.shape[1] + 1)
    labels = [plain(name, 40) or "root" for name in several]
    page, (ax,) = sheet(scene, height=0.42)
    stacked(ax, run.steps[rows], shares, scene.style, labels=labels)
    time_axis(ax, scene.time)
    mark_changes(ax, scene.marks, scene.style)
    return page
