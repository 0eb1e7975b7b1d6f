"""Stages of training, marked from the data, each with the rule that marked it and its false-alarm rate on a null.

Three rules, each of one course:

1. **Kernel motion** slows down or speeds up where the logarithm of the kernel's angular velocity changes its level: the
   largest CUSUM statistic over all split points, again inside both parts while it is beyond the threshold. Only of angles
   over one gap, for on an orbit of period 2 one motion has another angle at every gap, and not at all where the gaps that
   are stored differ by more than a factor of two: that is no course at one lag. Null: a stationary
   AR(1) process in time, seen at the same steps, with the course's own correlation, estimated from differences, which a
   jump hardly touches.
2. **Progressive sharpening**: the sharpness rises from the start until it first comes within a tenth of its largest
   value. ρ itself rises with every warm-up; ρ/η is λ_1(S^½ J Jᵀ S^½) up to a constant where the preconditioner is the
   learning rate alone, and then no schedule of it can change what is found. For other preconditioners, which move by
   themselves, it is not judged. Null: random walks of the logarithm with the course's own increments, shuffled and with
   random signs; the rate is the share of them that come as far.
3. **Edge of stability**: from its arrival at ``ARRIVED`` on, as long as the ratio stays within ``HELD``, at least
   ``FEWEST`` snapshots. Null: random walks of log ρ; the rate is the share of them that stay at the edge as long.

Rule 3 is applied to each stretch of one learning rate, because every change of it moves the bound. Snapshots are
counted, not steps: a schedule that is dense somewhere sees more there. A pair counts once, with the mean over both
phases. A false-alarm rate speaks of the null that is named, not of the chance that a stage is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import turn_is_rounding

from ..text import number
from ..trajectory import Floats, Ints, Run
from .sharpness import sharpness

#: Beyond this false-alarm rate on its null nothing is called a stage.
LEVEL = 0.05
#: λ_1 has arrived at its bound from here on, and is held by it within these.
ARRIVED, HELD, FEWEST = 0.95, (0.75, 1.5), 4
_DRAWS, FEWEST_POINTS = 999, 6
#: What an AR(1) null may remember from one snapshot to the next; of what remembers more every course looks like two levels.
_REMEMBERED = 0.95
#: Levels of the angular velocity, and a rise of the sharpness, by less than this are none: rounding, or an estimate of ρ.
MOVED = 1.1
#: Angles over gaps that differ by more than this are not one course.
GAPS = 2.0


@dataclass(frozen=True)
class Stage:
    """A stretch of snapshots.

    Attributes:
        name: "fast kernel motion", "slow kernel motion", "progressive sharpening" or "edge of stability".
        first: step of its first snapshot.
        last: step of its last one.
        snapshots: how many it holds.
        level: what carries it: median angular velocity, the rise of the sharpness, or the ratio's range as text.
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


#: What the rules look at.
_RULED = ("kernel_angular_velocity", "gauss_newton_sharpness", "stability_ratio")


def stages(run: Run, *, seed: int = 0) -> tuple[Stage, ...]:
    """Every stage that a rule finds at the level; empty where the courses have none.

    Args:
        run: with ``kernel_angular_velocity``, ``gauss_newton_sharpness`` or ``stability_ratio``.
        seed: of the draws from the nulls.

    Raises:
        AnalysisError: none is stored, or fewer than six snapshots hold one that a rule may use.
    """
    return judge(run, seed=seed)[0]


