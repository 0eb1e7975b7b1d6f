"""Stages of training, marked from the data, each with the rule that marked it and its false-alarm rate on a null.

Three rules, each of one course:

1. **Kernel motion** slows down or speeds up where the logarithm of the kernel's velocity changes its level: the largest
   CUSUM statistic over all split points, again inside both parts while it is beyond the threshold. Null: a stationary
   AR(1) process with the course's own correlation, estimated from differences, which a jump hardly touches.
2. **Progressive sharpening**: the stability ratio rises from the start to its first arrival at the edge, or to its
   largest value. Null: random walks of log ρ with the course's own increments, shuffled and with random signs; the rate
   is the share of them that come as far within as many snapshots.
3. **Edge of stability**: from its arrival at ``ARRIVED`` on, as long as the ratio stays within ``HELD``, at least
   ``FEWEST`` snapshots. Null: the same random walks; the rate is the share of them that stay at the edge as long.

Rules 2 and 3 are applied to each stretch between step changes of the learning rate, which move the bound. Snapshots are
counted, not steps: a schedule that is dense somewhere sees more there. A false-alarm rate speaks of the
null that is named, not of the chance that a stage is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kerneltrack.errors import AnalysisError

from .changes import learning_rate_changes
from .text import number
from .trajectory import Floats, Ints, Run

#: Beyond this false-alarm rate on its null nothing is called a stage.
LEVEL = 0.05
#: λ_1 has arrived at its bound from here on, and is held by it within these.
ARRIVED, HELD, FEWEST = 0.95, (0.75, 1.5), 4
_DRAWS, _FEWEST_POINTS = 999, 6


@dataclass(frozen=True)
class Stage:
    """A stretch of snapshots.

    Attributes:
        name: "fast kernel motion", "slow kernel motion", "progressive sharpening" or "edge of stability".
        first: step of its first snapshot.
        last: step of its last one.
        snapshots: how many it holds.
        level: what carries it: median velocity, or the ratio's range as text.
        rule: the rule in words, with its numbers.
        false_alarm: share of draws from the null in which the rule fires as strongly.
    """

    name: str
    first: int
    last: int
    snapshots: int
    level: str
    rule: str
    false_alarm: float


def stages(run: Run, *, seed: int = 0) -> tuple[Stage, ...]:
    """Every stage that a rule finds at the level; empty where the courses have none.

    Args:
        run: with ``kernel_velocity`` or ``stability_ratio``.
        seed: of the draws from the nulls.

    Raises:
        AnalysisError: neither is stored, or fewer than six snapshots hold one.
    """
    found: list[Stage] = []
    known = {name: _course(run, name) for name in ("kernel_velocity", "stability_ratio") if run.has(name)}
    if not known:
        run.require("kernel_velocity", why="finding stages")
    usable = {name: course for name, course in known.items() if len(course[0]) >= _FEWEST_POINTS}
    if not usable:
        longest = max(len(steps) for steps, _ in known.values())
        raise AnalysisError(
            "finding stages", expected=f"{_FEWEST_POINTS} snapshots or more", got=longest, where=run.path or None
        )
    if "kernel_velocity" in usable:
        steps, velocity = usable["kernel_velocity"]
        positive = velocity > 0
        if positive.sum() >= _FEWEST_POINTS:
            found += _motion(steps[positive], velocity[positive], seed)
    if "stability_ratio" in usable:
        steps, ratio = usable["stability_ratio"]
        # every change of the rate moves the bound, and the climb begins again
        changes, _ = learning_rate_changes(run)
        borders = np.searchsorted(steps, [change.step for change in changes])
        for part in np.split(np.arange(len(steps)), borders):
            if len(part) >= _FEWEST_POINTS:
                found += _stability(steps[part], ratio[part], seed)
    return tuple(found)


def change_points(values: Floats, *, seed: int = 0, level: float = LEVEL) -> list[tuple[int, float]]:
    """(index of the first value at the new level, false-alarm rate) for every change of level, ascending.

    Binary segmentation: the split with the largest statistic |mean_right − mean_left| √(n_l n_r/n)/σ, if fewer than
    ``level`` of the draws from an AR(1) null with the segment's own lag-1 correlation reach it; then both sides.

    Args:
        values: (S,) in order.
        seed: of the draws.
        level: the false-alarm rate that a change must stay below.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[int, float]] = []

    def split(first: int, last: int) -> None:
        part = values[first:last]
        if len(part) < _FEWEST_POINTS:
            return
        statistic, at = _cusum(part[None])
        null = _cusum(_ar1(rng, len(part), lag_one(part)))[0]
        rate = float((1 + np.sum(null >= statistic[0])) / (1 + len(null)))
        if rate < level:
            middle = first + int(at[0])
            found.append((middle, rate))
            split(first, middle)
            split(middle, last)

    split(0, len(values))
    return sorted(found)


def lag_one(values: Floats) -> float:
    """φ of an AR(1) process from its differences, 1 + 2ρ_d: a single jump hardly moves it. Kept in [0, 0.95].

    The differences of a stationary AR(1) process have the lag-1 correlation ρ_d = −(1 − φ)/2.
    """
    steps = np.diff(values)
    steps = steps - np.median(steps)
    # the largest difference may be the jump itself
    steps = steps[np.abs(steps) < np.abs(steps).max()] if len(steps) > 4 else steps
    power = float(steps @ steps)
    rho = float(steps[1:] @ steps[:-1]) / power if power > 0 else -0.5
    return float(np.clip(1 + 2 * rho, 0.0, 0.95))


