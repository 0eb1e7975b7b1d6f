"""The page of the width sweep and its two figures, written from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from claims import ran_on, table
from course import ASYMPTOTIC
from deep_limit import kernel_of_angle, scaling_form
from depth_claims import Deep, depth_claims
from measured import Archives
from width_claims import activation_claims, jacobian_claims, why_not

from kerneltrack.analysis.figures.style import OKABE_ITO, PLASMA

#: what the table of medians shows of every setting and width
SHOWN = (
    "C' on the trajectory", "C' on the sphere", "λ_min(Θ_0)", "κ(Θ_0)", "‖ΔJ‖/‖J‖", "‖ΔΘ‖/‖Θ‖", "‖Δθ‖/R", "neuron RMS",
    "layer norm", "gate flips", "anchored error", "loss",
)  # fmt: skip


def page(name: str, size: Any, sweep: Archives, closed: Deep) -> str:
    """README.md."""
    count, plural = sum(len(runs) for runs in sweep.runs.values()), "s" if size.directions > 1 else ""
    jacobian, activation = list(jacobian_claims(sweep)), list(activation_claims(sweep))
    refuted = {claim.key for claim in (*jacobian, *activation) if claim.holds is False}
    reasons = "\n".join(f"- {reason}" for reason in why_not(sweep, refuted))
    reasons = f"\n### Where theory's exponent did not come out\n\n{reasons}\n" if reasons else ""
    return f"""# One sweep over width, and the deep limit

Two papers on the limits of the tangent kernel, redone: J. Wenger, F. Dangel and A. Kristiadi, *On the Disconnect Between
Theory and Practice of Neural Networks: Limits of the NTK Perspective* (arXiv 2310.00137), of which this is the optimisation
part; and W. St-Arnaud, M. Carvalho and G. Farnadi, *Revisiting the Neural Tangent Kernel: the role of large width and depth*
(arXiv 2511.07272 v2; v1 was called *Understanding the role of depth …*). Neither paper's body nor code was at hand: the
architectures, sizes and the depth–time scaling are this study's own. Sizes are those of toys: the first paper speaks of
architectures in use, and its claim is decided here for small ones alone.

```bash
python docs/studies/width-sweep/study.py --size {name}
```

## What was run

