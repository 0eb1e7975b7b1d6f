"""The abstract's own claims and the checks R1 to R13, on the picture by gradient descent.

Each takes the runs and returns rows of the table. What decides is the abstract or what can be derived; where only a
recollection of the paper is at hand, the row says what was measured and decides nothing. Over several seeds a claim holds
when it holds for every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from alignment_numbers import (
    Runs,
    at,
    between,
    energy_of,
    expected_diagonal,
    last_step,
    missing_by_modes,
    predicted_energy_after,
    rank_correlation,
    ray_share,
)
from alignment_runs import data
from claims import Claim, spread
from portrait import mlp

from kerneltrack import NTKOperator
from kerneltrack.analysis import Run
from kerneltrack.analysis.derived.eigenfunctions import mean_frequencies
from kerneltrack.analysis.derived.quantities import quantity
from kerneltrack.analysis.figures.canvas import planar_inputs

#: What the abstract says.
CHANGES = "the NTK changes dramatically and in a task-dependent way"
ALIGNS = "its top eigenfunctions align to the target"
SPANS = "the output lies almost completely in their span during the whole run"
FAST = "learning along top eigenfunctions is fast"
DECAY = "learning-rate decay changes the spectrum in systematic ways"
#: The share of energy that is called "almost completely".
ALMOST = 0.98
#: Initialisations over which the closed form of the first kernel's diagonal is tested.
DRAWS = 32


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
    def number(run: Run) -> float:
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


def run_angle(run: Run) -> float:
    return float(np.arccos(1 - run.values("kernel_distance_from_initial")[-1]))


def task_dependent(runs: Runs) -> Claim:
    """Same initialisation, same points, mirrored picture: each kernel against both targets."""
    k, step = runs.k[0], last_step(runs.mirror[0])
    own, foreign = [], []
    for forked, mirror in zip(runs.main, runs.mirror, strict=True):
        targets = [run.values("targets").reshape(-1) for run in (forked.run, mirror)]
        table = [[energy_of(run, step, y, k) for y in targets] for run in (forked.run, mirror)]
        own += [table[0][0], table[1][1]]
        foreign += [table[1][0], table[0][1]]
    return Claim(
        "A2 … in a task-dependent way",
        CHANGES,
        f"E(y, {k}) larger in the kernel trained on y than in one trained on the mirrored picture from the same start; "
        "[alignment-contrast](../alignment-contrast/README.md) says how much of the rise that is",
        "derived",
        f"step {step:,}: own {_range(own)}, foreign {_range(foreign)}; {len(own)} pairs",
        all(a > b for a, b in zip(own, foreign, strict=True)),
    )


def fast(runs: Runs) -> Claim:
    """The first few as a group of their own: at the edge of stability they flip their sign at every update and stay."""
    few, some, many = runs.k
    left = [missing_by_modes(f.run, [few, some, many]) for f in runs.main]
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
    counted = [sum(int(np.prod(p["shape"])) for p in f.run.provenance["parameters"]) for f in runs.main]
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
    r, expected = runs.recipe, expected_diagonal(runs.recipe)
    x = data(r)[0][:100]
    scale = float(x.square().sum(dim=1).mean()) / 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [NTKOperator(mlp(2, r.width, r.depth, 1), x / scale**0.5).trace() / len(x) for _ in range(DRAWS)]
    mean, error = float(np.mean(drawn)), float(np.std(drawn, ddof=1) / DRAWS**0.5)
    top = runs.each(lambda run: at(run, "eigenvalue_1", 0))
    return Claim(
        "R2 the first kernel",
        "",
        f"mean of diag Θ_0 over initialisations {expected:.3g}",
        "derived",
        f"{mean:.3g} ± {error:.2g} (standard error over {DRAWS} initialisations); λ_1/N = {top}",
        abs(mean - expected) < 3 * error + expected / r.width,
    )


def rays(runs: Runs) -> Claim:
    def share(run: Run, row: int) -> float:
        return float(np.mean(ray_share(planar_inputs(run), run.at("eigenvectors", row)[:, 0, 1:6])))

    def constant(run: Run) -> float:
        v = run.at("eigenvectors", 0)[:, 0, 0]
        return float(abs(v.sum()) / len(v) ** 0.5)

    return Claim(
        "R3 first eigenfunctions are wedges",
        "",
        "with zero biases Θ_0 is affine along every ray from the centre, and so are modes 2–6; later not",
        "derived",
        f"share r·a(φ) + b(φ) of modes 2–6: {runs.each(lambda r: share(r, 0))} at the start, "
        f"{runs.each(lambda r: share(r, -1))} at the end; |⟨v_1, 1⟩|/√N = {runs.each(constant)}",
        runs.every(lambda r: share(r, 0) > 0.9 and share(r, 0) > share(r, -1)),
    )


# -- R4 to R6: the spectrum and the rate ---------------------------------------------------------------------------------


def edge(runs: Runs) -> Claim:
    def arrival(run: Run) -> int:
        return int(run.steps[np.flatnonzero(quantity(run, "stability_ratio") > 0.9)[0]])

    def hover(run: Run) -> float:
        return float(np.median(between(run, "stability_ratio", arrival(run), runs.decays[0] - 1)))

    reached = runs.every(lambda r: bool((quantity(r, "stability_ratio") > 0.9).any()))
    bound = 2 / runs.recipe.rate
    measured = (
        f"ρ first above 0.9 at step {runs.each(arrival)}; from there to the first decay median ρ = {runs.each(hover)}"
        if reached
        else "ρ never comes above 0.9"
    )
    return Claim(
        "R4 λ_1 goes to 2N/δ and stays",
        "",
        f"λ_1/N near {bound:g}, that is ρ near 1: above it the quadratic model is unstable, below it nothing ends the growth; "
        "single states show one phase, and [alignment-contrast](../alignment-contrast/README.md) has pairs",
        "derived",
        measured,
        reached and runs.every(lambda r: 0.8 < hover(r) < 1.2),
    )


def staircase(runs: Runs) -> Claim:
    told, holds = [], True
    for decay in runs.decays:
        pairs = [f.late("eigenvalue_1", decay) for f in runs.main]
        bound = 2 / float(runs.main[0].run.learning_rates[runs.main[0].run.row(decay), 0])
        told.append(
            f"decay {decay:,} (bound {bound / 2:g} → {bound:g}): λ_1/N {spread([a for a, _ in pairs])}, control "
            f"{spread([b for _, b in pairs])}"
        )
        holds &= all(a > b for a, b in pairs)
    return Claim(
        "R5 staircase of λ_1",
        DECAY,
        "after each decay λ_1 climbs towards the doubled bound, and not without it",
        "derived",
        "; ".join(told) + "; medians over the later half of each control",
        holds,
    )


def scaled(runs: Runs) -> Claim:
    modes = [i for i in (1, 10, 100) if i <= runs.main[0].run.values("eigenvalues").shape[1]]
    told, holds = [], True
    for decay in runs.decays:
        grown = {i: [a / b for a, b in (f.late(f"eigenvalue_{i}", decay) for f in runs.main)] for i in modes}
        told.append(f"decay {decay:,}: " + ", ".join(f"λ_{i} ×{spread(v, 2)}" for i, v in grown.items()))
        holds &= all(v > 1 for values in grown.values() for v in values)
    kept = ", ".join(f"i = {i}: {runs.each(lambda r, i=i: _kept(r, runs.decays, i), 2)}" for i in modes)
    return Claim(
        "R6 ηλ_i/N keeps its level",
        DECAY,
        "every λ_i grows after a decay, against the control; levels of ηλ_i/N stay (ratio 1; "
        f"{0.5 ** len(runs.decays):g} if λ_i stood still)",
        "recalled",
        "; ".join(told) + f". ηλ_i/N at the end over that before the first decay, {kept}",
        holds,
    )


def _kept(run: Run, decays: tuple[int, ...], i: int) -> float:
    """ηλ_i/N over the last block's later half, over that of the first block's."""
    last = last_step(run)
    blocks = ((decays[0] // 2, decays[0] - 1), ((decays[-1] + last) // 2, last))
    levels = [
        np.median(between(run, f"eigenvalue_{i}", *block)) * run.learning_rates[run.row(block[1]) or -1, 0]
        for block in ((a, int(run.steps[run.steps <= b][-1])) for a, b in blocks)
    ]
    return float(levels[1] / levels[0])


# -- R7 to R10: where target, output and residual lie --------------------------------------------------------------------


def target(runs: Runs) -> Claim:
    few, some, many = runs.k
    told = ", ".join(
        f"k = {k}: {runs.each(lambda r, k=k: at(r, f'target_energy_{k}', 0), 2)} → "
        f"{runs.each(lambda r, k=k: _median_late(r, f'target_energy_{k}', runs), 2)}"
        for k in (few, some, many)
    )
    null = runs.each(lambda r: quantity(r, f"target_energy_null_{few}")[-1], 2)
    return Claim(
        "R7 the target in the top modes",
        ALIGNS,
        "E(y, k) above its start; the paper has E(y, 20) near 0.9 and E(y, 200) near 0.98",
        "recalled",
        f"E(y, k) at the start → before the first decay, {told}; permuted targets at k = {few}: {null}",
        runs.every(
            lambda r: all(
                _median_late(r, f"target_energy_{k}", runs) > at(r, f"target_energy_{k}", 0) for k in (few, some)
            )
        ),
    )


def _median_late(run: Run, name: str, runs: Runs) -> float:
    """Over the later half of the first block."""
    return float(np.median(between(run, name, runs.decays[0] // 2, runs.decays[0])))


def output(runs: Runs) -> Claim:
    _, some, many = runs.k

    def lowest(run: Run, k: int) -> float:
        return float(np.nanmin(quantity(run, f"output_energy_{k}")))

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


def spreading(runs: Runs) -> Claim:
    """Effect on E(y, k) by k, at equal steps and at equal Ση, beside how far the control's own snapshots differ."""
    grid = [int(k) for k in runs.main[0].run.values("energy_k") if 1 < k < runs.recipe.samples]
    told = [
        f"decay {decay:,} at equal {when}: " + ", ".join(_moved(runs, decay, k, stretch) for k in grid)
        for decay in runs.decays
        for when, stretch in (("steps", 1), ("Ση", 2))
    ]
    return Claim(
        "R9 the target spreads after a decay",
        DECAY,
        "E(y, k) falls for small k and rises for large k; where it turns depends on the scale",
        "recalled",
        "run less control, " + "; ".join(told) + ". Median, seeds with a rise, and ± the standard deviation over the "
        "control's snapshots: what is within it says nothing",
        None,
    )


