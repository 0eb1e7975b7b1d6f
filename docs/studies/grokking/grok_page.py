"""The page on grokking and its figure, written from results.json alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import spread, table, verdict
from grok_claims import FOREIGN, Run, Runs, by_heart, claims, course, steepest, steps, why_not
from modular_sums import FAMILIES
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

HEADS = (
    "labels", "α", "frequencies in use", "learned by heart", "half of the rest right", "unseen right at the end",
    "E(a + b) by heart → end", "E(a − b) at the end", "E(a) at the end", "E(a + 2b) at the end", "E grows fastest at",
    "λ₁, × its start",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    p, solution = s["p"], runs.sums()[0]["solution"]
    return f"""# Grokking: which functions does the kernel know, and when?

A network learns by heart what a + b mod p is for some pairs, and much later computes it for all: it groks. A paper (arXiv
2510.00468) reads the functions that it has found off the first modes of its tangent kernel. Another (T. Kumar et al., arXiv
2310.06110) takes grokking for the way from the lazy to the rich regime. No paper's body was at hand: network and sizes are this
study's own.

```bash
python docs/studies/grokking/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`: α V(Wx)², {s["width"]} units, no biases; x is a and b one-hot beside each
other, p = {p}, {p * p} pairs, {s["share"]:.0%} of them to learn from; y is one-hot less 1/p. Full-batch AdamW on the mean square,
rate {s["rate"]:g}, decay {s["decay"]:g}, {s["updates"]:,} updates; α of {", ".join(f"{a:g}" for a in s["scales"])}, seeds
of each: {s["seeds"]}; and, with α = {s["scales"][0]:g}, labels drawn at random. Kernels are (1/O) Σ_o Θ_oo on **all** pairs, at
{s["moments"]} steps evenly spaced in log step, and at the start.

The functions with names ([modular_sums.py](modular_sums.py)) are cos and sin(2πj(ua + vb)/p), j = 1 … {p // 2}: of the sum a + b,
of a − b, of a alone, and of a + 2b, which nothing asks for. A frequency j is in use if the output has at least half of a fair
share of its energy in it at the end. E is the mean of E(φ, k) over the waves of the frequencies in use, in the first k = 8 ×
(frequencies in use) modes; of labels without a rule, of all frequencies.

The exact solution has nine units for each frequency and the least weights of its kind; its kernel has E =
{", ".join(f"{solution[name]:.2f} ({name})" for name in FAMILIES)}.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Right pairs, energies of named functions and the energy of the sums at each output scale, over the steps](grokking.png)

Left and middle: α = {runs.scales[0]:g}, a line is a seed. Dotted: what the exact solution has; grey: E(a + b) without a rule.

## Every kind of run

Medians over seeds, with their range.

{_medians(runs)}
"""


def _medians(runs: Runs) -> str:
    rows = []
    groups = [("sums", scale, runs.sums(scale)) for scale in runs.scales] + [("drawn", runs.scales[0], runs.random)]
    for name, scale, found in groups:
        cells = [
            name,
            f"{scale:g}",
            _spread([len(run["used"]) for run in found]),
            _spread([run["learned"] for run in found]),
            _spread([run["grokked"] for run in found]),
            _spread([run["moments"][-1]["right"][1] for run in found]),
            f"{_spread([by_heart(run) for run in found])} → {_spread([course(run)[-1] for run in found])}",
            *(_spread([course(run, family)[-1] for run in found]) for family in ("a − b", "a", FOREIGN)),
            _spread([steepest(run) for run in found]),
            _spread([run["moments"][-1]["largest"] / run["moments"][0]["largest"] for run in found]),
        ]
        rows.append(cells)
    return grid(HEADS, rows)


def _spread(values: list[float | int | None]) -> str:
    there = [float(value) for value in values if value is not None and np.isfinite(value)]
    return spread(there, digits=4 if there and max(there) > 100 else 3) if there else "–"


def figure(results: Results, path: Path) -> None:
    """grokking.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for run in runs.sums():
        right = np.array([row["right"] for row in run["moments"]])
        for place, label in enumerate(("learned from", "unseen")):
            axes[0].plot(steps(run)[1:], right[1:, place], color=OKABE_ITO[place], label=_once(label, run))
        for colour, family in zip(OKABE_ITO, FAMILIES, strict=False):
            axes[1].plot(steps(run)[1:], course(run, family)[1:], color=colour, label=_once(family, run))
            axes[1].axhline(run["solution"][family], color=colour, linewidth=0.8, linestyle=":")
    for run in runs.random:
        axes[1].plot(steps(run)[1:], course(run)[1:], color="grey", linewidth=0.8)
    for colour, scale in zip(OKABE_ITO, runs.scales, strict=False):
        for run in runs.sums(scale):
            axes[2].plot(steps(run)[1:], course(run)[1:], color=colour, label=_once(f"α = {scale:g}", run))
            if run["grokked"] is not None:
                axes[2].axvline(run["grokked"], color=colour, linewidth=0.6, linestyle="--")
    for axis, title in zip(axes, ("right pairs", "energy of named functions", "energy of the sums"), strict=True):
        axis.set(title=title, xscale="log", xlabel="update")
        axis.legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)


def _once(label: str, run: Run) -> str | None:
    return label if run["seed"] == 0 else None
