"""The page of the cost study and its figure, written from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import table, verdict
from fast_claims import AXES, GAIN, PAPER, PLAN, Costs, claims, followed, off_plan
from fast_networks import Point
from pages import explained, grid
from results import Results

from kerneltrack.analysis.figures.style import OKABE_ITO

WHY_NOT = {
    GAIN: "where structured derivatives take more FLOPs than the Jacobian, the order of contraction is not that of the fewest: "
    '`"structured"` chooses orders by estimated time, in which a FLOP of a thin product and a byte of traffic count for more.'
}


def page(results: Results) -> str:
    """README.md."""
    costs = Costs.of(results)
    rows = list(claims(costs))
    refuted = {row.key for row in rows if row.holds is False}
    told = WHY_NOT | ({PLAN: off_plan(costs)} if PLAN in refuted else {})
    reasons = explained(f"*{key}*: {why}" for key, why in told.items() if key in refuted)
    return f"""# The cost of a finite-width kernel

R. Novak, J. Sohl-Dickstein and S. Schoenholz, *Fast Finite Width Neural Tangent Kernel* (arXiv 2206.08720), redone with the
methods of this package. {_first(costs)}
The paper's body was not at hand: the formulas are derived, the architectures and sizes are this study's own.

| in the paper | `method=` | cost for an FCN, leading order |
| --- | --- | --- |
| {PAPER["jacobian"]} | `"jacobian"` | N²O²LW² |
| {PAPER["products"]} | `"products"` | N²OLW² |
| {PAPER["structured"]} | `"structured"`, and `"auto"` where a structure is known | N²O²LW + NOLW² |
| – | `NTKOperator`, k products Θv | k · NLW² |

```bash
OMP_NUM_THREADS=1 python docs/studies/fast-ntk/study.py --size {results.size}
```

N samples, O outputs, P parameters, W width (channels), L depth (weight layers; residual blocks; encoder layers), FP the FLOPs of
one forward pass of one sample. FLOPs are counted while the method runs (`torch.utils.flop_counter`: matrix products,
convolutions, attention; no elementwise work; what it counts wrongly is put right in [fast_costs.py](fast_costs.py)). Counts are the
same on every machine, so there is no spread. Memory is the most bytes of tensors that were alive at one time, of those that the
call made: the kernel and what it is made of, without what a library takes for itself. Weights are random, inputs normal,
everything in eval mode; full kernels, O×O blocks, of N samples with N others: of a symmetric kernel every method leaves out blocks
below the diagonal.

Run from commit {results.commit} on {results.ran_on}, in {results.seconds / 60:.0f} minutes of one process.

{verdict(rows)}

{table(rows)}{reasons}
![FLOPs along each axis](flops.png)

FLOPs of a full kernel along each axis, the others as in the fourth row of the table;
`product` is one Θv by an operator that holds no factors.

## Exponents

Local exponents of the counted FLOPs, and of the memory behind the comma, at the large end of each axis.

{_exponents(costs)}
{_many(costs)}{_places(costs)}
## Beside the reference library

neural-tangents by structured derivatives and by Jacobian contraction, in its authors' own code, is beside this package in
[the benchmark](../../benchmarks.md), which says what the workloads are and what is measured; it was not run for this page.
"""


def _first(costs: Costs) -> str:
    return (
        f"**The method with the fewest FLOPs is the fastest at {followed(costs)}.**"
        if costs.seconds
        else "Times were not taken."
    )


def _exponents(costs: Costs) -> str:
    def rows() -> Iterator[list[str]]:
        for base in costs.bases:
            for method in (*PAPER, "product"):
                found = (_both(costs, base, axis, method) for axis in AXES)
                yield [base.architecture, method, *found]

    return grid(["architecture", "method", "N", "O", "W", "L"], rows()) + "\n"


def _both(costs: Costs, base: Point, axis: str, method: str) -> str:
    if len(costs.line(base, axis, method)) < 2:
        return "–"
    return ", ".join(f"{costs.exponent(base, axis, method, of):.2f}" for of in ("flops", "bytes"))


def _many(costs: Costs) -> str:
    """Kernels of very many outputs: FLOPs, memory and time, where there is one."""
    if not costs.size.many:
        return ""
    methods = ("jacobian", "structured")

    def cell(point: Point, method: str) -> str:
        found, seconds = costs.found[point, method, False], costs.seconds.get(point, {}).get(method)
        told = f"{found['flops'] / 1e9:.3g} G, {found['bytes'] / 1e6:.3g} MB"
        return told + (f", {_seconds(float(np.median(seconds)))}{_range(seconds)}" if seconds else "")

    rows = ([point.key, *(cell(point, method) for method in methods)] for point in costs.size.many)
    return f"""