def _moved(runs: Runs, decay: int, k: int, stretch: int) -> str:
    name = f"target_energy_{k}"
    moved = [a - b for a, b in (f.late(name, decay, stretch) for f in runs.main)]
    controls = [f.controls[decay] for f in runs.main]
    noise = max(float(np.std(between(c, name, decay, last_step(c)))) for c in controls)
    return f"k = {k} {np.median(moved):+.3f} ({sum(m > 0 for m in moved)} of {len(moved)}; ±{noise:.3f})"


def emptied(runs: Runs) -> Claim:
    k, told, holds = runs.k[0], [], True
    for decay in runs.decays:
        name = f"residual_energy_{k}"
        before, after = ([at(f.run, name, s) for f in runs.main] for s in (decay, decay + 1))
        still = [at(f.controls[decay], name, decay + 1) for f in runs.main]
        predicted = [predicted_energy_after(f.run, decay, k) for f in runs.main]
        told.append(
            f"decay {decay:,}: {spread(before, 2)} → {spread(after, 2)}, predicted {spread(predicted, 2)}, control "
            f"{spread(still, 2)}"
        )
        holds &= all(a < b and a < c for a, b, c in zip(after, before, still, strict=True))
    return Claim(
        "R9b the residual leaves the very top at once",
        DECAY,
        f"E(m, {k}) falls within one update: 1 − ηλ_i/N is near −1 before a decay and near 0 after it where λ_i is at "
        "the bound",
        "derived",
        "before → one update after, " + "; ".join(told),
        holds,
    )


