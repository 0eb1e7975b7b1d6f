"""What a decay of the rate does: the checks R5, R6, R9 and R11b, each against the control that keeps its rate.

What decides is the abstract or what can be derived, as in alignment_checks.py.
"""

from __future__ import annotations

import numpy as np
from alignment_numbers import Runs, Track, at, between, last_step
from claims import Claim, spread

#: What the abstract says.
DECAY = "learning-rate decay changes the spectrum in systematic ways"
#: A difference of E(y, k) or ρ below this is that of the two phases at the edge of stability, and says nothing.
PHASE = 0.03


def staircase(runs: Runs) -> Claim:
    told, holds = [], True
    for decay in runs.decays:
        pairs = [f.late("eigenvalue_1", decay) for f in runs.main]
        bound = 2 / runs.main[0].run.rate(decay)
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
        "; ".join(told) + "; medians over pairs in the later half of each control",
        holds,
    )


def scaled(runs: Runs) -> Claim:
    modes = [i for i in (1, 10, 100) if f"eigenvalue_{i}" in runs.main[0].run["series"]]
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


def _kept(run: Track, decays: tuple[int, ...], i: int) -> float:
    """ηλ_i/N over the last block's later half, over that of the first block's."""
    last = last_step(run)
    blocks = ((decays[0] // 2, decays[0] - 1), ((decays[-1] + last) // 2, last))
    levels = [
        np.median(between(run, f"eigenvalue_{i}", *block)) * run.rate(block[1])
        for block in ((a, int(run.steps[run.steps <= b][-1])) for a, b in blocks)
    ]
    return float(levels[1] / levels[0])


def spreading(runs: Runs) -> Claim:
    """Effect on E(y, k) by k, at equal steps and at equal Ση; what is within the difference of two phases says nothing."""
    grid = runs.main[0].run["grid"]
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
        "run less control, medians over pairs, " + "; ".join(told) + ". Median over seeds and seeds with a rise; "
        f"≈ where no seed's is beyond ±{PHASE:g}, which a single state's phase is",
        None,
    )


def _moved(runs: Runs, decay: int, k: int, stretch: int) -> str:
    moved = [a - b for a, b in (f.late(f"target_energy_{k}", decay, stretch) for f in runs.main)]
    small = "≈ " if all(abs(m) < PHASE for m in moved) else ""
    return f"k = {k} {small}{np.median(moved):+.3f} ({sum(m > 0 for m in moved)} of {len(moved)})"


def emptied(runs: Runs) -> Claim:
    k, told, holds = runs.k[0], [], True
    for decay in runs.decays:
        name = f"residual_energy_{k}"
        before, after = ([at(f.run, name, s) for f in runs.main] for s in (decay, decay + 1))
        still = [at(f.controls[decay], name, decay + 1) for f in runs.main]
        predicted = [f.run["predicted"][str(decay)] for f in runs.main]
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


def _error(run: Track, step: int) -> float:
    return at(run, "linearization_error", step)