def _cusum(rows: Floats) -> tuple[Floats, Ints]:
    """Largest split statistic of each row, and where its right part begins; parts of two or more."""
    n = rows.shape[1]
    left = np.arange(2, n - 1)
    sums = np.cumsum(rows, axis=1)
    means_left, means_right = sums[:, left - 1] / left, (sums[:, -1:] - sums[:, left - 1]) / (n - left)
    between = (means_right - means_left) ** 2 * left * (n - left) / n
    total = np.sum((rows - rows.mean(axis=1, keepdims=True)) ** 2, axis=1, keepdims=True)
    within = np.maximum(total - between, 1e-300)
    statistic = between / within
    best = statistic.argmax(axis=1)
    return statistic[np.arange(len(rows)), best], left[best]


def _ar1(rng: np.random.Generator, length: int, phi: float) -> Floats:
    noise = rng.standard_normal((_DRAWS, length))
    noise[:, 0] /= np.sqrt(1 - phi**2)
    for i in range(1, length):
        noise[:, i] += phi * noise[:, i - 1]
    return noise


def _motion(steps: Ints, velocity: Floats, seed: int) -> list[Stage]:
    changes = change_points(np.log(velocity), seed=seed)
    if not changes:
        return []
    borders = [0, *(at for at, _ in changes), len(steps)]
    medians = [float(np.median(velocity[a:b])) for a, b in pairwise(borders)]
    middle = np.sqrt(max(medians) * min(medians))
    found = []
    for (a, b), median in zip(pairwise(borders), medians, strict=True):
        rate = max(rate for at, rate in changes if at in (a, b))
        found.append(
            Stage(
                "fast kernel motion" if median >= middle else "slow kernel motion", int(steps[a]), int(steps[b - 1]),
                b - a, f"median velocity {number(median)} per step",
                "the level of the logarithm of the kernel's velocity changes (largest CUSUM split); null: AR(1) with the "
                "course's own correlation", rate,
            )
        )  # fmt: skip
    return found


def _stability(steps: Ints, ratio: Floats, seed: int) -> list[Stage]:
    walks = _walks(ratio, np.random.default_rng(seed))
    reached = np.flatnonzero(ratio >= ARRIVED)
    arrival = int(reached[0]) if reached.size else int(np.argmax(ratio))
    within = arrival + 1 if reached.size else len(ratio)
    found = []
    if arrival >= 3:
        rise = float(ratio[arrival] / ratio[0])
        rate = float((1 + np.sum(walks[:, :within].max(axis=1) >= ratio[arrival])) / (1 + len(walks)))
        if rate < LEVEL:
            where = f"its first arrival at {ARRIVED:g}" if reached.size else "its largest value"
            found.append(
                Stage(
                    "progressive sharpening", int(steps[0]), int(steps[arrival]), arrival + 1,
                    f"λ₁ over its bound {number(float(ratio[0]), 2)} → {number(float(ratio[arrival]), 2)}",
                    f"the stability ratio rises ×{number(rise, 2)} up to {where}; null: random walks of its own increments "
                    f"that come as far within {within} snapshots", rate,
                )
            )  # fmt: skip
    if reached.size and (held := _held(ratio)) >= FEWEST:
        rate = float((1 + sum(_held(walk) >= held for walk in walks)) / (1 + len(walks)))
        if rate < LEVEL:
            part = ratio[arrival : arrival + held]
            found.append(
                Stage(
                    "edge of stability", int(steps[arrival]), int(steps[arrival + held - 1]), held,
                    f"λ₁ over its bound {number(float(part.min()), 2)} to {number(float(part.max()), 2)}",
                    f"from {ARRIVED:g} on the stability ratio stays within {HELD[0]:g} to {HELD[1]:g} for {held} snapshots; "
                    "null: random walks of its own increments", rate,
                )
            )  # fmt: skip
    return found


def _held(ratio: Floats) -> int:
    """How many snapshots the ratio stays at the edge from its first arrival on; 0 if it never arrives."""
    reached = np.flatnonzero(ratio >= ARRIVED)
    if not reached.size:
        return 0
    outside = np.flatnonzero((ratio[reached[0] :] < HELD[0]) | (ratio[reached[0] :] > HELD[1]))
    return int(outside[0]) if outside.size else len(ratio) - int(reached[0])


def _walks(ratio: Floats, rng: np.random.Generator) -> Floats:
    """Random walks of log ρ that start where the course does: its own increments, shuffled and with random signs."""
    increments = np.diff(np.log(np.maximum(ratio, 1e-12)))
    drawn = rng.permuted(np.tile(increments, (_DRAWS, 1)), axis=1) * rng.choice([-1, 1], (_DRAWS, len(increments)))
    start = np.full((_DRAWS, 1), np.log(max(float(ratio[0]), 1e-12)))
    return np.asarray(np.exp(np.cumsum(np.concatenate([start, drawn], axis=1), axis=1)))


def _course(run: Run, name: str) -> tuple[Ints, Floats]:
    values = run.values(name)
    rows = np.flatnonzero(run.measured & np.isfinite(values))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    rows = rows[np.append(run.steps[rows][1:] != run.steps[rows][:-1], True)] if rows.size else rows
    return run.steps[rows], values[rows]
