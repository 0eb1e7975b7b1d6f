"""The page of the cost study and its figure, written from what was measured."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from claims import ran_on, table
from fast_claims import AXES, GAIN, PAPER, Costs, claims

from kerneltrack.analysis.figures.style import OKABE_ITO

WHY_NOT = {
    GAIN: """Where structured derivatives take more FLOPs than the Jacobian, the order of contraction is not that of the fewest:
`"structured"` chooses orders by estimated time, in which a FLOP of a thin product and a byte of traffic count for more."""
}


def page(name: str, costs: Costs) -> str:
    """README.md."""
    rows = list(claims(costs))
    refuted = {row.key for row in rows if row.holds is False}
    reason = "".join(f"\n{why}\n" for key, why in WHY_NOT.items() if key in refuted)
    return f"""# The cost of a finite-width kernel

R. Novak, J. Sohl-Dickstein and S. Schoenholz, *Fast Finite Width Neural Tangent Kernel* (arXiv 2206.08720), redone with the
methods of this package. The paper's body was not at hand: the formulas are derived, the architectures and sizes are this
study's own.

| in the paper | `method=` | cost for an FCN, leading order |
| --- | --- | --- |
| {PAPER["jacobian"]} | `"jacobian"` | N²O²LW² |
| {PAPER["products"]} | `"products"` | N²OLW² |
| {PAPER["structured"]} | `"structured"`, and `"auto"` where a structure is known | N²O²LW + NOLW² |
| – | `NTKOperator`, k products Θv | k · NLW² |

```bash
[BENCH_NEURAL_TANGENTS=/path/to/python] python docs/studies/fast-ntk/study.py --size {name}
```

N samples, O outputs, P parameters, W width (channels), L depth (weight layers; residual blocks; encoder layers), FP the FLOPs of
one forward pass of one sample. FLOPs are counted while the method runs (`torch.utils.flop_counter`: matrix products,
convolutions, attention; no elementwise work; what it counts wrongly is put right in [fast_costs.py](fast_costs.py)). Counts are the
same on every machine, so there is no spread. Weights are random, inputs normal, everything in eval mode; full kernels, O×O blocks,
of N samples with N others: of a symmetric kernel every method leaves out blocks below the diagonal.

Counted on {ran_on()}.

{table(rows)}{reason}
![FLOPs along each axis](flops.png)

FLOPs of a full kernel along each axis, the others as in the fourth row of the table;
`product` is one Θv by an operator that holds no factors.

## Exponents

Local exponents of the counted FLOPs at the large end of each axis.

{_exponents(costs)}
{_places(costs)}{_peers(costs)}"""


def _exponents(costs: Costs) -> str:
    lines = ["| architecture | method | N | O | W | L |", "| --- " * 6 + "|"]
    for base in costs.bases:
        for method in (*PAPER, "product"):
            cells = []
            for axis in AXES:
                row = costs.lines.get((base.architecture, axis, method), [])
                cells.append(f"{costs.exponent(base.architecture, axis, method):.2f}" if len(row) > 1 else "–")
            lines.append(f"| {base.architecture} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _places(costs: Costs) -> str:
    """Where each method wins: GFLOPs and time side by side, the smallest of each in bold."""
    if not costs.seconds:
        return ""
    lines = [
        "| kernel | " + " | ".join(PAPER) + " | one Θv | products that one kernel is worth |",
        "| --- " * (len(PAPER) + 3) + "|",
    ]
    for point, by_method in costs.seconds.items():
        counts = {m: cost.get("again", cost["flops"]) for m, cost in costs.places[point].items()}
        medians = {m: found["median"] for m, found in by_method.items()}
        cells, built = [], [m for m in PAPER if m in medians]
        for method in PAPER:
            if method not in built:
                cells.append("–")
                continue
            flops, seconds = f"{counts[method] / 1e9:.3g} G", _seconds(medians[method])
            flops = f"**{flops}**" if counts[method] == min(counts[m] for m in built) else flops
            seconds = f"**{seconds}**" if medians[method] == min(medians[m] for m in built) else seconds
            cells.append(f"{flops}, {seconds}{_range(by_method[method]['seconds'])}")
        fewest, fastest = (min(of[m] for m in built) / of["product"] for of in (counts, medians))
        worth = f"{fewest:.3g} by FLOPs, {fastest:.3g} by time"
        cells += [f"{counts['product'] / 1e9:.3g} G, {_seconds(medians['product'])}", worth]
        lines.append(f"| {point.key} | " + " | ".join(cells) + " |")
    repeats = max(len(f["seconds"]) for found in costs.seconds.values() for f in found.values())
    threads = max(f["threads"] for found in costs.seconds.values() for f in found.values())
    return f"""
## Where each wins

FLOPs and wall time of a full symmetric kernel; the fewest and the fastest in bold. Times are medians of up to {repeats} calls
after one that does not count (fewer where calls are long; a call of over four seconds is taken once), with the fastest and the
slowest, on {threads} thread{"s" if threads > 1 else ""}. Θv is one after the second, which uses the factors of J that the operator
then holds; the last column: from so many of those on, the kernel is the cheaper way.

{chr(10).join(lines)}
"""


def _peers(costs: Costs) -> str:
    if not costs.peers:
        return "\nneural-tangents was not installed where this ran.\n" if costs.seconds else ""
    lines = ["| workload | package · method | time | fastest – slowest | compiled in | error |", "| --- " * 6 + "|"]
    for row in costs.peers:
        head = f"| {row['workload']} | {row['peer']} · {row['method']} | "
        if "failed" in row:
            lines.append(head + f"{row['failed']} | | | |")
            continue
        compiled = f"{row['compile']:.1f} s" if "compile" in row else ""
        times = row["times"]
        span = f"{_seconds(min(times))} – {_seconds(max(times))} ({len(times)})"
        lines.append(head + f"{_seconds(float(np.median(times)))} | {span} | {compiled} | {row['error']:.0e} |")
    return f"""
## Beside neural-tangents

By the harness of [the benchmark](../../benchmarks.md), which says what the workloads are and what is measured: the same weights
and inputs, each package in a fresh process, two threads. *structured* and *contraction* are the paper's structured derivatives and
Jacobian contraction, in its authors' own code; compilation is not in the time.

{chr(10).join(lines)}
"""


def figure(costs: Costs, path: Path) -> None:
    """FLOPs of each method along each axis, one row of panels for each architecture."""
    names = [base.architecture for base in costs.bases]
    plot, axes = plt.subplots(len(names), 4, figsize=(11, 2.4 * len(names)), layout="constrained", squeeze=False)
    for row, architecture in zip(axes, names, strict=True):
        for panel, (axis, letter) in zip(row, AXES.items(), strict=True):
            for colour, method in zip(OKABE_ITO, (*PAPER, "product"), strict=False):
                line = costs.lines.get((architecture, axis, method), [])
                panel.plot(
                    [x for x, _ in line], [c["flops"] for _, c in line], "o-", color=colour, label=method, markersize=3
                )
            values = [x for x, _ in costs.lines[architecture, axis, "structured"]]
            panel.set(xscale="log", yscale="log", xlabel=letter)
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
        row[0].set_ylabel(f"{architecture}: FLOPs")
    axes[0, 0].legend(fontsize=7)
    plot.savefig(path, dpi=100)
    plt.close(plot)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _range(seconds: list[float]) -> str:
    return f" ({_seconds(min(seconds))} – {_seconds(max(seconds))})" if len(seconds) > 1 else ""
