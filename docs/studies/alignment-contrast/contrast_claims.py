"""Whether output and target lie in the modes of *this* kernel, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from claims import Claim, spread
from contrast_runs import KERNELS
from results import Results

SPANS = "the output lies almost completely in the span of the top eigenfunctions during the whole run"
CHANGES = "the NTK changes dramatically and in a task-dependent way"
#: between these the median of ρ over pairs is at the edge of stability
EDGE = 0.95, 1.2
#: keys of the claims that the page explains where they do not hold, and whose energies they are of
OUTPUT, TARGET = "the output lies in the top modes of its own kernel more than of another", "so does the target"
OF = {OUTPUT: "output", TARGET: "target"}


def claims(results: Results) -> Iterator[Claim]:
    """The rows of the page."""
    yield _output(results)
    yield _target(results)
    yield _share(results)
    yield _edge(results)


def cases(results: Results, of: str) -> list[tuple[int, dict[str, list[float]]]]:
    """(step, energies by kernel) of every seed, moment and picture."""
    return [(m["step"], pair) for run in results.runs for m in run["moments"] for pair in m[of]]


def lost(results: Results, of: str, other: str) -> list[tuple[int, int]]:
    """(step, k) of each case in which the other kernel holds as much."""
    k = results.settings["k"]
    return [
        (step, k[i])
        for step, energies in cases(results, of)
        for i in range(len(k))
        if energies["own"][i] <= energies[other][i]
    ]


def _won(results: Results, of: str) -> str:
    count = len(cases(results, of)) * len(results.settings["k"])
    return ", ".join(
        f"above {other} in {count - len(lost(results, of, other))} of {count} cases" for other in KERNELS[1:]
    )


def _told(results: Results, of: str) -> str:
    return "; ".join(
        f"k = {k}: "
        + ", ".join(f"{name} {spread([e[name][i] for _, e in cases(results, of)], of='cases')}" for name in KERNELS)
        for i, k in enumerate(results.settings["k"])
    )


def _output(results: Results) -> Claim:
    phase = max(m["phase"] for run in results.runs for m in run["moments"])
    return Claim(
        OUTPUT,
        SPANS,
        "E(f_t, k) larger in Θ_t than in Θ_0 (frozen) and in Θ_t of the mirrored run (foreign), at every k, moment and seed",
        "derived",
        f"own {_won(results, 'output')}; {_told(results, 'output')}; within a pair up to {phase:.2g}",
        not any(lost(results, "output", other) for other in KERNELS[1:]),
    )


def _target(results: Results) -> Claim:
    return Claim(
        TARGET,
        CHANGES,
        "the same of E(y, k)",
        "derived",
        f"own {_won(results, 'target')}; {_told(results, 'target')}",
        not any(lost(results, "target", other) for other in KERNELS[1:]),
    )


def shares(results: Results) -> list[float]:
    """(own − foreign)/(own − frozen) of E(y, k) at the last moment, the smallest k: of each seed and picture."""
    last = [pair for run in results.runs for pair in run["moments"][-1]["target"]]
    return [(e["own"][0] - e["foreign"][0]) / (e["own"][0] - e["frozen"][0]) for e in last]


def _share(results: Results) -> Claim:
    return Claim(
        "how much of the rise is of the task",
        CHANGES,
        f"(own − foreign)/(own − frozen) of E(y, {results.settings['k'][0]}): 1 if all of it, 0 if none. A number, no verdict: "
        "that some of it is says nothing of how dramatic it is",
        "derived",
        f"{spread(shares(results), 2, 'runs')} at update {results.settings['moments'][-1]:,}",
        None,
    )


def _edge(results: Results) -> Claim:
    ratios, hessians = (
        [float(np.median([m[name] for m in run["moments"]])) for run in results.runs] for name in ("ratio", "hessian")
    )
    return Claim(
        "the run stays at the edge of stability",
        "",
        f"median over pairs of ρ = ηλ_1(Θ)/2N between {EDGE[0]:g} and {EDGE[1]:g}, every seed: above 1 the quadratic model is "
        "unstable, the network is not",
        "derived",
        f"ρ {spread(ratios)}; of the Hessian, ηλ_1(∇²L)/2, {spread(hessians)}",
        all(EDGE[0] < ratio < EDGE[1] for ratio in ratios),
    )


def why_not(results: Results, key: str) -> str:
    """Where another kernel holds as much of the output or of the target, in words."""
    of, told = OF[key], []
    for other in KERNELS[1:]:
        found = lost(results, of, other)
        each = ", ".join(f"update {t:,} at k = {k} ({found.count((t, k))})" for t, k in sorted(set(found)))
        if each:
            told.append(f"the {other} kernel holds as much at {each}")
    k = results.settings["k"]
    course = "; ".join(
        f"k = {modes}: "
        + ", ".join(
            f"{np.median([e['own'][i] - e['foreign'][i] for step, e in cases(results, of) if step == t]):+.3f} at {t:,}"
            for t in results.settings["moments"]
        )
        for i, modes in enumerate(k)
    )
    return f"{key}: {'; '.join(told)}, of {2 * len(results.runs)} pairs each. Median of own − foreign over updates, {course}."