def judge(run: Run, *, seed: int = 0) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """The stages, and why rules were not applied to the run: one clause each.

    Raises:
        AnalysisError: as :func:`stages`.
    """
    known = {name: _course(run, name) for name in _RULED if run.has(name)}
    if not known:
        run.require("kernel_angular_velocity", why="finding stages")
    found: list[Stage] = []
    reasons: list[str] = []
    if "kernel_angular_velocity" in known:
        found += _of_motion(run, known["kernel_angular_velocity"], seed, reasons)
    ratio = known.get("stability_ratio", np.empty(0, int))
    sharp = known.get("gauss_newton_sharpness", ratio)
    if len(sharp) >= FEWEST_POINTS:
        found += _of_sharpness(run, sharp, seed, reasons)
    if len(ratio) >= FEWEST_POINTS:
        found += _of_edge(run, ratio, seed, reasons)
    if max(map(len, known.values())) < FEWEST_POINTS:
        raise AnalysisError(
            "finding stages",
            expected=f"{FEWEST_POINTS} snapshots or more",
            got=max(map(len, known.values())),
            where=run.path or None,
            remedy="; ".join(reasons) or None,
        )
    return tuple(found), tuple(reasons)


def _of_motion(run: Run, rows: Ints, seed: int, reasons: list[str]) -> list[Stage]:
    omega, gaps = run.values("kernel_angular_velocity")[rows], run.gaps[rows]
    known = gaps[np.isfinite(gaps)]
    if known.size and known.max() > GAPS * known.min():
        reasons.append(
            f"kernel motion: the gaps differ, from {number(known.min())} to {number(known.max())} updates, and angles over "
            f"gaps that differ by more than ×{GAPS:g} are not one course"
        )
        return []
    lengths, counts = np.unique(known, return_counts=True)
    lag = lengths[counts.argmax()] if known.size else 1.0
    used = ~np.isfinite(gaps) | (gaps == lag)
    if not used.all():
        reasons.append(
            f"kernel motion: {int(np.sum(~used))} angles over other gaps than {number(lag)} updates are left out"
        )
    dtype = run.settings.get("dtype")
    turned = used & ~np.array([turn_is_rounding(float(angle), dtype) for angle in omega * lag])
    if resting := int(np.sum(used & ~turned)):
        reasons.append(f"kernel motion: in {resting} snapshots the kernel turned by no more than its rounding")
    if turned.sum() >= FEWEST_POINTS:
        return _motion(run.steps[rows[turned]], omega[turned], seed)
    reasons.append(f"kernel motion: {int(turned.sum())} angles at one lag, and {FEWEST_POINTS} are needed")
    return []


def _of_sharpness(run: Run, rows: Ints, seed: int, reasons: list[str]) -> list[Stage]:
    course, reason = sharpness(run)
    course = run.groups.both_phases(course)
    if reason:
        reasons.append(f"progressive sharpening: {reason}")
        return []
    rows = rows[np.isfinite(course[rows]) & (course[rows] > 0)]
    return _sharpening(run.steps[rows], course[rows], seed) if len(rows) >= FEWEST_POINTS else []


def _of_edge(run: Run, rows: Ints, seed: int, reasons: list[str]) -> list[Stage]:
    rates, ratio = run.learning_rates[rows], run.groups.both_phases(run.values("stability_ratio"))[rows]
    moved = np.flatnonzero(np.any(rates[1:] != rates[:-1], axis=1)) + 1
    parts = [part for part in np.split(np.arange(len(rows)), moved) if len(part) >= FEWEST_POINTS]
    if not parts:
        reasons.append(f"edge of stability: the rate moved, and fewer than {FEWEST_POINTS} snapshots share one")
    return [stage for part in parts for stage in _edge(run.steps[rows[part]], ratio[part], seed)]


