"""What is claimed of deep and wide networks, each claim beside the closed form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from claims import Claim
from deep_limit import SCALINGS, Outcome, instability, interpolated, kernel_of_angle, outcome, scaling_form, task
from erf_limit import Critical

from kerneltrack import analytic

TRIVIAL = "v2: the limit of depth alone is trivial, independent of the data"
#: σ_b² of erf
BIASES = 0.01, 0.1
OTHERS = "v2: which properties carry over to other kernels"
JOINT = "v2: scaling depth and stopping time together leaves a well-behaved, non-trivial output at large n"


@dataclass(frozen=True)
class Deep:
    """What the closed form gives.

    Attributes:
        counts: n of the data sets.
        depths: L.
        scalings: name → one outcome for each n.
        spread: standard deviation of the truth over the test points.
    """

    counts: tuple[int, ...]
    depths: tuple[int, ...]
    scalings: dict[str, list[Outcome]]
    spread: float

    def spreads(self, name: str) -> np.ndarray:
        return np.array([o.spread for o in self.scalings[name]])

    def explained(self, name: str) -> np.ndarray:
        """R² against a constant, means taken off: 2rs − s², r the correlation with the truth, s the spread over the truth's."""
        shares = self.spreads(name) / self.spread
        return np.array([2 * o.correlation * s - s**2 for o, s in zip(self.scalings[name], shares, strict=True)])

    def instabilities(self, name: str) -> list[float]:
        row = self.scalings[name]
        return [instability(a, b) for a, b in itertools.pairwise(row)]


def deep(counts: tuple[int, ...], depths: tuple[int, ...]) -> Deep:
    """Every scaling at every n, on nested data."""
    problem = task(counts[-1])
    found = {s.name: [outcome(problem, n, s) for n in counts] for s in SCALINGS}
    return Deep(counts, depths, found, float(problem.truth.std()))


def depth_claims(closed: Deep) -> Iterator[Claim]:
    """St-Arnaud, Carvalho and Farnadi on depth; one data set of each size, so there is no spread over seeds."""
    off = [float(interpolated(depth)(np.pi / 2)) for depth in closed.depths]
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
    yield from _erf_claims(closed.depths)
    products = [depth**2 * (1 - _nngp_correlation(depth)) * 2 / (9 * np.pi**2) for depth in closed.depths]
    yield Claim(
        "the kernel that does go to all ones is the NNGP",
        "",
        "L²(1 − ρ) · 2/(9π²) → 1 for orthogonal inputs",
        "derived",
        _each(closed.depths, products, "L ="),
        _settles([abs(p - 1) for p in products], 0.05),
    )
    errors = [_scaling_error(depth) for depth in closed.depths]
    yield Claim(
        "one curve for every depth: Θ/L → F(Lθ/3π)",
        "",
        "F(u) = (1 + u)/(4u) · (1 − (1 + u)^−4)",
        "derived",
        "largest relative error over all angles: " + _each(closed.depths, errors, "L ="),
        _settles(errors, 0.05),
    )
    far = closed.scalings["L = n^1.5, t = ∞"]
    ratios = [o.condition / ((n + 3) / 3) for o, n in zip(far, closed.counts, strict=True)]
    yield Claim(
        "conditioning improves with depth",
        "",
        "κ → (n + 3)/3 for L ≫ n",
        "derived",
        "κ over (n + 3)/3 at L = n^1.5: " + _each(closed.counts, ratios, "n ="),
        _settles([abs(r - 1) for r in ratios], 0.05),
    )
    misses = [float(np.abs(o.prediction - o.constant).max() / abs(o.constant)) for o in far]
    yield Claim(
        "the predictor becomes a constant",
        TRIVIAL,
        "f(x) → (1/(n + 3)) Σ y for L ≫ n",
        "derived",
        "largest relative distance over test points at L = n^1.5: " + _each(closed.counts, misses, "n ="),
        misses[-1] < misses[0],
    )
    for name in ("L = n, t = ∞", "L = n, ηLt = 1"):
        spreads, moves, explained = closed.spreads(name), closed.instabilities(name), closed.explained(name)
        yield Claim(
            f"{name}: the output stays non-trivial",
            JOINT,
            "std over x tends to a constant above 0, and so does R² against a constant output; f^(n) settles",
            "derived",
            "std: "
            + _each(closed.counts, spreads, "n =")
            + "; R²: "
            + _each(closed.counts, explained, "n =")
            + "; change at doubling n: "
            + _each(closed.counts[1:], moves, "n ="),
            bool(spreads[-1] > spreads[0] / 2 and explained[-1] > explained[0] / 2 and moves[-1] < moves[0]),
        )
    for name in ("L = n^1.5, t = ∞", "L = n, ηLt = 4/n"):
        spreads = closed.spreads(name)
        yield Claim(
            f"{name}: trivial",
            TRIVIAL if "1.5" in name else "",
            "std over x falls with n towards 0",
            "derived",
            "std: " + _each(closed.counts, spreads, "n ="),
            bool(np.all(np.diff(spreads) < 0) and spreads[-1] < spreads[0] / 1.5),
        )
    kept = closed.spreads("L = 5, t = ∞")
    yield Claim(
        "fixed depth: ordinary kernel regression",
        "",
        "std over x tends to that of the truth",
        "derived",
        f"std: {_each(closed.counts, kept, 'n =')}; the truth's is {closed.spread:.3g}",
        bool(abs(kept[-1] - closed.spread) < abs(kept[0] - closed.spread)),
    )


