"""The page on natural gradient and its figure, written from results.json alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from natural_claims import Runs, claims, constant, linear_natural, promised, speed_up, why_not
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    listed, watched = ", ".join(f"{w:,}" for w in s["widths"]), ", ".join(str(k) for k in s["watched"])
    return f"""# Natural gradient over width

G. Zhang, J. Martens and R. Grosse, *Fast Convergence of Natural Gradient Descent for Overparameterized Neural Networks*
(arXiv 1905.10961), prove that natural gradient is fast where the Jacobian hardly moves; J. Wenger, F. Dangel and
A. Kristiadi (arXiv 2310.00137) find that it moves too much for the proof ([width-sweep](../width-sweep/README.md)). Is
natural gradient fast all the same, and is it so for the theory's reason? Neither paper's body was at hand: tasks and sizes
are this study's own.

```bash
python docs/studies/natural-gradient/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`: "is a digit odd?" (±1) on {s["samples"]} of scikit-learn's digits, put on a
sphere; MLPs of two hidden layers without biases, in NTK parametrisation and, as control, in μP
([wide_networks.py](../wide_networks.py)); widths {listed}; {s["seeds"]} seeds of each; everything in float64. From the
same start:

- **natural gradient**, θ ← θ − ηJᵀ(JJᵀ + γI)⁻¹(f − y), η = {s["rate"]:g}, γ = 10⁻⁶ tr Θ/N, {s["updates"]} updates. In a linear
  model q_k = ‖r_k₊₁‖/‖r_k‖ is {1 - s["rate"]:g} at every update, and ‖r‖ is down to 10⁻³ of its start after
  {linear_natural(s["rate"])} updates;
- **gradient descent** at η = N/λ₁(Θ_0) on the mean of ½(f − y)², until ‖r‖ is down to 10⁻³ of its start, or for
  {s["descent"]:,} updates.

C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min(Θ_0) is the largest after {watched} updates of natural gradient; the theorem
asks for less than ½. Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes.

## What came out

{table(rows)}{reasons}
![Departure from the linear model, and the speed-up, over width](natural.png)

Left: the departure, max_k |q_k − {1 - s["rate"]:g}|. Right: how many times fewer updates natural gradient needs (points and lines),
beside what the kernel at the start promises (dashed). A point is a run, lines are medians.

## Every setting and width

Medians over seeds. "Kept": runs in which ‖r_k‖² ≤ (1 − η)^k ‖r_0‖² for every k. "Linear model's": updates that gradient
descent needs in the linear model of the start.

{_medians(runs)}
"""


def _medians(runs: Runs) -> str:
    heads = [
        "setting",
        "width",
        "max_k |q_k − (1 − η)|",
        "kept",
        "C'",
        "‖Δθ‖/R",
        "κ(Θ_0)",
        "updates",
        "of descent",
        "linear model's",
    ]
    rows = []
    for name, found in runs.by_setting.items():
        for width in sorted({run["width"] for run in found}):
            some = [run for run in found if run["width"] == width]
            cells = [
                name,
                str(width),
                f"{np.median([runs.departure(run) for run in some]):.2g}",
                f"{sum(runs.keeps_the_bound(run) for run in some)} of {len(some)}",
                f"{np.median([constant(run) for run in some]):.3g}",
                f"{np.median([run['natural_share'] for run in some]):.2g}",
                f"{np.median([run['condition'] for run in some]):,.0f}",
                _count([run["natural_updates"] for run in some]),
                _count([run["plain_updates"] for run in some]),
                f"{np.median([run['linear_updates'] for run in some]):,.0f}",
            ]
            rows.append(cells)
    return grid(heads, rows)


def _count(updates: list[int | None]) -> str:
    """The median over runs that arrived, and how many did where not all."""
    there = [k for k in updates if k is not None]
    if not there:
        return "not reached"
    return f"{np.median(there):,.0f}" + (
        f" ({len(there)} of {len(updates)} arrived)" if len(there) < len(updates) else ""
    )


def figure(results: Results, path: Path) -> None:
    """natural.png."""
    runs = Runs.of(results)
    drawn, (departure, speed) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for colour, name in zip(OKABE_ITO, runs.by_setting, strict=False):
        course = runs.course(name, runs.departure)
        departure.plot(course.sorted_widths, course.medians, color=colour, label=name)
        departure.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        made = runs.course(name, speed_up)
        speed.plot(made.sorted_widths, made.medians, color=colour)
        speed.plot(made.widths, made.values, ".", color=colour, markersize=3, alpha=0.4)
        told = runs.course(name, lambda run: promised(run, runs.rate))
        speed.plot(told.sorted_widths, told.medians, "--", color=colour)
    departure.set(title=f"max |q − {1 - runs.rate:g}|")
    speed.set(title="updates, descent over natural gradient")
    for axis in (departure, speed):
        axis.set(xscale="log", yscale="log", xlabel="width")
    departure.legend(fontsize=7)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