## Many outputs

{grid(["kernel", *methods], rows)}
"""


def _places(costs: Costs) -> str:
    """Where each method wins: GFLOPs and time side by side, the smallest of each in bold."""
    if not costs.seconds:
        return ""
    places = [point for point in costs.size.places if point in costs.seconds]
    turns = max(len(seconds) for found in costs.seconds.values() for seconds in found.values())
    heads = ["kernel", *PAPER, "one Θv", "products that one kernel is worth"]
    return f"""
## Where each wins

FLOPs and processor time of a full symmetric kernel; the fewest and the fastest in bold. Times are processor seconds of one
thread: medians of up to {turns} turns after one that does not count (fewer where calls are long), with the fastest and the slowest.
In a turn every method is called once, so that what else a machine does falls on all of them: the ratios count. Θv is one after the
second, which uses the factors of J that the operator then holds; the last column: from so many of those on, the kernel is the
cheaper way.

{grid(heads, (_place(costs, point) for point in places))}
"""


def _place(costs: Costs, point: Point) -> list[str]:
    found = {m: costs.found[point, m, True] for m in costs.seconds[point]}
    counts = {m: cost.get("again", cost["flops"]) for m, cost in found.items()}
    medians = {m: float(np.median(seconds)) for m, seconds in costs.seconds[point].items()}
    cells, built = [point.key], costs.built(point)
    for method in PAPER:
        if method not in built:
            cells.append("–")
            continue
        flops, seconds = f"{counts[method] / 1e9:.3g} G", _seconds(medians[method])
        flops = f"**{flops}**" if method == costs.fewest(point) else flops
        seconds = f"**{seconds}**" if method == costs.fastest(point) else seconds
        cells.append(f"{flops}, {seconds}{_range(costs.seconds[point][method])}")
    fewest, fastest = (min(of[m] for m in built) / of["product"] for of in (counts, medians))
    worth = f"{fewest:.3g} by FLOPs, {fastest:.3g} by time"
    return [*cells, f"{counts['product'] / 1e9:.3g} G, {_seconds(medians['product'])}", worth]


def figure(results: Results, path: Path) -> None:
    """FLOPs of each method along each axis, one row of panels for each architecture."""
    costs = Costs.of(results)
    names = [base.architecture for base in costs.bases]
    plot, axes = plt.subplots(len(names), 4, figsize=(11, 2.4 * len(names)), layout="constrained", squeeze=False)
    for row, base in zip(axes, costs.bases, strict=True):
        for panel, (axis, letter) in zip(row, AXES.items(), strict=True):
            for colour, method in zip(OKABE_ITO, (*PAPER, "product"), strict=False):
                line = costs.line(base, axis, method)
                panel.plot(
                    [x for x, _ in line], [c["flops"] for _, c in line], "o-", color=colour, label=method, markersize=3
                )
            values = [x for x, _ in costs.line(base, axis, "structured")]
            panel.set(xscale="log", yscale="log", xlabel=letter)
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
        row[0].set_ylabel(f"{base.architecture}: FLOPs")
    axes[0, 0].legend(fontsize=7)
    plot.savefig(path, dpi=100)
    plt.close(plot)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _range(seconds: list[float]) -> str:
    return f" ({_seconds(min(seconds))} – {_seconds(max(seconds))})" if len(seconds) > 1 else ""
