"""Two tasks: what their tangent spaces have in common, and how much of the forgetting the kernel at the switch foretells."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...derived import task_overlap, task_shift
from ...trajectory import Floats
from ..layout import over_time, sheet
from ..panels import Series, mark_changes
from ..registry import Scene, figure


@figure(
    "task-shift",
    "What a new task does to an old one",
    "Seen through the old task's probe. Left: normalised size of the cross-kernel with the new task's probe, and cosines of the "
    "principal angles between the ten leading directions that each task moves the network in: the largest, and the median. Right: "
    "the old task's loss since the switch, less what it was there, beside what the kernel held at the switch foretells. The dotted "
    "line is the switch, which the tracker was told: metadata={'switch': step}.",
    "extension",
    section="motion",
)
def shift(scene: Scene) -> Figure:
    """Overlap over training, and forgetting after the switch."""
    found, overlap = task_shift(scene.run), task_overlap(scene.run)
    page, (left, right) = sheet(scene, 1, 2, height=0.42)
    colour = scene.style.category
    cosines = np.cos(overlap.angles)
    courses = (("size", overlap.size), ("cos, largest", cosines[:, 0]), ("cos, median", _median(cosines)))
    lines = [Series(label, values, c, x=overlap.steps) for (label, values), c in zip(courses, colour, strict=False)]
    over_time(scene, left, lines, "in common", ylim=(0, None))
    mark_changes(left, [(found.switch, "switch")], scene.style)
    lines = [
        Series(label, values, c, x=found.steps)
        for label, values, c in zip(("measured", "foretold"), (found.losses, found.foretold), colour, strict=False)
    ]
    over_time(scene, right, lines, "loss on the old task, gained")
    return page


def _median(rows: Floats) -> Floats:
    """Of what each row holds; NaN where it holds nothing."""
    return np.array([np.nan if np.isnan(row).all() else np.nanmedian(row) for row in rows])
