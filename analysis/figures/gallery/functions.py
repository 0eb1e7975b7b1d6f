"""The kernel's functions seen more closely: slices of the kernel, the output in few modes, frequencies, rotation."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kerneltrack.observables import pair_kernel

from ...derived import (
    full_kernel,
    mean_frequencies,
    output_in_top_modes,
    representative_rows,
    rows_with_kernels,
    span_overlaps,
    spread_points,
)
from ...text import number
from ...trajectory import Floats
from ..canvas import Canvas, planar_inputs
from ..layout import moment_map, moments, picture_sheet, row_label, sheet, steps_text
from ..panels import Series, pictures, profiles
from ..registry import Scene, figure

_SLICES = 5
#: k of the eigenspaces whose rotation is drawn: the literature's "top 20".
_SPAN = 20


@figure(
    "kernel-slices",
    "Slices of the kernel",
    "The kernel between one point (the cross) and all others, at the first and the last snapshot that hold the "
    "kernel. At the start it follows distance and angle; later it follows the parts of the picture. Each image has "
    "its own scale about zero.",
    "inputs",
    section="alignment",
)
def kernel_slices(scene: Scene) -> Figure:
    """Θ(x_0, ·) for a few x_0."""
    run, rows = scene.run, rows_with_kernels(scene.run, 2, why="the figure 'kernel-slices'")
    canvas, points = Canvas.of(run), planar_inputs(run)
    low, high = points.min(axis=0), points.max(axis=0)
    inner = _inner(points)
    centres = inner[spread_points(points[inner], _SLICES)]
    page, axes = picture_sheet(scene, canvas, len(rows), _SLICES)
    for j, row in enumerate(rows):
        kernel = pair_kernel(full_kernel(run, row))
        for i, centre in enumerate(centres):
            ax, image = axes[j * _SLICES + i], canvas.paint(kernel[centre])
            low_high = f"{number(float(np.min(kernel[centre])), 2)} to {number(float(np.max(kernel[centre])), 2)}"
            pictures(ax, image, scene.style, kind="signed", title=low_high)
            if i == 0:
                row_label(ax, steps_text(run.steps[row]), scene.style)
            place = (points[centre] - low) / (high - low) * image.shape[::-1]
            ax.plot(*place, marker="+", color=scene.style.ink, markersize=8, markeredgewidth=1.4)
    return page


@figure(
    "projections",
    "The output in few eigenfunctions",
    "The network's output at the last snapshot beside its projection on the first k eigenvectors of the same moment; "
    "the number is the part of the output's energy that is missing. Grey values share one scale. Of several outputs it is the "
    "first, and in the gauge of softmax (f₁ − f₂)/√2.",
    "inputs",
    "outputs",
    "eigenvectors",
    section="alignment",
)
def projections(scene: Scene) -> Figure:
    """P_k f for growing k, and f."""
    run, row = scene.run, representative_rows(scene.run, 2)[-1]
    held = int(run.dataset.sizes["vector"])
    few = sorted({min(k, held) for k in (1, 3, 10, 30, 100)})
    output = run.seen(run.at("outputs", row))[:, 0]
    canvas, limits = Canvas.of(run), (float(output.min()), float(output.max()))
    page, axes = picture_sheet(scene, canvas, 1, len(few) + 1, title_lines=2)
    for ax, k in zip(axes, few, strict=False):
        part = output_in_top_modes(run, row, k)
        left_out = float(np.sum((output - part) ** 2) / np.sum(output**2))
        pictures(ax, canvas.paint(part), scene.style, title=f"k = {k}\n{left_out:.2g} missing", limits=limits)
    pictures(axes[-1], canvas.paint(output), scene.style, title="output f\n", limits=limits)
    return page


@figure(
    "frequencies",
    "Frequency of the eigenfunctions",
    "Mean radial frequency of each stored eigenvector, in periods over the width of the inputs, at a few moments from "
    "dark (early) to light (late). Small eigenvalues belong to fast functions.",
    "inputs",
    "eigenvectors",
    section="alignment",
)
def frequencies(scene: Scene) -> Figure:
    """⟨|ξ|⟩ over the mode index."""
    run, points = scene.run, planar_inputs(scene.run)
    rows = representative_rows(run, 4)
    page, (ax,) = sheet(scene)
    series = [
        Series(steps_text(run.steps[row]), mean_frequencies(points, run.at("eigenvectors", row)[:, 0]), colour)
        for row, colour in zip(rows, scene.style.ordered(len(rows)), strict=True)
    ]
    index = np.arange(1, len(series[0].values) + 1, dtype=np.float64)
    profiles(ax, index, series, scene.style, xlabel="mode i", ylabel="mean frequency of vᵢ", ylim=(0, None))
    return page


@figure(
    "rotation",
    "How the top eigenspace turns",
    "Overlap of the spans of the first eigenvectors (20, or as many as are stored) between all pairs of moments: 1 "
    "for the same span. Unrelated spans overlap by k over the number of modes. Moments are evenly spread over the "
    "snapshots, not over time.",
    "eigenvectors",
    section="motion",
)
def rotation(scene: Scene) -> Figure:
    """‖V_sᵀV_t‖²/k."""
    rows = moments(scene, "a rotation")
    k = min(_SPAN, int(scene.run.dataset.sizes["vector"]))
    title = f"first {k}; unrelated: {k / scene.run.dimension:.2g}"
    return moment_map(scene, rows, span_overlaps(scene.run, rows, k), title=title)


def _inner(points: Floats) -> np.ndarray:
    """Indices of the points away from the border, whose slices are whole."""
    low, high = np.quantile(points, [0.15, 0.85], axis=0)
    return np.flatnonzero(np.all((points > low) & (points < high), axis=1))
