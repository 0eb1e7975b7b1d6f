"""The page on linearised and infinitely wide networks and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from pages import explained, grid
from reference_claims import Runs, departure, held_out, infinite_claims, linear_claims, why_not
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

LEARNERS = {
    "network": "the network",
    "start": "linearised at θ_0",
    "trained": "linearised at θ_T",
    "foreign": "at θ_T of another target",
}
VARIANTS = ("plain", "centred", "decayed")


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    tables = list(linear_claims(runs)), list(infinite_claims(runs))
    rows = [row for part in tables for row in part]
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    widths, modes = ", ".join(f"{w:,}" for w in s["widths"]), ", ".join(map(str, s["modes"]))
    return f"""# Linearised, finite and infinite networks

G. Ortiz-Jiménez, S.-M. Moosavi-Dezfooli and P. Frossard, *What can linearized neural networks actually say about
generalization?* (arXiv 2106.06770), set networks targets of known difficulty and compare them with their linearisations. J. Lee
et al., *Finite Versus Infinite Neural Networks: an Empirical Study* (arXiv 2007.15801), compare them with their infinitely wide
limit. Neither paper's body was at hand: tasks and sizes are this study's own.

```bash
python docs/studies/linear-and-infinite/study.py --size {results.size}
```

{verdict(rows)}

## What was run

ReLU MLPs of two hidden layers without biases in NTK parametrisation ([wide_networks.py](../wide_networks.py)) on scikit-learn's
digits, less their mean, on a sphere.

**Targets**: {len(runs.networks)} seeds of width {s["width"]}, {s["train"]} digits to train on and {s["train"]} held out. Target k
is the sign of the k-th eigenvector of Θ_0 on all of them, k = {modes}. (Eigenfunctions extended from the training points by
Nyström would be of Θ_0's own making, and Θ_0 would foretell them best.) Four learn it by the same minibatches, squares, momentum
{s["momentum"]["beta"]:g} and {s["momentum"]["epochs"]} epochs, each at {s["momentum"]["share"]:g} of 2N/λ₁ of its kernel: the
network, f(x; θ) − f(x; θ_0); the network linearised at θ_0; at θ_T, where the first one's training ended; and at θ_T of a
network that learned another of the targets.

**Infinite width**: {len(runs.ensembles)} ensembles of {s["members"]} networks of widths {widths}, ten classes, {s["few"]} digits to
train on and {s["others"]} held out; full-batch descent on the mean of ½‖f − y‖² at a quarter of 2N/λ₁(Θ_∞), for the
{runs.limit["updates"]} updates in which infinite width gets from 0 to {s["level"]:.0%} of its first loss. *Plain* networks learn f,
*centred* ones f(x; θ) − f(x; θ_0), *decayed* ones f while all updates together shrink their weights to e^−{s["decay"]:g}. The
limit of centred networks is the mean over initialisations, by `kt.analytic.relu_ntk`.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## Linearised networks

{table(tables[0])}
## Infinitely wide networks

{table(tables[1])}{reasons}
![Accuracy over targets; departure from the limit over width; ridge and early stopping](reference.png)

Left: accuracy on held-out points, a point a seed, lines are medians. Middle: how far the mean of an ensemble is from the limit.
Right: ridge regression with γ = N/(ηk), and training to the end, against k updates of infinite width.

## Every target

Accuracy on held-out points in percent, medians and ranges over seeds; on training points all are in results.json.

{grid(["k", *LEARNERS.values()], _targets(runs))}

## Every ensemble

Medians over ensembles. "Departure": ‖mean − limit‖/‖limit‖, and that of a single network. "Variance": over seeds; the limit says
{runs.limit["variance"]:.3g} for plain networks.

{grid(["networks", "width", "departure", "of one", "variance", "accuracy / %", "of one / %"], _ensembles(runs))}
"""


def _targets(runs: Runs) -> Iterator[list[str]]:
    for mode in runs.modes:
        values = {learner: [held_out(target, learner) for target in runs.of_mode(mode)] for learner in LEARNERS}
        yield [str(mode), *(f"{np.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in values.values())]


def _ensembles(runs: Runs) -> Iterator[list[str]]:
    for variant in VARIANTS:
        for width in runs.widths:
            found = [run[variant] for run in runs.at(width)]
            yield [
                variant,
                f"{width:,}",
                f"{np.median([one['departure'] for one in found]):.3g}",
                f"{np.median([single for one in found for single in one['single']]):.3g}",
                f"{np.median([one['variance'] for one in found]):.3g}",
                f"{100 * np.median([one['accuracy'] for one in found]):.1f}",
                f"{100 * np.median([single for one in found for single in one['accuracies']]):.1f}",
            ]


def figure(results: Results, path: Path) -> None:
    """reference.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for colour, (learner, name) in zip(OKABE_ITO, LEARNERS.items(), strict=False):
        values = [[held_out(target, learner) for target in runs.of_mode(mode)] for mode in runs.modes]
        axes[0].plot(runs.modes, [np.median(v) for v in values], color=colour, label=name)
        for mode, each in zip(runs.modes, values, strict=True):
            axes[0].plot([mode] * len(each), each, ".", color=colour, markersize=3, alpha=0.5)
    axes[0].set(title="accuracy / %", xscale="log", xlabel="k")
    for colour, variant in zip(OKABE_ITO, VARIANTS, strict=False):
        course = runs.course(departure(variant))
        axes[1].plot(course.sorted_widths, course.medians, color=colour, label=variant)
        axes[1].plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.5)
    axes[1].set(title="departure from the limit", xscale="log", yscale="log", xlabel="width")
    for name, told in (("ridge", runs.limit["ridge"]), ("to the end", runs.limit["end"])):
        axes[2].plot(runs.limit["moments"], told, ".-", label=name)
    axes[2].set(title="apart from k updates", xscale="log", yscale="log", xlabel="k")
    for axis in axes:
        axis.legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
