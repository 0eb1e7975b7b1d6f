"""The abstract's own claims and the checks R1 to R13, on the picture by gradient descent; a decay's are in alignment_decays.py.

Each takes the runs and returns rows of the table. What decides is the abstract or what can be derived; where only a
recollection of the paper is at hand, the row says what was measured and decides nothing. Over several seeds a claim holds
when it holds for every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from alignment_decays import PHASE, emptied, first_order_decay, scaled, spreading, staircase
from alignment_numbers import Runs, Track, at, between, expected_diagonal, pair, paired
from alignment_tracks import ALMOST
from claims import Claim, spread
from portrait import mlp

#: What the abstract says.
CHANGES = "the NTK changes dramatically and in a task-dependent way"
ALIGNS = "its top eigenfunctions align to the target"
SPANS = "the output lies almost completely in their span during the whole run"
FAST = "learning along top eigenfunctions is fast"
#: ρ at the edge: above 1 the quadratic model of the loss is unstable, the network is not.
EDGE = 0.95, 1.2


def claims(runs: Runs) -> Iterator[Claim]:
    """All rows, in the order of the table."""
    for check in (
        changed,
        task_dependent,
        fast,
        parameters,
        diagonal,
        rays,
        edge,
        staircase,
        scaled,
        target,
        output,
        spreading,
        emptied,
        residual,
        first_order,
        first_order_decay,
        frequencies,
        few_modes,
    ):
        yield check(runs)


# -- the abstract's own claims -------------------------------------------------------------------------------------------


def changed(runs: Runs) -> Claim:
    def number(run: Track) -> float:
        return float(run.values("relative_kernel_change")[-1])

    turned = runs.each(lambda r: float(run_angle(r)))
    return Claim(
        "A1 the kernel moves",
        CHANGES,
        "‖Θ_T − Θ_0‖/‖Θ_0‖ above 1: the change is larger than the kernel was",
        "derived",
        f"‖Θ_T − Θ_0‖/‖Θ_0‖ = {runs.each(number)}; angle to Θ_0 {turned} rad",
        runs.every(lambda r: number(r) > 1),
    )


def run_angle(run: Track) -> float:
    return float(np.arccos(1 - run.values("kernel_distance_from_initial")[-1]))


def task_dependent(runs: Runs) -> Claim:
    """Same initialisation, same points, mirrored picture: each kernel against both targets."""
    own, foreign, start = ([v for found in runs.mirror for v in found[name]] for name in ("own", "foreign", "start"))
    shares = [(a - b) / (a - c) for a, b, c in zip(own, foreign, start, strict=True)]
    return Claim(
        "A2 … in a task-dependent way",
        CHANGES,
        f"E(y, {runs.k[0]}) larger in the kernel trained on y than in one trained on the mirrored picture from the same start. "
        "The share of the rise that is of the task, (own − foreign)/(own − start), stands beside it: how dramatic it is the order "
        "does not decide",
        "derived",
        f"step {runs.mirror[0]['step']:,}, means of pairs: own {_range(own)}, foreign {_range(foreign)}, start {_range(start)}; "
        f"{len(own)} pictures; share of the task {spread(shares, 2, of='pictures')}",
        all(a > b for a, b in zip(own, foreign, strict=True)),
    )


def fast(runs: Runs) -> Claim:
    """The first few as a group of their own: at the edge of stability they flip their sign at every update and stay."""
    few, some, many = runs.k
    left = [f.run["missing"] for f in runs.main]
    names = (f"1–{few}", f"{few + 1}–{some}", f"{some + 1}–{many}", f"beyond {many}")
    told = "; ".join(f"modes {n}: {spread([v[i] for v in left], 2)}" for i, n in enumerate(names))
    return Claim(
        "A3 top modes are learned first",
        FAST,
        "speed 1 − |1 − ηλ_i/N|: what is missing at the end, ‖m‖²/‖y‖² by groups of modes, is least within the first "
        f"{some} and grows beyond",
        "derived",
        told,
        all(max(v[:2]) < v[2] < v[3] for v in left),
    )


# -- R1 to R3: the start -------------------------------------------------------------------------------------------------


def parameters(runs: Runs) -> Claim:
    def formula(w: int, d: int) -> int:
        return 3 * w + (d - 2) * (w * w + w) + w + 1

    r = runs.recipe
    counted = [f.run["parameters"] for f in runs.main]
    paper = sum(p.numel() for p in mlp(2, 256, 6, 1).parameters())
    return Claim(
        "R1 number of parameters",
        "",
        f"{formula(r.width, r.depth):,} here, 264,193 at the paper's width",
        "derived",
        f"{counted[0]:,} here; the same function builds {paper:,} at width 256",
        set(counted) == {formula(r.width, r.depth)} and paper == 264_193,
    )


def diagonal(runs: Runs) -> Claim:
    """The closed form against the mean over initialisations; it is exact up to 1/width, and the mean to its standard error."""
    r, expected, drawn = runs.recipe, expected_diagonal(runs.recipe), runs.diagonals
    mean, error = float(np.mean(drawn)), float(np.std(drawn, ddof=1) / len(drawn) ** 0.5)
    top = runs.each(lambda run: at(run, "eigenvalue_1", 0))
    return Claim(
        "R2 the first kernel",
        "",
        f"mean of diag Θ_0 over initialisations {expected:.3g}",
        "derived",
        f"{mean:.3g} ± {error:.2g} (standard error over {len(drawn)} initialisations); λ_1/N = {top}",
        abs(mean - expected) < 3 * error + expected / r.width,
    )


def rays(runs: Runs) -> Claim:
    def share(run: Track, row: int) -> float:
        return float(run["rays"][row])

    return Claim(
        "R3 first eigenfunctions are wedges",
        "",
        "with zero biases Θ_0 is affine along every ray from the centre, and so are modes 2–6; later not",
        "derived",
        f"share r·a(φ) + b(φ) of modes 2–6: {runs.each(lambda r: share(r, 0))} at the start, "
        f"{runs.each(lambda r: share(r, -1))} at the end; |⟨v_1, 1⟩|/√N = {runs.each(lambda r: r['constant'])}",
        runs.every(lambda r: share(r, 0) > 0.9 and share(r, 0) > share(r, -1)),
    )


# -- R4: the edge of stability ------------------------------------------------------------------------------------------


def edge(runs: Runs) -> Claim:
    def arrival(run: Track) -> int:
        return int(run.steps[np.flatnonzero(run.values("stability_ratio") > 0.9)[0]])

    def hover(run: Track, name: str = "stability_ratio") -> float:
        return float(np.median(_pairs(run, name, arrival(run), runs.decays[0])))

    reached = runs.every(lambda r: bool((r.values("stability_ratio") > 0.9).any()))
    bound = 2 / runs.recipe.rate
    measured = (
        f"ρ first above 0.9 at step {runs.each(arrival)}; from there to the first decay, median of the pairs' means: ρ = "
        f"{runs.each(hover)}, of the Hessian, ηλ_1(∇²L)/2 = {runs.each(lambda r: hover(r, 'hessian_stability_ratio'))}; within a "
        f"pair ρ differs by up to {runs.each(lambda r: _phase(r, 'stability_ratio', arrival(r), runs.decays[0]), 2)}"
        if reached
        else "ρ never comes above 0.9"
    )
    low, high = EDGE
    return Claim(
        "R4 λ_1 goes to 2N/δ and stays",
        "",
        f"λ_1/N near {bound:g}: median over pairs (t − 1, t) of ρ between {low:g} and {high:g}; above 1 the quadratic model is "
        "unstable, the network is not, below it nothing ends the growth",
        "derived",
        measured,
        reached and runs.every(lambda r: low < hover(r) < high),
    )


def _pairs(run: Track, name: str, first: int, last: int) -> list[float]:
    """Means of a quantity over the pairs (t − 1, t) within [first, last]."""
    return [pair(run, name, t) for t in paired(run) if first < t <= last]


def _phase(run: Track, name: str, first: int, last: int) -> float:
    """The largest difference within one of them."""
    return max(abs(at(run, name, t) - at(run, name, t - 1)) for t in paired(run) if first < t <= last)


# -- R7 to R10: where target, output and residual lie --------------------------------------------------------------------


def target(runs: Runs) -> Claim:
    few, some, many = runs.k
    told = ", ".join(
        f"k = {k}: {runs.each(lambda r, k=k: at(r, f'target_energy_{k}', 0), 2)} → "
        f"{runs.each(lambda r, k=k: _median_late(r, f'target_energy_{k}', runs), 2)}"
        for k in (few, some, many)
    )
    null = runs.each(lambda r: r.values(f"target_energy_null_{few}")[-1], 2)
    return Claim(
        "R7 the target in the top modes",
        ALIGNS,
        f"E(y, k) above its start by more than {PHASE:g}, as means of pairs; the paper has E(y, 20) near 0.9 and E(y, 200) near "
        "0.98",
        "recalled",
        f"E(y, k) at the start → before the first decay, {told}; permuted targets at k = {few}: {null}",
        runs.every(
            lambda r: all(
                _median_late(r, f"target_energy_{k}", runs) > at(r, f"target_energy_{k}", 0) + PHASE
                for k in (few, some)
            )
        ),
    )


def _median_late(run: Track, name: str, runs: Runs) -> float:
    """Of the pairs in the later half of the first block."""
    return float(np.median(_pairs(run, name, runs.decays[0] // 2, runs.decays[0])))


def output(runs: Runs) -> Claim:
    _, some, many = runs.k

    def lowest(run: Track, k: int) -> float:
        return float(np.nanmin(run.values(f"output_energy_{k}")))

    told = ", ".join(
        f"k = {k} of {runs.recipe.samples:,}: {runs.each(lambda r, k=k: lowest(r, k), 4)}" for k in (some, many)
    )
    return Claim(
        "R8 the output in the top modes",
        SPANS,
        f"E(f_t, {many}) near 1; the paper has 0.99 for a few hundred",
        "recalled",
        f"smallest E(f_t, k) over all snapshots, {told}. So many modes hold most of anything smooth: "
        "[alignment-contrast](../alignment-contrast/README.md) decides, at small k and against other kernels",
        None,
    )


def residual(runs: Runs) -> Claim:
    many = runs.k[2]
    return Claim(
        "R10 the residual lies at the bottom",
        "",
        "E(m, 0.4 N) near 0.1 at the end",
        "recalled",
        f"E(m, {many}) {runs.each(lambda r: at(r, f'residual_energy_{many}', 0), 2)} at the start, "
        f"{runs.each(lambda r: r.values(f'residual_energy_{many}')[-1], 2)} at the end",
        None,
    )


# -- R11 to R13 ----------------------------------------------------------------------------------------------------------


def first_order(runs: Runs) -> Claim:
    def median(run: Track, name: str) -> float:
        return float(np.nanmedian(between(run, name, runs.decays[0] // 10, runs.decays[0] - 1)))

    return Claim(
        "R11 first-order dynamics",
        "",
        "error near 0.1 and cosine near 0.95 at the edge",
        "recalled",
        f"median over the first block: error {runs.each(lambda r: median(r, 'kernel_flow_error'), 2)}, cosine "
        f"{runs.each(lambda r: median(r, 'linearization_cosine'), 3)}",
        None,
    )


def frequencies(runs: Runs) -> Claim:
    def correlation(run: Track, row: int) -> float:
        return float(run["frequencies"][row])

    return Claim(
        "R12 small eigenvalue, high frequency",
        "",
        "rank correlation of index and mean frequency above 0.8",
        "recalled",
        f"{runs.each(lambda r: correlation(r, 0), 2)} at the start, {runs.each(lambda r: correlation(r, -1), 2)} at the end "
        f"(first {runs.main[0].run['vectors']} modes)",
        None,
    )


def few_modes(runs: Runs) -> Claim:
    """Beside the error, why it is what it is: how much of the target's detail the output has taken up, and how many modes
    hold it."""
    some = runs.k[1]

    def error(run: Track, row: int = -1) -> float:
        return float(max(1 - run.values(f"output_energy_{some}")[row], 0) ** 0.5)

    def held_by(run: Track) -> float:
        return float(run["held_by"])

    def early(run: Track) -> int:
        return int(np.flatnonzero(run.steps >= runs.decays[0] // 10)[0])

    return Claim(
        "R13 few modes make the output",
        SPANS,
        f"‖f − P_{some} f‖/‖f‖ at the end a few percent; at most {(1 - ALMOST) ** 0.5:.2f} decides",
        "recalled",
        f"{runs.each(error, 2)} at the end, where the loss is {runs.each(lambda r: r.values('probe_loss')[-1], 2)} and "
        f"{ALMOST:.0%} of the output's energy needs {runs.each(held_by)} modes; at step {runs.decays[0] // 10:,} "
        f"{runs.each(lambda r: error(r, early(r)), 2)}, at loss {runs.each(lambda r: r.values('probe_loss')[early(r)], 2)}",
        runs.every(lambda r: error(r) ** 2 < 1 - ALMOST),
    )


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