{count} trainings at size `{name}`: "is a digit odd?" (±1) on {size.samples} of scikit-learn's digits, put on a sphere, by
{size.steps} full-batch updates on the mean of ½(f − y)² at a quarter of the largest stable rate at the start, η = N/(2λ_1(Θ_0)).
MLPs of two hidden layers, and a CNN of two convolutions, without biases, in the parametrisations of
[wide_networks.py](../wide_networks.py); {size.seeds} seeds of each width. The kernel of all {size.samples} digits was measured at
steps 0, {size.steps // 16}, {size.steps // 4} and {size.steps}, with J_t J_0ᵀ and the activations. The sphere: {size.directions}
random direction{plural} a seed at distance R = 3‖y − f_0‖/√λ_min(Θ_0), where ΔJ ΔJᵀ is the kernel of
x ↦ f(x; θ + p) − f(x; θ_0 + p) in p. C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min(Θ_0) is the largest over snapshots or
directions; at ½ or more it refutes the condition, below ½ it would prove nothing.

Run on {ran_on()}; no time is reported here.

A slope is that of log q over log width over all runs of a setting, with its 95 % interval. An exponent of theory is that of
infinite width: it "holds" if it lies in the interval widened by {ASYMPTOTIC} on both sides. Medians over seeds stand beside it.

## Wenger, Dangel and Kristiadi: is the Jacobian stable?

{table(jacobian)}
Of their part on uncertainty the regression is [uncertainty](../uncertainty/README.md) and the bandits are
[bandits](../bandits/README.md); that on continual learning is [continual-learning](../continual-learning/README.md).

## St-Arnaud, Carvalho and Farnadi: single neurons, whole layers

{table(activation)}{reasons}
![Stability and deviations over width](width.png)

C' on the trajectory (full lines) and on the sphere (dashed); change of the Jacobian (full) and of the kernel (dashed); deviation
of a neuron (RMS), and of the whole last hidden layer (full) beside its lower bound (dashed). A point is a run, lines are medians.

## St-Arnaud, Carvalho and Farnadi: depth

In closed form (`kerneltrack.analytic`), on the unit sphere S⁴, y(x) = 1 + sin 2x₁ + x₂x₃, nested training sets, 400 test points,
gradient flow from u_0 = 0 on ½‖u − y‖²; t in units in which Θ/L has diagonal 1.

{table(depth_claims(closed))}
![The deep kernel and the scalings that are left](depth.png)

Θ/L against u = Lθ/3π at every depth, on F(u); the spread of the output over test points, and the relative change of its
non-constant part when n doubles, for every scaling. R² is the share of the truth's variance over test points that the output
explains, the mean of each taken off: an output can follow the truth at correlation 0.98 and be too flat to explain much of it.

{_scalings(closed)}

## Every setting and width

Medians over seeds at the end of training (C': the largest).

{_medians(sweep)}
"""


def _medians(sweep: Archives) -> str:
    lines = ["| setting | width | " + " | ".join(SHOWN) + " |", "| --- " * (len(SHOWN) + 2) + "|"]
    for name in sweep.runs:
        courses = [sweep.course(name, number) for number in SHOWN]
        for row, width in enumerate(courses[0].sorted_widths):
            cells = " | ".join(f"{course.medians[row]:.3g}" for course in courses)
            lines.append(f"| {name} | {width:g} | {cells} |")
    return "\n".join(lines)


def _scalings(closed: Deep) -> str:
    heads = [f"n = {n:,}" for n in closed.counts]
    lines = [
        "| scaling: std, correlation with the truth, R², κ | " + " | ".join(heads) + " |",
        "| --- " * (len(heads) + 1) + "|",
    ]
    for name, row in closed.scalings.items():
        found = zip(row, closed.explained(name), strict=True)
        cells = " | ".join(f"{o.spread:.3g}, {o.correlation:.2f}, {r2:.2g}, {o.condition:,.0f}" for o, r2 in found)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def figures(sweep: Archives, closed: Deep, folder: Path) -> None:
    """width.png and depth.png."""
    _width_figure(sweep, folder / "width.png")
    _depth_figure(closed, folder / "depth.png")


def _width_figure(sweep: Archives, path: Path) -> None:
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("stability constant C'", [("C' on the trajectory", "-"), ("C' on the sphere", "--")]),
        ("relative change", [("‖ΔJ‖/‖J‖", "-"), ("‖ΔΘ‖/‖Θ‖", "--")]),
        ("deviation of a neuron (RMS)", [("neuron RMS", "-")]),
        ("deviation of the layer", [("layer norm", "-"), ("lower bound", "--")]),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for axis, (title, numbers) in zip(axes.flat, panels, strict=True):
        for colour, setting in zip([*OKABE_ITO, "#6b6b6b"], sweep.runs, strict=False):
            for number, line in numbers:
                course = sweep.course(setting, number)
                if not np.all(np.isfinite(course.values)):
                    continue  # the CNN has no bound: there is a mean between its last hidden layer and the readout
                axis.plot(
                    course.sorted_widths, course.medians, line, color=colour, label=setting if line == "-" else None
                )
                axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        axis.set(xscale="log", yscale="log", title=title, xlabel="width (channels of the CNN)")
    axes[0, 0].axhline(0.5, color="black", linewidth=0.8)
    axes[0, 0].annotate("½: refuted above", (0.02, 0.02), xycoords="axes fraction", fontsize=8)
    axes[0, 1].legend(fontsize=7)
    _save(figure, path)


def _depth_figure(closed: Deep, path: Path) -> None:
    figure, (kernel, spread, change) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for colour, depth in zip(PLASMA[::2], closed.depths, strict=False):
        angles, values = kernel_of_angle(depth)
        kernel.plot(depth * angles[1:] / (3 * np.pi), values[1:], color=colour, label=f"L = {depth:,}")
    u = np.logspace(-3, np.log10(closed.depths[-1] / 3), 300)
    kernel.plot(u, scaling_form(u), "k:", label="F(u)")
    kernel.set(xscale="log", xlim=(1e-3, None), xlabel="u = Lθ/3π", title="Θ/L")
    for colour, name in zip([*OKABE_ITO, "#6b6b6b"], closed.scalings, strict=False):
        spread.plot(closed.counts, closed.spreads(name), "o-", color=colour, label=name)
        change.plot(closed.counts[1:], closed.instabilities(name), "o-", color=colour)
    spread.axhline(closed.spread, color="black", linewidth=0.8)
    spread.set(title="std of the output over x (line: the truth)")
    change.set(title="change when n doubles")
    for axis in (spread, change):
        axis.set(xscale="log", yscale="log", xlabel="n")
        axis.set_xticks(closed.counts, [f"{n:,}" for n in closed.counts])
        axis.minorticks_off()
    kernel.legend(fontsize=7)
    figure.legend(*spread.get_legend_handles_labels(), loc="outside right", fontsize=7)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
