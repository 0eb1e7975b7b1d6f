"""Named functions in the leading eigenspaces: which of them the kernel has come to know, and when."""

from __future__ import annotations

from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ...derived import feature_atlas, leading_modes, own_features, representative_rows
from ..layout import sheet
from ..panels import named_map
from ..registry import Scene, figure

#: Here a function stands out, and colours become logarithmic: a score of two hundred is to be told from one of ten.
_LIMIT = 5.0
#: Moments of the map, evenly spread in rank: two hundred permutations at each take seconds a hundred, and a column is a few pixels.
_MOMENTS = 120


@figure(
    "feature-atlas",
    "What the leading eigenfunctions know",
    "How far the energy of named functions in the first ten modes (or half of the points, if those are fewer) is above that "
    "of the same values at permuted points, in standard deviations z over permutations, at up to 120 snapshots; the line in "
    "the bar is z = 5. The functions are the columns of the targets and, where inputs are stored, their mean and norm: what a "
    "kernel should not need to know. Functions of your own: kerneltrack.analysis.derived.feature_atlas.",
    "eigenvectors",
    "targets",
    section="alignment",
)
def atlas(scene: Scene) -> Figure:
    """z of function × moment."""
    run, functions = scene.run, own_features(scene.run)
    if not functions:
        raise AnalysisError("every function of this archive is constant", where=run.path or None)
    held = leading_modes(run)
    found = feature_atlas(run, functions, k=held, steps=run.steps[representative_rows(run, _MOMENTS)].tolist())
    page, (ax,) = sheet(scene)
    steps = [f"{step:,}" for step in found.steps]
    named_map(
        ax,
        found.score,
        scene.style,
        rows=found.names,
        columns=steps,
        title=f"first {held} modes",
        limit=_LIMIT,
        bar_label="z",
    )
    return page
