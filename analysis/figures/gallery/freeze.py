"""When did the kernel become good enough? The network linearised at each snapshot against the network itself."""

from __future__ import annotations

from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ...derived import freeze_here, judge
from ...text import count
from ..layout import over_time, sheet
from ..panels import Series, Spot, told
from ..registry import Scene, figure


@figure(
    "freeze-here",
    "What training would have given, had the kernel been frozen here",
    "Error on this probe of the network linearised at each snapshot and trained to the end on the other probe's data (with Θ_t, "
    "offset f_t), beside the network's own error at that moment: the relative squared error of kernel regression where the "
    "loss is a mean of squares, the cross-entropy of kernel logistic regression where it is a cross-entropy. The dotted line "
    "is the network's last error: where the first curve falls below it, the kernel had become good enough.",
    section="motion",
)
def freeze(scene: Scene) -> Figure:
    """The error of f_lin over the moment of freezing."""
    curve = freeze_here(scene.run)
    page, (ax,) = sheet(scene, height=0.42)
    style = scene.style
    lines = [
        Series(label, scene.masked(name, why="the figure"), colour)
        for label, name, colour in zip(("frozen here", "network"), curve.names, style.category, strict=False)
    ]
    over_time(scene, ax, lines, curve.scale, y="log")
    ax.axhline(curve.final, color=style.muted, linestyle=(0, (1, 1.6)), linewidth=1.2)
    if curve.good_enough is not None:
        ax.plot(
            [curve.good_enough],
            [curve.error_there],
            marker="o",
            markersize=6,
            markerfacecolor="none",
            color=style.ink,
            linestyle="",
        )
        # Errors fall: the upper right corner is the one that no line crosses.
        ax.annotate(
            f"○ good enough from step {curve.good_enough:,}",
            (1, 1),
            xytext=(-4, -4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
            color=style.ink,
        )
    return page


@figure(
    "stages",
    "Stages of training",
    "Stretches that rules marked in the stored courses: fast and slow motion of the kernel by the level of its angular "
    "velocity at one lag, progressive sharpening by the sharpness, the edge of stability by λ₁ over its "
    "bound at one rate. Each has a false-alarm rate on its null below 5 %; the table beside the figure holds the rules.",
    section="motion",
)
def stage_bands(scene: Scene) -> Figure:
    """Angular velocity of the kernel, or the stability ratio, with the stages as labelled bands below it."""
    run, style = scene.run, scene.style
    found, unjudged = judge(run)
    if not found:
        reasons = "".join(f" Not judged: {reason}." for reason in unjudged)
        raise AnalysisError(
            "no rule found a stage below a false-alarm rate of 5 %",
            where=run.path or None,
            remedy="The figure 'stages' needs 'kernel_angular_velocity' or 'stability_ratio' with a change in its course."
            + reasons,
        )
    moved = any(stage.name.endswith("kernel motion") for stage in found) or not run.has("stability_ratio")
    name = "kernel_angular_velocity" if moved else "stability_ratio"
    page, axes = sheet(scene, 2, 1, height=0.52, sharex=True, height_ratios=[3, 1.1])
    label = "angular velocity of the kernel" if moved else "λ₁ over its bound"
    over_time(scene, axes[0], [Series(label, scene.masked(name, why="the figure"), style.category[0])], "", y="log")
    axes[0].set_xlabel("")
    names = list(dict.fromkeys(stage.name for stage in found))
    for stage in found:
        level, colour = names.index(stage.name), style.category[names.index(stage.name) % len(style.category)]
        axes[1].plot([stage.first, stage.last], [level, level], color=colour, linewidth=7, solid_capstyle="butt")
        steps = f"{count(stage.first)} to {count(stage.last)}"
        rows = (("steps", steps, colour), ("level", stage.level, colour))
        told(axes[1]).spots.append(Spot((stage.first, stage.last), (level - 0.15, level + 0.15), stage.name, rows))
    axes[1].set_yticks(range(len(names)), names)
    axes[1].set_ylim(len(names) - 0.4, -0.6)
    axes[1].grid(visible=False)
    axes[1].spines["left"].set_visible(False)
    axes[1].tick_params(axis="y", length=0)
    axes[1].set_xlabel("training step")
    axes[1].set_label("stages")
    return page
