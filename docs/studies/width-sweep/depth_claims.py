"""What is claimed of deep and wide networks, each claim beside the closed form."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from claims import Claim
from deep_runs import BIASES, INPUTS
from sweep_results import Deep, Scaled

TRIVIAL = "v2: the limit of depth alone is trivial, independent of the data"
OTHERS = "v2: which properties carry over to other kernels"
JOINT = "v2: scaling depth and stopping time together leaves a well-behaved, non-trivial output at large n"
LARGE = "v2: on large datasets"


def depth_claims(closed: Deep) -> Iterator[Claim]:
    """St-Arnaud, Carvalho and Farnadi on depth; one data set of each size, so there is no spread over seeds."""
    off = closed.limits["off"]
    at = _each(closed.depths, off, "L =")
    yield Claim(
        "off-diagonal of Θ/L, orthogonal inputs: 1?",
        "v1: the normalised limiting kernel approaches the matrix of ones",
        "1",
        "read",
        at,
        bool(abs(1 - off[-1]) < abs(1 - off[0])),
    )
    gaps = [abs(value - 0.25) for value in off]
    yield Claim(
        "off-diagonal of Θ/L, orthogonal inputs: ¼?",
        TRIVIAL,
        "¼, with corrections of order log L/L",
        "derived",
        at,
        _settles(gaps, 0.05),
    )
    yield from _erf_claims(closed)
    products = closed.limits["nngp"]
    yield Claim(
        "the kernel that does go to all ones is the NNGP",
        "",
        "L²(1 − ρ) · 2/(9π²) → 1 for orthogonal inputs",
        "derived",
        _each(closed.depths, products, "L ="),
        _settles([abs(p - 1) for p in products], 0.05),
    )
    errors = closed.limits["errors"]
    yield Claim(
        "one curve for every depth: Θ/L → F(Lθ/3π)",
        "",
        "F(u) = (1 + u)/(4u) · (1 − (1 + u)^−4)",
        "derived",
        "largest relative error over all angles: " + _each(closed.depths, errors, "L ="),
        _settles(errors, 0.05),
    )
    far = closed.scalings["L = n^1.5, t = ∞"]
    ratios = far.each("condition") / (far.each("n") + 3) * 3
    yield Claim(
        "conditioning improves with depth",
        "",
        "κ → (n + 3)/3 for L ≫ n",
        "derived",
        "κ over (n + 3)/3 at L = n^1.5: " + _each(closed.counts, ratios, "n ="),
        _settles([abs(r - 1) for r in ratios], 0.05),
    )
    misses = far.each("miss") / abs(far.each("constant"))
    yield Claim(
        "the predictor becomes a constant",
        TRIVIAL,
        "f(x) → (1/(n + 3)) Σ y for L ≫ n",
        "derived",
        "largest relative distance over test points at L = n^1.5: " + _each(closed.counts, misses, "n ="),
        bool(misses[-1] < misses[0]),
    )
    for name in ("L = n, t = ∞", "L = n, ηLt = 1"):
        yield _non_trivial(name, JOINT, closed.scalings[name])
    for name, found in closed.large.items():
        if name == "L = n, t = ∞":
            yield _non_trivial(f"{name}, n = {found.counts[-1]:,}", LARGE, found, [closed.scalings[name]])
    for name, found in closed.images.items():
        if name == "L = n, t = ∞":
            yield _non_trivial(f"{name}, images", LARGE, found)
    for name in ("L = n^1.5, t = ∞", "L = n, ηLt = 4/n"):
        yield _trivial(name, TRIVIAL if "1.5" in name else "", closed.scalings[name])
    for name, found in closed.images.items():
        if "1.5" in name:
            yield _trivial(f"{name}, images", TRIVIAL, found)
    fixed = closed.scalings["L = 5, t = ∞"]
    kept = fixed.each("spread")
    yield Claim(
        "fixed depth: ordinary kernel regression",
        "",
        "std over x tends to that of the truth",
        "derived",
        f"std: {_each(fixed.counts, kept, 'n =')}; the truth's is {fixed.truth:.3g}",
        bool(abs(kept[-1] - fixed.truth) < abs(kept[0] - fixed.truth)),
    )


def _non_trivial(key: str, abstract: str, found: Scaled, before: Iterable[Scaled] = ()) -> Claim:
    """Against the smallest n: of this scaling on fewer points, where it was run on them."""
    first = next(iter(before), found)
    spreads, explained, moves = found.each("spread"), found.explained, found.changes
    return Claim(
        f"{key}: the output stays non-trivial",
        abstract,
        "std over x tends to a constant above 0, and so does R² against a constant output; f^(n) settles",
        "derived",
        f"std: {_each(found.counts, spreads, 'n =')}; R²: {_each(found.counts, explained, 'n =')}; change at doubling n: "
        f"{_each(found.counts[1:], moves, 'n =')}; the truth's std is {found.truth:.3g}",
        bool(
            spreads[-1] > first.each("spread")[0] / 2
            and explained[-1] > first.explained[0] / 2
            and (moves[-1] < first.changes[0])
        ),
    )


def _trivial(key: str, abstract: str, found: Scaled) -> Claim:
    spreads = found.each("spread")
    return Claim(
        f"{key}: trivial",
        abstract,
        "std over x falls with n towards 0",
        "derived",
        "std: " + _each(found.counts, spreads, "n ="),
        bool(np.all(np.diff(spreads) < 0) and spreads[-1] < spreads[0] / 1.5),
    )


def _erf_claims(closed: Deep) -> Iterator[Claim]:
    depths, limits, kept = closed.depths, closed.limits["erf"], closed.limits["free"]
    yield Claim(
        "… of erf on its critical line: ⅓?",
        OTHERS,
        "(p − 1)/(2p − 1) where 1 − ρ' = (1 − ρ) − a(1 − ρ)^p: p = 2 for a smooth activation, 3/2 for ReLU",
        "derived",
        "; ".join(
            f"σ_b² = {bias:g}: {_each(depths, found, 'L =')}" for bias, found in zip(BIASES, limits, strict=True)
        ),
        all(_settles([abs(value - 1 / 3) for value in found], 0.05) for found in limits),
    )
    yield Claim(
        "… of erf without biases: one number for all pairs?",
        OTHERS,
        "no: Σ(x, x) → 0, the layers become linear, and pairs keep what tells them apart; deep does not mean trivial",
        "derived",
        f"at L = {depths[-1]:,}: "
        + ", ".join(f"ρ = {rho:g} → {value:.3f}" for rho, value in zip(INPUTS, kept, strict=True)),
        kept[1] - kept[0] > (INPUTS[1] - INPUTS[0]) / 2,
    )


def _settles(distances: Sequence[float], within: float) -> bool:
    """Whether what should tend to zero falls all the way, and ends below ``within``."""
    return all(b < a for a, b in itertools.pairwise(distances)) and distances[-1] < within


def _each(keys: Sequence[int], values: object, label: str) -> str:
    pairs = zip(keys, np.asarray(values), strict=True)
    return ", ".join(f"{v:.3g} ({label} {k:,})" if i == 0 else f"{v:.3g} ({k:,})" for i, (k, v) in enumerate(pairs))