def residual(runs: Runs) -> Claim:
    many = runs.k[2]
    return Claim(
        "R10 the residual lies at the bottom",
        "",
        "E(m, 0.4 N) near 0.1 at the end",
        "recalled",
        f"E(m, {many}) {runs.each(lambda r: at(r, f'residual_energy_{many}', 0), 2)} at the start, "
        f"{runs.each(lambda r: quantity(r, f'residual_energy_{many}')[-1], 2)} at the end",
        None,
    )


# -- R11 to R13 ----------------------------------------------------------------------------------------------------------


def first_order(runs: Runs) -> Claim:
    def median(run: Run, name: str) -> float:
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


def first_order_decay(runs: Runs) -> Claim:
    ratios = {d: [_error(f.run, d) / _error(f.controls[d], d) for f in runs.main] for d in runs.decays}
    return Claim(
        "R11b … right after a decay",
        DECAY,
        "the same state, half the rate: the remainder is of second order, so its relative square falls to ¼ where f "
        "is smooth (Taylor); nearer to ¼ than to 1 decides",
        "derived",
        "error of the update with the decay over that without it, "
        + "; ".join(f"decay {d:,}: {spread(v, 2)}" for d, v in ratios.items()),
        all(v < 0.5 for values in ratios.values() for v in values),
    )


