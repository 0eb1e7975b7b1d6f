"""The kernel as a Gaussian process: is it calibrated, and which points does it rest on?"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...derived import attribution
from ..layout import over_time, sheet, steps_text
from ..panels import Series, ranked
from ..registry import Scene, figure


@figure(
    "calibration",
    "Does the kernel know where the network errs?",
    "Left: squared errors of the network on this probe over the variance that its linearised Laplace approximation predicts, "
    "given the other probe's data; prior and noise by the largest evidence. At 1 (dotted) it is calibrated, above it too sure. "
    "Right: the negative log likelihood of this probe's targets, in nats an output.",
    "posterior_calibration",
    "ntk_gp_nll",
    section="motion",
)
def calibration(scene: Scene) -> Figure:
    """z̄² and the likelihood over training."""
    page, (left, right) = sheet(scene, 1, 2, height=0.36)
    colour = scene.style.category
    ratio = Series("z̄²", scene.masked("posterior_calibration", why="the figure"), colour[0])
    over_time(scene, left, [ratio], "squared error / variance", y="log", ends=False)
    left.axhline(1, color=scene.style.ink, linewidth=1, linestyle=(0, (1, 2)))
    likelihood = Series("−ln p(y)", scene.masked("ntk_gp_nll", why="the figure"), colour[1])
    over_time(scene, right, [likelihood], "−ln p(y), nats", ends=False)
    return page


@figure(
    "influence",
    "The points that the kernel's regression rests on",
    "The ten points whose removal moves ridge regression with Θₜ most at the probe's other points: root mean square of what "
    "removal changes (bars), and of their influence, the derivative by the point's weight (rings). Of the last moment at which "
    "the kernel is known. On points that were trained on this is in-sample.",
    "targets",
    section="motion",
)
def influence(scene: Scene) -> Figure:
    """Removal and influence of the ten."""
    found = attribution(scene.run)
    most = found.most()
    derivative = np.sqrt(np.sum(found.influence**2, axis=0) / max(len(found.influence) - 1, 1))
    page, (ax,) = sheet(scene, height=0.45, width=0.8)
    names = [str(i) for i in most]
    ranked(
        ax,
        names,
        found.reach[most],
        derivative[most],
        scene.style,
        ylabel="change at other points",
        labels=("removal", "influence"),
        noun="point",
    )
    ax.set_xlabel(f"point of the probe, {steps_text(found.step)}")
    return page