def _erf_claims(depths: tuple[int, ...]) -> Iterator[Claim]:
    lines = [Critical.of(bias) for bias in BIASES]
    limits = [[line.ratio(0.0, depth) for depth in depths] for line in lines]
    yield Claim(
        "… of erf on its critical line: ⅓?",
        OTHERS,
        "(p − 1)/(2p − 1) where 1 − ρ' = (1 − ρ) − a(1 − ρ)^p: p = 2 for a smooth activation, 3/2 for ReLU",
        "derived",
        "; ".join(
            f"σ_b² = {line.bias:g}: {_each(depths, found, 'L =')}" for line, found in zip(lines, limits, strict=True)
        ),
        all(_settles([abs(value - 1 / 3) for value in found], 0.05) for found in limits),
    )
    free, inputs = Critical.of(0.0), (0.3, 0.7)
    kept = [free.ratio(correlation, depths[-1]) for correlation in inputs]
    yield Claim(
        "… of erf without biases: one number for all pairs?",
        OTHERS,
        "no: Σ(x, x) → 0, the layers become linear, and pairs keep what tells them apart; deep does not mean trivial",
        "derived",
        f"at L = {depths[-1]:,}: "
        + ", ".join(f"ρ = {rho:g} → {value:.3f}" for rho, value in zip(inputs, kept, strict=True)),
        kept[1] - kept[0] > (inputs[1] - inputs[0]) / 2,
    )


def _settles(distances: list[float], within: float) -> bool:
    """Whether what should tend to zero falls all the way, and ends below ``within``."""
    return all(b < a for a, b in itertools.pairwise(distances)) and distances[-1] < within


def _nngp_correlation(depth: int) -> float:
    pair = torch.eye(2, dtype=torch.float64)
    covariance = analytic.relu_nngp(pair, depth=depth)
    return float(covariance[0, 1] / covariance[0, 0])


def _scaling_error(depth: int) -> float:
    angles, values = kernel_of_angle(depth)
    form = scaling_form(depth * angles[1:] / (3 * np.pi))
    return float(np.max(np.abs(values[1:] / form - 1)))


def _each(keys: tuple[int, ...], values: object, label: str) -> str:
    pairs = zip(keys, np.asarray(values), strict=True)
    return ", ".join(f"{v:.3g} ({label} {k:,})" if i == 0 else f"{v:.3g} ({k:,})" for i, (k, v) in enumerate(pairs))
