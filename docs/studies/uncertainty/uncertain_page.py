"""The page on uncertainty and its figure, written from results.json alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from pages import explained, grid
from results import Results
from uncertain_claims import PROCESSES, Runs, claims, why_not

from kerneltrack.analysis.figures.style import OKABE_ITO


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    listed = ", ".join(f"{width:,}" for width in s["widths"])
    updates = ", ".join(f"{limit['updates']:,} on {task}" for task, limit in runs.limits.items())
    return f"""# Uncertainty from the tangent kernel, over width

J. Wenger, F. Dangel and A. Kristiadi, *On the Disconnect Between Theory and Practice of Overparametrized Neural Networks*
(arXiv 2310.00137), say that uncertainty as the theory prescribes it does badly, and that a prior chosen by the evidence does
better (so reviews of it; the paper's body was not at hand). They show it with bandits. Here is the regression underneath: is
the variance that a tangent kernel gives the size of the error? Tasks and sizes are this study's own.

```bash
python docs/studies/uncertainty/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs) - len(runs.limits)} networks at size `{results.size}`: MLPs of two hidden layers in NTK parametrisation
([wide_networks.py](../wide_networks.py)), ReLU, a constant input in the place of biases; widths {listed}; {s["seeds"]} seeds of
each, all on the same data; float64. Two tasks, inputs and targets standardised on the training points:

- **diabetes**: {s["samples"]["diabetes"]} of scikit-learn's 442 patients, 142 held out;
- **wave**: {s["samples"]["wave"]} points of y = sin 3x + 0.1ξ on [−1, −0.3] ∪ [0.3, 1], 100 held out there and 50 in the gap.

Full-batch gradient descent on the mean of ½(f − y)² at η = N/(2λ₁(Θ_∞)), for as many updates as an infinitely wide network
takes from f = 0 to {s["level"]:.0%} of its first loss: {updates}. A network that is linearised is a Gaussian process:

- **Θ_0**: at its start, prior N(θ_0, I/δ): the NTK-GP, for which the initialisation prescribes δ = 1;
- **Θ_T**: trained, prior N(0, I/δ): the Laplace approximation.

δ is 1 or that of the largest evidence; the noise σ² is that of the largest evidence either way, so that the prior alone makes
the difference. Of each process: z̄², the mean of (y − mean)²/(variance + σ²) on held-out points, which is 1 where the variance is
the size of the error; the negative log-likelihood of an observation; Spearman's correlation of variance and squared
error. **Ensembles** are the seeds of a width; infinite width knows their covariance (Lee et al. 2019, arXiv 1902.06720).
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes.

## What came out

{table(rows)}{reasons}
![Calibration of the processes and variance of the ensembles, over width](uncertainty.png)

Left and middle: z̄², a point a seed, lines are medians. Right: variance of an ensemble over that of infinite width, the mean
over the {s["modes"]} leading modes of the latter; the band is where it is in 95 % of cases if the limit holds.

## Every process

Medians and ranges over seeds.

{_processes(runs)}

## Ensembles

The ratio is the mean over modes, as in the figure; "total" the same of the sum over points. z̄² is with the variance over seeds
alone: an ensemble knows no noise. "Loss": what training left of each network's own first loss.

{_ensembles(runs)}
"""


def _processes(runs: Runs) -> str:
    heads, rows = ["task", "width", "process", "z̄²", "NLL", "RMSE", "Spearman", "gap / data", "δ", "σ²"], []
    keys = "calibration", "nll", "rmse", "rank", "gap", "precision", "noise"
    for task, width in sorted(runs.networks):
        found = runs.networks[task, width]
        for name, (kernel, choice) in PROCESSES.items():
            each = ([run[kernel][choice][key] for run in found] for key in keys)
            rows.append([task, str(width), name, *map(_cell, each)])
    return grid(heads, rows)


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    median, low, high = (f"{value:.2g}" for value in (np.median(known), min(known), max(known)))
    return f"{median} ({low} to {high})" if low != high else median


def _ensembles(runs: Runs) -> str:
    heads = ["task", "width", "ratio", "if the limit holds", "total", "z̄²", "RMSE", "Spearman", "gap / data", "loss"]
    rows = []
    for task, width in sorted(runs.networks):
        e, losses = runs.ensemble(task, width), [run["loss"] for run in runs.networks[task, width]]
        cells = [
            task,
            str(width),
            f"{e.ratio:.3g}",
            f"{e.sampled[0]:.2f} to {e.sampled[1]:.2f}",
            *(f"{value:.2g}" for value in (e.total, e.calibration, e.rmse, e.rank)),
            "–" if e.gap is None else f"{e.gap:.2g}",
            f"{np.median(losses):.2g}",
        ]
        rows.append(cells)
    return grid(heads, rows)


def figure(results: Results, path: Path) -> None:
    """uncertainty.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, len(runs.limits) + 1, figsize=(11, 3.6), layout="constrained")
    for axis, task in zip(axes, runs.limits, strict=False):
        for colour, (name, where) in zip(OKABE_ITO, PROCESSES.items(), strict=False):
            values = [[run[where[0]][where[1]]["calibration"] for run in runs.networks[task, w]] for w in runs.widths]
            _lines(axis, runs.widths, values, colour, name)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set(title=f"z̄², {task}")
    axes[0].legend(fontsize=7)
    for colour, task in zip(OKABE_ITO, runs.limits, strict=False):
        found = [runs.ensemble(task, width) for width in runs.widths]
        _lines(axes[-1], runs.widths, [[e.ratio] for e in found], colour, task)
        low, high = zip(*(e.sampled for e in found), strict=True)
        axes[-1].fill_between(runs.widths, low, high, color="grey", alpha=0.15, linewidth=0)
    axes[-1].set(title="ensemble / infinite width")
    axes[-1].legend(fontsize=7)
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="width")
        axis.set_xticks(runs.widths, [f"{width:,}" for width in runs.widths])
        axis.tick_params(axis="x", which="minor", labelbottom=False)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def _lines(axis: plt.Axes, widths: list[int], values: list[list[float]], colour: str, label: str) -> None:
    axis.plot(widths, [np.median(each) for each in values], color=colour, label=label)
    for width, each in zip(widths, values, strict=True):
        axis.plot([width] * len(each), each, ".", color=colour, markersize=3, alpha=0.5)