def change_points(
    values: Floats, *, seed: int = 0, level: float = LEVEL, at: Ints | None = None
) -> list[tuple[int, float]]:
    """(index of the first value at the new level, false-alarm rate) for every change of level, ascending.

    Binary segmentation: the split with the largest statistic |mean_right − mean_left| √(n_l n_r/n)/σ, if fewer than
    ``level`` of the draws from an AR(1) null with the segment's own lag-1 correlation reach it, and if two levels fit the
    segment better than a straight line over t or log t does: what goes down gradually has no stages. Then both sides.

    Args:
        values: (S,) in order.
        seed: of the draws.
        level: the false-alarm rate that a change must stay below.
        at: (S,) the step of each, ascending; None: evenly spaced. Over a long gap the null forgets more than over a short one.
    """
    steps = np.arange(len(values)) if at is None else np.asarray(at)
    rng = np.random.default_rng(seed)
    found: list[tuple[int, float]] = []

    def split(first: int, last: int) -> None:
        part = values[first:last]
        if len(part) < FEWEST_POINTS:
            return
        statistic, place = _cusum(part[None])
        null = _cusum(_ar1(rng, correlations(part, np.diff(steps[first:last]))))[0]
        rate = float((1 + np.sum(null >= statistic[0])) / (1 + len(null)))
        if rate < level and _is_step(part, steps[first:last], int(place[0])):
            middle = first + int(place[0])
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
    return float(np.clip(1 + 2 * rho, 0.0, _REMEMBERED))


def _is_step(values: Floats, steps: Ints, place: int) -> bool:
    """Whether two levels, the second from ``place`` on, leave less than the better of two lines, over t and over log t."""
    levels = sum(float(np.sum((part - part.mean()) ** 2)) for part in (values[:place], values[place:]))
    times = (steps.astype(np.float64), np.log1p(steps.astype(np.float64)))
    lines = [np.polyfit(time - time.mean(), values, 1, full=True)[1] for time in times]
    return levels < min(float(rest[0]) if rest.size else 0.0 for rest in lines)


def correlations(values: Floats, gaps: Ints) -> Floats:
    """(S − 1,) e^(−κg) between neighbours: what an AR(1) process in time remembers over each gap g.

    For equal gaps that is :func:`lag_one`. For others κ is the smallest that is as likely as the likeliest to half a unit of
    the logarithm, one standard error: a null that forgot more than the course would call its wandering a change.

    Args:
        values: (S,) in order.
        gaps: (S − 1,) steps between them.
    """
    if np.ptp(gaps) == 0:
        return np.full(len(gaps), lag_one(values))
    slowest, fastest = -np.log(_REMEMBERED) / np.median(gaps), 8.0 / gaps.min()
    grid = np.geomspace(slowest, max(fastest, slowest), 24)
    jump = int(np.argmax(np.abs(np.diff(values)) / np.sqrt(-np.expm1(-grid[0] * gaps)))) + 1
    likely = np.array([_likelihood(values, gaps, jump, decay) for decay in grid])
    return np.asarray(np.exp(-grid[np.flatnonzero(likely >= likely.max() - 0.5)[0]] * gaps))


def _likelihood(values: Floats, gaps: Ints, jump: int, decay: float) -> float:
    """Log-likelihood of κ, restricted to what two levels, before and from ``jump`` on, leave (variance profiled out).

    The innovations (x_i − r x_{i−1})/√(1 − r²) of such a process are independent, so regression of them is all there is to do.
    """
    r = np.exp(-decay * gaps)
    spread = np.append(1.0, np.sqrt(-np.expm1(-2 * decay * gaps)))
    levels = np.stack([np.arange(len(values)) < jump, np.arange(len(values)) >= jump], axis=1).astype(np.float64)
    columns = np.column_stack([values, levels])
    columns[1:] -= r[:, None] * columns[:-1].copy()
    columns /= spread[:, None]
    design, fitted = columns[:, 1:], np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=None)[0]
    rest = float(np.sum((columns[:, 0] - design @ fitted) ** 2))
    free = len(values) - 2
    return float(
        -np.sum(np.log(spread)) - np.linalg.slogdet(design.T @ design)[1] / 2 - free * np.log(max(rest, 1e-300)) / 2
    )


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


def _ar1(rng: np.random.Generator, remembered: Floats) -> Floats:
    """Draws of unit variance, (draws, S), from the correlations (S − 1,) of neighbours."""
    noise = rng.standard_normal((_DRAWS, len(remembered) + 1))
    for i, r in enumerate(remembered, start=1):
        noise[:, i] = r * noise[:, i - 1] + np.sqrt(1 - r**2) * noise[:, i]
    return noise


