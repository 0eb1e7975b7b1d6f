"""Eigenlearning: predicted learning curves, and what regression then has."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ...derived import eigenlearning, unseen_rows
from ..layout import over_time, sheet, steps_text
from ..panels import Series, learning
from ..registry import Scene, figure

_MOMENTS = 3


@figure(
    "learning-curves",
    "The test error that the kernel's spectrum predicts",
    "Left: squared error on new points over ‖y‖², predicted for regression with Θₜ on n points from its eigenvalues and the "
    "target's coefficients alone (lines), and measured on random subsets of this probe (dots, with the standard deviation over "
    "subsets), at the first, a middle and the last moment. Right: the same at a quarter of the probe over training, beside the "
    "network's own error. The probe must not be trained on.",
    "eigenvalues",
    "target_coefficients",
    section="motion",
)
def curves(scene: Scene) -> Figure:
    """E(n) at a few moments, and over training at the largest n."""
    rows = unseen_rows(scene.run)
    if len(rows) < 2:
        raise AnalysisError(
            "the figure 'learning-curves' needs 'probe_in_training' to be \"no\": after step 0 the kernel has seen these labels",
            where=scene.run.path or None,
            remedy="Take a probe from the validation loader, probe={'train': 128, 'val': 128}.",
        )
    found = eigenlearning(scene.run)
    page, (left, right) = sheet(scene, 1, 2, height=0.45)
    shown = np.unique(np.linspace(0, len(rows) - 1, _MOMENTS).round().astype(int))
    colours = scene.style.ordered(len(shown))
    learning(
        left,
        found.points,
        [Series(steps_text(found.steps[i]), found.predicted[i], c) for i, c in zip(shown, colours, strict=True)],
        [(found.measured[i], found.spread[i]) for i in shown],
        scene.style,
    )
    course = [
        Series(label, values, colour, x=found.steps)
        for label, values, colour in zip(
            ("predicted", "measured", "network"),
            (found.predicted[:, -1], found.measured[:, -1], found.network),
            scene.style.category,
            strict=False,
        )
        if np.isfinite(values).any()
    ]
    over_time(scene, right, course, f"error, {found.points[-1]} points", y="log")
    return page
