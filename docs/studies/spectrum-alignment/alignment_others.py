"""What the picture by gradient descent does not show: other shapes (R14), other optimizers, a classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from alignment_checks import ALIGNS, SPANS
from alignment_decays import DECAY, PHASE
from alignment_numbers import Forked, Runs, at, between, last_step, pair, smallest
from alignment_tracks import ALMOST
from claims import Claim, spread

#: seeds that a verdict on another optimizer needs
SEEDS = 3


def claims(runs: Runs) -> Iterator[Claim]:
    """All rows, in the order of the table."""
    yield depth(runs)
    yield width(runs)
    for name, seeds in runs.others.items():
        yield other_optimizer(runs, name, seeds)
    yield classification(runs)


def depth(runs: Runs) -> Claim:
    shapes = sorted((s for s in runs.sweep if s[0] == runs.recipe.width), key=lambda s: s[1])
    found = [_at_sweep(runs, *shape) for shape in shapes]
    told = ", ".join(f"depth {d}: {spread(v, 3)}" for (_, d), v in zip(shapes, found, strict=True))
    medians = [float(np.median(v)) for v in found]
    steps = sum(a < b for a, b in pairwise(medians))
    return Claim(
        "R14 depth raises alignment",
        "",
        f"E(y, {runs.k[2]}) grows with depth",
        "recalled",
        f"step {runs.sweep_step:,} (pairs), width {runs.recipe.width}: E(y, {runs.k[2]}) {told}; {steps} of {len(medians) - 1} "
        f"steps up. E(y, {runs.k[0]}) {_list(runs, shapes, runs.k[0])}; loss {_list(runs, shapes)}",
        None,
    )


def width(runs: Runs) -> Claim:
    shapes = sorted((w, d) for w, d in runs.sweep if d == 2)
    found = [_at_sweep(runs, *shape) for shape in shapes]
    told = ", ".join(f"width {w:,}: {spread(v, 3)}" for (w, _), v in zip(shapes, found, strict=True))
    deep = float(np.median(_at_sweep(runs, runs.recipe.width, runs.recipe.depth)))
    return Claim(
        "R14 … and width at depth two does not",
        "",
        f"E(y, {runs.k[2]}) flat in width, and below the deep network with as many parameters",
        "recalled",
        f"depth 2, {told}; depth {runs.recipe.depth} with as many parameters as the widest: {deep:.3g}. "
        f"E(y, {runs.k[0]}) {_list(runs, shapes, runs.k[0])}",
        None,
    )


def _at_sweep(runs: Runs, w: int, d: int, name: str = "") -> list[float]:
    return [pair(run, name or f"target_energy_{runs.k[2]}", runs.sweep_step) for run in runs.sweep[w, d]]


def _list(runs: Runs, shapes: list[tuple[int, int]], k: int | None = None) -> str:
    name = "probe_loss" if k is None else f"target_energy_{k}"
    return ", ".join(f"{np.median(_at_sweep(runs, *shape, name)):.2g}" for shape in shapes)


def other_optimizer(runs: Runs, name: str, seeds: list[Forked]) -> Claim:
    few, _, many = runs.k
    (decay,) = seeds[0].controls

    def each(number: Callable[[Forked], float], digits: int = 2) -> str:
        return spread([number(f) for f in seeds], digits)

    def start(forked: Forked) -> float:
        return at(forked.run, f"target_energy_{few}", 0)

    def end(forked: Forked) -> float:
        return pair(forked.run, f"target_energy_{few}", last_step(forked.run))

    def lowest(forked: Forked) -> float:
        return smallest(forked.run, f"output_energy_{many}")[0]

    def ratio(forked: Forked, first: int, last: int) -> float:
        return float(np.median(between(forked.run, "stability_ratio", first, last)))

    def grown(forked: Forked, i: int) -> float:
        run, control = forked.late(f"eigenvalue_{i}", decay)
        return run / control

    aligned = {
        of: each(lambda f, kind=kind: f.run.values(f"{kind}_target_alignment")[-1])
        for of, kind in (("J P Jᵀ", "optimizer"), ("Θ", "kernel"))
    }
    signs = [[end(f) > start(f) + PHASE, lowest(f) > ALMOST, grown(f, 1) > 1] for f in seeds]
    return Claim(
        f"O {name}",
        f"{ALIGNS}; {SPANS}; {DECAY}",
        f"as under gradient descent (the authors' slides): E(y, {few}) rises by more than {PHASE:g}, E(f_t, {many}) stays above "
        f"{ALMOST}, and λ_1 grows after a decay, against the control, in every seed",
        "read",
        f"E(y, {few}) {each(start)} → {each(end)}; E(f_t, {many}) ≥ {each(lowest, 4)}, "
        f"least at step {each(lambda f: smallest(f.run, f'output_energy_{many}')[1], 4)}; ρ "
        f"{each(lambda f: ratio(f, decay // 2, decay - 1))} before the decay, {each(lambda f: ratio(f, decay, decay))} at it; "
        f"λ_1 ×{each(lambda f: grown(f, 1))} and λ_10 ×{each(lambda f: grown(f, 10))} against the control; alignment "
        + ", ".join(f"of {of} with the target {told}" for of, told in aligned.items()),
        _agreed(signs),
    )


def _agreed(signs: list[list[bool]]) -> bool | None:
    """Of each seed, whether each part holds: yes or no where all seeds say so of each, else (or of one seed) undecided."""
    parts = [set(part) for part in zip(*signs, strict=True)]
    if len(signs) < SEEDS or (any(len(part) > 1 for part in parts) and {False} not in parts):
        return None
    return all(part == {True} for part in parts)


def classification(runs: Runs) -> Claim:
    def each(number: Callable[[Forked], float], digits: int = 2) -> str:
        return spread([number(f) for f in runs.digits], digits)

    (decay,) = runs.digits[0].controls
    few, some, many = runs.digits[0].run.modes
    name, spanned = f"target_energy_centred_{few}", f"output_energy_{some}"
    holds = all(
        f.run.values(name)[-1] > f.run.values(name)[0] and np.nanmin(f.run.values(spanned)) > ALMOST
        for f in runs.digits
    )
    grown = [[a / b for a, b in (f.late(f"eigenvalue_{i}", decay) for f in runs.digits)] for i in (1, 10)]
    return Claim(
        "C cross-entropy on digits",
        f"{ALIGNS}; {SPANS}",
        "as for least squares (the paper's appendix, details not known); functions in the gauge of softmax",
        "recalled",
        f"E(Hy, {few}) {each(lambda f: f.run.values(name)[0])} → {each(lambda f: f.run.values(name)[-1])}; "
        f"smallest E(f_t, {some}) {each(lambda f: smallest(f.run, spanned)[0], 4)}, at step "
        f"{each(lambda f: smallest(f.run, spanned)[1], 4)}, and E(f_t, {many}) "
        f"{each(lambda f: smallest(f.run, f'output_energy_{many}')[0], 4)}; the former decides; ρ at the decay "
        f"{each(lambda f: at(f.controls[decay], 'stability_ratio', decay))}, at the end "
        f"{each(lambda f: f.run.values('stability_ratio')[-1])} (fitted, so the loss has no curvature left); "
        f"against the control λ_1 ×{spread(grown[0], 2)}, λ_10 ×{spread(grown[1], 2)}",
        holds,
    )