def _motion(steps: Ints, omega: Floats, seed: int) -> list[Stage]:
    changes = change_points(np.log(omega), seed=seed, at=steps)
    if not changes:
        return []
    borders = [0, *(at for at, _ in changes), len(steps)]
    medians = [float(np.median(omega[a:b])) for a, b in pairwise(borders)]
    if max(medians) < MOVED * min(medians):
        return []
    middle = np.sqrt(max(medians) * min(medians))
    found = []
    for (a, b), median in zip(pairwise(borders), medians, strict=True):
        rate = max(rate for at, rate in changes if at in (a, b))
        found.append(
            Stage(
                "fast kernel motion" if median >= middle else "slow kernel motion",
                int(steps[a]),
                int(steps[b - 1]),
                b - a,
                f"median angular velocity {number(median)} rad per update, all at one lag",
                "the level of the logarithm of the kernel's angular velocity changes (largest CUSUM split); null: AR(1) in "
                "time, seen at the same steps, with the course's own correlation",
                rate,
            )
        )
    return found


def _sharpening(steps: Ints, course: Floats, seed: int) -> list[Stage]:
    """Rule 2 on λ_1(S^½ J Jᵀ S^½) up to a constant, (S,), positive."""
    arrival = int(np.flatnonzero(course >= course.max() / MOVED)[0])
    if arrival < 3:
        return []
    walks = _walks(course, np.random.default_rng(seed))
    rate = float((1 + np.sum(walks.max(axis=1) >= course[arrival])) / (1 + len(walks)))
    if rate >= LEVEL:
        return []
    with np.errstate(over="ignore"):
        rise = float(course[arrival] / course[0])
    return [
        Stage(
            "progressive sharpening",
            int(steps[0]),
            int(steps[arrival]),
            arrival + 1,
            f"sharpness ρ/η ×{number(rise, 2)}",
            "the stability ratio over the learning rate, which no schedule of the rate moves, rises until it is within a "
            "tenth of its largest value; null: random walks of its own increments that come as far",
            rate,
        )
    ]


def _edge(steps: Ints, ratio: Floats, seed: int) -> list[Stage]:
    """Rule 3 on ρ over a stretch of one learning rate, (S,)."""
    held = _held(ratio)
    if held < FEWEST:
        return []
    walks = _walks(ratio, np.random.default_rng(seed))
    rate = float((1 + sum(_held(walk) >= held for walk in walks)) / (1 + len(walks)))
    if rate >= LEVEL:
        return []
    arrival = int(np.flatnonzero(ratio >= ARRIVED)[0])
    part = ratio[arrival : arrival + held]
    return [
        Stage(
            "edge of stability",
            int(steps[arrival]),
            int(steps[arrival + held - 1]),
            held,
            f"λ₁ over its bound {number(float(part.min()), 2)} to {number(float(part.max()), 2)}",
            f"from {ARRIVED:g} on the stability ratio stays within {HELD[0]:g} to {HELD[1]:g} for {held} snapshots; "
            "null: random walks of its own increments",
            rate,
        )
    ]


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
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(np.cumsum(np.concatenate([start, drawn], axis=1), axis=1)))


def _course(run: Run, name: str) -> Ints:
    """Rows that hold the number, ascending in step; of rows at one step the last."""
    values = run.values(name)
    if name != "kernel_angular_velocity":  # which stands in the second row of a pair, and is of both phases
        values = run.groups.both_phases(values)
    rows = np.flatnonzero(run.taken & np.isfinite(values))
    rows = rows[np.argsort(run.steps[rows], kind="stable")]
    return rows[np.append(run.steps[rows][1:] != run.steps[rows][:-1], True)] if rows.size else rows
