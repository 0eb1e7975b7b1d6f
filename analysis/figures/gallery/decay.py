"""What learning-rate changes were followed by: residual by mode, factors of one update, courses around it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kerneltrack.errors import AnalysisError

from ...derived import Change, binned, flow_time, gain, mode_energy, mode_factors, nearest_k
from ...text import count, number
from ..layout import sheet, steps_text
from ..panels import Series, line_plot, profiles, scatter_factors, time_axis
from ..registry import Scene, figure


def _changes(scene: Scene, *, exact: bool = False) -> tuple[Change, ...]:
    found = tuple(change for change in scene.changes if change.exact or not exact)
    if found:
        return found
    if scene.changes:
        raise AnalysisError(
            "no snapshot lies exactly at a learning-rate change",
            remedy="Measure with schedule=... | OnLearningRateChange(after=(0, 1, 10, 100)).",
        )
    raise AnalysisError("the stored learning rates never change (as a step)", where=scene.run.path or None)


@figure(
    "residual-spectrum",
    "The residual along the modes, before and after a change",
    "Share of the residual's energy per mode (beyond the first ten the mean over a dozen bins per decade): just "
    "before the learning rate changes and at the first snapshot after it. Modes whose factor |1 − η λᵢ/N| was near 1 "
    "at the old rate and is near 0 at the new one empty at once.",
    "residual_coefficients",
    "learning_rate",
    section="learning rate",
)
def residual_spectrum(scene: Scene) -> Figure:
    """⟨v_i, m⟩²/‖m‖² before and one step after each of the first changes."""
    changes, run, style = _changes(scene)[:3], scene.run, scene.style
    page, axes = sheet(scene, 1, len(changes), height=0.44, sharey=True)
    for ax, change in zip(axes, changes, strict=True):
        before, after = (mode_energy(run, "residual", row) for row in (change.before, change.after[0]))
        series = [
            Series("before", binned(before), style.category[0]),
            Series("after", binned(after), style.category[1]),
        ]
        index = binned(np.arange(1, len(before) + 1, dtype=np.float64))
        between = " → ".join(count(int(run.steps[row])) for row in (change.before, change.after[0]))
        title = f"η {change.old[0]:g} → {change.new[0]:g}, steps {between}"
        profiles(ax, index, series, style, xlabel="mode i", ylabel="share of ‖m‖²", y="log", title=title)
    return page


@figure(
    "mode-factors",
    "One update, mode by mode: prediction and measurement",
    "By how much the first update at the new learning rate multiplies the residual along each eigenvector of the "
    "state it left: |1 − η λᵢ/N| as predicted for a kernel that stands still (line), as measured (circles), and what "
    "the old rate would have done (dotted).",
    "eigenvalues",
    "eigenvectors",
    "residual",
    "learning_rate",
    section="learning rate",
)
def predicted_factors(scene: Scene) -> Figure:
    """|1 − η_new λ_i/N| and the measured ratio."""
    changes = _changes(scene, exact=True)[:3]
    page, axes = sheet(scene, 1, len(changes), height=0.46, sharey=True)
    for ax, change in zip(axes, changes, strict=True):
        factors = mode_factors(scene.run, change.before, change.after[0], old=change.old, new=change.new)
        index = np.arange(1, len(factors.predicted) + 1, dtype=np.float64)
        title = f"{steps_text(change.step)}: η {change.old[0]:g} → {change.new[0]:g}"
        scatter_factors(
            ax,
            index,
            factors.predicted,
            factors.measured,
            factors.predicted_old,
            factors.energy,
            scene.style,
            title=title,
        )
        ax.set_ylim(0, 1.5)
    return page


@figure(
    "lr-decay",
    "Around the first learning-rate change",
    "Stability ratio, residual energy in the top modes, target energy and effective rank from before the first change "
    "to the next one; dashed: the control, which kept the old rate.",
    "eigenvalues",
    "learning_rate",
    section="learning rate",
)
def around_change(scene: Scene) -> Figure:
    """Four courses around the first change, on a time axis that is logarithmic on both sides of it."""
    change, run = _changes(scene)[0], scene.run
    wanted = [(name, label) for name, label in _panels(scene) if run.has(name)]
    page, axes = sheet(scene, 2, 2, height=0.55)
    for ax, (name, label) in zip(axes, wanted, strict=False):
        column = nearest_k(run, (20,))[0] if name.endswith("_energy") else None
        lines = [_around(scene, name, column, change, scene.style.category[0], "run", "solid")]
        if scene.beside(name) is not None:
            lines.append(_around(scene, name, column, change, scene.style.muted, _of_control(scene), "dashed"))
        line_plot(ax, lines[0].x if lines[0].x is not None else run.steps, lines, scene.style, ylabel="", title=label)
        time_axis(ax, "log")
        ax.set_xlabel("updates since the change")
    for ax in axes[len(wanted) :]:
        ax.set_axis_off()
    return page


@figure(
    "lr-trend",
    "Over the course of the learning rate",
    "Stability ratio, residual energy in the top modes, target energy and effective rank over the sum of the learning "
    "rates Ση, the time of gradient flow, while the rate moves continuously. What moves here moves with the schedule, "
    "which does not say that the schedule moves it.",
    "eigenvalues",
    "learning_rate",
    section="learning rate",
)
def over_rates(scene: Scene) -> Figure:
    """Four courses over Ση in the longest stretch of continuous change."""
    run, style = scene.run, scene.style
    if not scene.trends:
        raise AnalysisError("the stored learning rates never change continuously", where=run.path or None)
    trend = max(scene.trends, key=lambda t: t.travel)
    low, high = run.steps[trend.first], run.steps[trend.last]
    rows = np.flatnonzero(run.measured & (run.steps >= low) & (run.steps <= high))
    times = flow_time(run)[rows]
    wanted = [(name, label) for name, label in _panels(scene) if run.has(name)]
    page, axes = sheet(scene, 2, 2, height=0.55)
    for ax, (name, label) in zip(axes, wanted, strict=False):
        values = run.values(name) if not name.endswith("_energy") else run.values(name)[:, nearest_k(run, (20,))[0]]
        line_plot(ax, times, [Series("run", values[rows], style.category[0])], style, ylabel="", title=label)
        ax.set_xlabel(
            "sum of the learning rates Ση"
            if gain(run) == 1
            else f"flow time: Ση times momentum's gain {number(gain(run))}"
        )
    for ax in axes[len(wanted) :]:
        ax.set_axis_off()
    return page


def _panels(scene: Scene) -> list[tuple[str, str]]:
    k = int(scene.run.values("energy_k")[nearest_k(scene.run, (20,))[0]]) if "energy_k" in scene.run.dataset else 20
    return [
        ("stability_ratio", "λ₁ over its bound"),
        ("residual_energy", f"residual energy, first {k} modes"),
        ("target_energy", f"target energy, first {k} modes"),
        ("effective_rank", "effective rank"),
    ]


def _around(scene: Scene, name: str, column: int | None, change: Change, colour: str, label: str, line: str) -> Series:
    run = scene.run if line == "solid" else scene.control
    assert run is not None  # the caller asks for the control only where there is one
    values = run.values(name) if column is None else run.values(name)[:, column]
    offsets = run.steps - change.step
    last = int(scene.run.steps[change.after[-1]]) - change.step
    near = (offsets >= min(0, int(scene.run.steps[change.before]) - change.step)) & (offsets <= last) & run.measured
    return Series(label, np.asarray(values)[near], colour, "solid" if line == "solid" else "dashed", offsets[near])


def _of_control(scene: Scene) -> str:
    """What the control's line is called: also where its batches were others."""
    word = "" if scene.control is None else scene.control.other_batches
    return f"control ({word})" if word else "control"
