"""How much to explore: score = f + γ s, and what each strategy takes for γ and for the ridge λ of s.

The theory is that of Zhou, Li and Gu 2020, *Neural Contextual Bandits with UCB-based Exploration* (arXiv 1911.04462). Its body was
not at hand: the formula of γ_t is recalled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

#: weight layers
DEPTH = 2
#: probability with which the theory may fail; every other constant of it is 1
FAILURE = 0.05
#: λ of the released code
RELEASED_RIDGE = 1e-3


@dataclass(frozen=True)
class Moment:
    """What γ may depend on.

    Attributes:
        chosen: t, pairs that were chosen so far.
        width: m.
        log_determinant: ln det(I + K/λ).
        updates: of the network so far.
        ridge: λ.
        noise: σ², of the largest evidence; 1 before there is one.
    """

    chosen: int
    width: int
    log_determinant: float
    updates: int
    ridge: float
    noise: float


Exploration = Callable[[Moment], float]
#: where a prior is centred
Centre = Literal["zero", "start"]


@dataclass(frozen=True)
class Strategy:
    """What is scored by f + γ s.

    Attributes:
        exploration: γ; None chooses at random, and learns nothing.
        ridge: λ at the start.
        evidence: where the prior is centred whose δ and σ² are those of the largest evidence, λ = δσ²; None keeps λ.
        diagonal: whether s is by the diagonal alone.
    """

    exploration: Exploration | None
    ridge: float = 1.0
    evidence: Centre | None = None
    diagonal: bool = False


def prescribed(moment: Moment) -> float:
    """γ_t of the theory, with C_1 = C_2 = C_3 = ν = S = 1 and its own learning rate, η = 1/(mλ + tmL).

    γ = √(1 + ε t^{7/6} λ^{−7/6}) [√(ln det(I + K/λ) + ε t^{5/3} λ^{−1/6} − 2 ln p) + √λ]
        + (λ + tL) [(1 − ηmλ)^{J/2} √(t/λ) + m^{−1/6} √(ln m) L^{7/2} t^{5/3} λ^{−5/3} (1 + √(t/λ))],
    ε = m^{−1/6} √(ln m) L⁴
    """
    t, ridge = moment.chosen, moment.ridge
    slack = finite(moment.width)
    root = math.sqrt(t / ridge)
    factor = math.sqrt(1 + slack * DEPTH**4 * (t / ridge) ** (7 / 6))
    inside = moment.log_determinant + slack * DEPTH**4 * t ** (5 / 3) * ridge ** (-1 / 6) - 2 * math.log(FAILURE)
    kept = (1 - ridge / (ridge + t * DEPTH)) ** (moment.updates / 2)
    last = kept * root + slack * DEPTH**3.5 * (t / ridge) ** (5 / 3) * (1 + root)
    return factor * (math.sqrt(inside) + math.sqrt(ridge)) + (ridge + t * DEPTH) * last


def finite(width: int) -> float:
    """m^{−1/6} √(ln m), by which the theory's allowances for a finite width shrink."""
    return width ** (-1 / 6) * math.sqrt(math.log(width))


def infinite(moment: Moment) -> float:
    """What is left of :func:`prescribed` for m → ∞ of a network that is trained to the end: √(ln det(I + K/λ) − 2 ln p) + √λ."""
    return math.sqrt(moment.log_determinant - 2 * math.log(FAILURE)) + math.sqrt(moment.ridge)


def constant(value: float) -> Exploration:
    """γ = ν at all times."""
    return lambda moment: value


def evident(moment: Moment) -> float:
    """γ = σ: with λ = δσ² then γ s is the posterior's standard deviation."""
    return math.sqrt(moment.noise)


THEORY, LIMIT, EVIDENCE, CENTRED, BARE, DIAGONAL, GREEDY, RANDOM = (
    "theory", "theory, m → ∞", "evidence", "evidence about θ_0", "evidence, γ = 0", "diagonal", "greedy", "random",
)  # fmt: skip
CONSTANTS = {f"ν = {value:g}": value for value in (0.01, 0.1, 1.0)}
STRATEGIES: dict[str, Strategy] = {
    THEORY: Strategy(prescribed),
    LIMIT: Strategy(infinite),
    **{name: Strategy(constant(value)) for name, value in CONSTANTS.items()},
    EVIDENCE: Strategy(evident, evidence="zero"),
    CENTRED: Strategy(evident, evidence="start"),
    BARE: Strategy(constant(0.0), evidence="zero"),
    DIAGONAL: Strategy(constant(math.sqrt(RELEASED_RIDGE)), RELEASED_RIDGE, diagonal=True),
    GREEDY: Strategy(constant(0.0)),
    RANDOM: Strategy(None),
}