def _error(run: Run, step: int) -> float:
    return at(run, "linearization_error", step)


def frequencies(runs: Runs) -> Claim:
    def correlation(run: Run, row: int) -> float:
        found = mean_frequencies(planar_inputs(run), run.at("eigenvectors", row)[:, 0])
        return rank_correlation(np.arange(len(found), dtype=np.float64), found)

    return Claim(
        "R12 small eigenvalue, high frequency",
        "",
        "rank correlation of index and mean frequency above 0.8",
        "recalled",
        f"{runs.each(lambda r: correlation(r, 0), 2)} at the start, {runs.each(lambda r: correlation(r, -1), 2)} at the end "
        f"(first {runs.main[0].run.dataset.sizes['vector']} modes)",
        None,
    )


def few_modes(runs: Runs) -> Claim:
    """Beside the error, why it is what it is: how much of the target's detail the output has taken up, and how many modes
    hold it."""
    some = runs.k[1]

    def error(run: Run, row: int = -1) -> float:
        return float(max(1 - quantity(run, f"output_energy_{some}")[row], 0) ** 0.5)

    def held_by(run: Run) -> float:
        squares = (run.values("output_coefficients")[-1] ** 2).ravel()
        return float(np.searchsorted(np.cumsum(squares) / squares.sum(), ALMOST) + 1)

    def early(run: Run) -> int:
        return int(np.flatnonzero(run.steps >= runs.decays[0] // 10)[0])

    return Claim(
        "R13 few modes make the output",
        SPANS,
        f"‖f − P_{some} f‖/‖f‖ at the end a few percent; at most {(1 - ALMOST) ** 0.5:.2f} decides",
        "recalled",
        f"{runs.each(error, 2)} at the end, where the loss is {runs.each(lambda r: quantity(r, 'probe_loss')[-1], 2)} and "
        f"{ALMOST:.0%} of the output's energy needs {runs.each(held_by)} modes; at step {runs.decays[0] // 10:,} "
        f"{runs.each(lambda r: error(r, early(r)), 2)}, at loss {runs.each(lambda r: quantity(r, 'probe_loss')[early(r)], 2)}",
        runs.every(lambda r: error(r) ** 2 < 1 - ALMOST),
    )


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
