"""What follows if alignment speeds learning up, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from claims import Claim, spread
from results import Results

#: the key of the claim that the page explains where it does not hold
LATER = "the network is slower than its own later kernel"
FAST = "learning along the top eigenfunctions is fast: alignment speeds learning up"
RATES = {"own": "each at its own rate", "common": "at a common rate"}


def claims(results: Results) -> Iterator[Claim]:
    """The rows of the page."""
    runs, levels = results.runs, results.settings["levels"]
    yield Claim(
        "the kernel that training made learns the target in fewer updates",
        FAST,
        "n(Θ_t0) < n(Θ_0) at every level, at both rates, for every seed",
        "read",
        _factors(runs, levels, "start", "own"),
        all(a > b for a, b in _pairs(runs, "start", "own")),
    )
    yield Claim(
        "one that learned another target lies between",
        "the NTK changes in a task-dependent way",
        "n(Θ_t0) < n(Θ_t0 of the mirrored portrait) < n(Θ_0): a part of the gain is of the task, a part is not",
        "derived",
        "over the own kernel's: " + _factors(runs, levels, "foreign", "own"),
        all(a > b for a, b in (*_pairs(runs, "foreign", "own"), *_pairs(runs, "start", "foreign"))),
    )
    beside = [
        (k["start"][i], n["reached"][i])
        for k, n in _both(runs)
        for i in range(len(levels))
        if n["reached"][i] is not None
    ]
    missed = sum(n["reached"][i] is None for _, n in _both(runs) for i in range(len(levels)))
    yield Claim(
        "the network learns in fewer updates than its linear model",
        FAST,
        "n(network) < n(Θ_0) wherever the network arrived",
        "read",
        f"in {sum(n < k for k, n in beside)} of {len(beside)} cases"
        + (f"; in {missed} more the network did not arrive" if missed else ""),
        all(n < k for k, n in beside) if beside else None,
    )
    yield Claim(
        LATER,
        "",
        "n(Θ_t0) < n(network): the kernel has to be made first",
        "derived",
        _network_over_own(runs, levels),
        all(n > k["own"][i] for k, m in _both(runs) for i, n in enumerate(m["reached"]) if n is not None),
    )


def overtaken(results: Results) -> str:
    """Where the network was faster than the kernel Θ_t0 that it passed through, in words."""
    moment, levels = results.settings["moment"], results.settings["levels"]
    cases = [
        f"seed {run['seed']} at {level:.0%}, {words} ({n:,} against {run[f'kernels_{rate}']['own'][i]:,})"
        for run in results.runs
        for rate, words in RATES.items()
        for i, level in enumerate(levels)
        for n in [run[f"network_{rate}"]["reached"][i]]
        if n is not None and n < run[f"kernels_{rate}"]["own"][i]
    ]
    return (
        f"{LATER}: not {'; '.join(cases)}. The network's kernel goes on changing after update {moment:,}, and a frozen one "
        "has a slow tail of its own."
    )


def _both(runs: list[dict[str, Any]]) -> list[tuple[dict[str, list[int]], dict[str, Any]]]:
    return [(run[f"kernels_{rate}"], run[f"network_{rate}"]) for run in runs for rate in RATES]


def _pairs(runs: list[dict[str, Any]], slow: str, fast: str) -> list[tuple[int, int]]:
    return [pair for kernels, _ in _both(runs) for pair in zip(kernels[slow], kernels[fast], strict=True)]


def _factors(runs: list[dict[str, Any]], levels: list[float], slow: str, fast: str) -> str:
    told = []
    for rate, words in RATES.items():
        each = [
            f"{spread([run[f'kernels_{rate}'][slow][i] / run[f'kernels_{rate}'][fast][i] for run in runs])} at {level:.0%}"
            for i, level in enumerate(levels)
        ]
        told.append(f"{words}, times as many updates: {', '.join(each)}")
    return "; ".join(told)


def _network_over_own(runs: list[dict[str, Any]], levels: list[float]) -> str:
    told = []
    for rate, words in RATES.items():
        for i, level in enumerate(levels):
            there = [
                run[f"network_{rate}"]["reached"][i] / run[f"kernels_{rate}"]["own"][i]
                for run in runs
                if run[f"network_{rate}"]["reached"][i] is not None
            ]
            if there:
                told.append(f"{spread(there)} times at {level:.0%}, {words}")
    return "; ".join(told) or "the network did not arrive"
