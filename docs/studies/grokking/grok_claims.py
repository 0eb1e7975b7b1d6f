"""What the kernel should know while a network groks, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from claims import Claim, spread
from course import Run, Sweep

FEATURES = "the kernel's first modes become Fourier features as the network groks (2510.00468)"
LAZY = "grokking is the way from the lazy to the rich regime, and lazier starts delay it (2310.06110)"
#: keys of the claims that the page explains where they do not hold
LEARNED, WHEN, DELAYED = (
    "the first modes come to hold the waves of a + b",
    "they do so when it groks",
    "larger α, later",
)
BOTH = "the waves of a − b come with them"
#: of the closed form's energy, within which a network has found it
NEAR = 0.05
#: energy of what is not learned may rise by so much
STILL = 0.1
SUMS, DIFFERENCES, FOREIGN = "a + b", "a − b", "a + 2b"


class Runs(Sweep):
    """Every run; the scale of most claims is the smallest one."""

    @property
    def scales(self) -> list[float]:
        return sorted(self.distinct("scale"))

    def sums(self, scale: float | None = None) -> list[Run]:
        """Of one scale, seed by seed."""
        wanted = self.scales[0] if scale is None else scale
        return sorted(self.some(random=False, scale=wanted), key=lambda run: run["seed"])

    @property
    def random(self) -> list[Run]:
        return self.some(random=True)


def course(run: Run, family: str = SUMS) -> np.ndarray:
    """E of a family at each moment."""
    return np.array([row["energy"][family] for row in run["moments"]])


def steps(run: Run) -> np.ndarray:
    return np.array([row["step"] for row in run["moments"]])


def by_heart(run: Run, family: str = SUMS) -> float:
    """E at the first moment at which every training pair is right; NaN where there is none."""
    if run["learned"] is None:
        return float("nan")
    return float(course(run, family)[np.argmax(steps(run) >= run["learned"])])


def rise(run: Run, family: str = SUMS) -> float:
    """E at the end less E at the start."""
    energies = course(run, family)
    return float(energies[-1] - energies[0])


def steepest(run: Run) -> float:
    """The step, between two moments, at which E of the sums grows fastest over log step."""
    at = steps(run)[1:]
    slopes = np.diff(course(run)[1:]) / np.diff(np.log(at))
    place = int(np.argmax(slopes))
    return float(np.sqrt(at[place] * at[place + 1]))


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _learned(runs)
    yield _when(runs)
    yield _delayed(runs)
    yield _aligned(runs)
    yield _both(runs)
    yield _still(runs.random, "control: labels without a rule", SUMS)
    yield _still(runs.sums(), "control: functions that nobody asked for", FOREIGN)


def _learned(runs: Runs) -> Claim:
    found = runs.sums()
    ends, solved = [course(run)[-1] for run in found], [run["solution"][SUMS] for run in found]
    first = [by_heart(run) for run in found]
    return Claim(
        LEARNED,
        FEATURES,
        f"E of the waves in use is within {NEAR} of that of the exact solution at the end, and below 0.5 at the step where every "
        "training pair is right, in every seed",
        "read",
        f"{spread(first)} where they are right, {spread(ends)} at the end, the solution's {spread(solved)}; "
        f"permuted pairs {spread(run['moments'][-1]['permuted'] for run in found)}",
        all(abs(end - told) <= NEAR for end, told in zip(ends, solved, strict=True)) and all(v < 0.5 for v in first),
    )


def _when(runs: Runs) -> Claim:
    found = [run for run in runs.sums() if run["grokked"] is not None]
    ratios = [steepest(run) / run["grokked"] for run in found]
    return Claim(
        WHEN,
        FEATURES,
        "the step at which E grows fastest over log step is within a factor of 2 of that at which half of the unseen pairs are "
        "right, in every seed",
        "read",
        f"{spread(ratios)} of it; half right at step {spread((run['grokked'] for run in found), digits=5)}"
        if found
        else "no network groks",
        len(found) == len(runs.sums()) and all(0.5 <= ratio <= 2 for ratio in ratios),
    )


def _delayed(runs: Runs) -> Claim:
    table = [[run["grokked"] or np.inf for run in runs.sums(scale)] for scale in runs.scales]
    grows = [all(np.array(late) > np.array(early)) for early, late in pairwise(table)]
    return Claim(
        DELAYED,
        LAZY,
        "the step at which half of the unseen pairs are right grows with the output scale α, in every seed",
        "read",
        "; ".join(f"α = {scale:g}: {_told(row)}" for scale, row in zip(runs.scales, table, strict=True)),
        all(grows) if len(table) > 1 else None,
    )


def _told(row: list[float]) -> str:
    there = [value for value in row if np.isfinite(value)]
    missing = f"{len(row) - len(there)} of {len(row)} never" if len(there) < len(row) else ""
    return ", ".join(part for part in (f"step {spread(there, digits=5)}" if there else "", missing) if part)


def _aligned(runs: Runs) -> Claim:
    found = runs.sums()

    def over(row: dict[str, float]) -> float:
        return row["alignment"] / row["chance"]

    ends = [[over(run["moments"][place]) for run in found] for place in (0, -1)]
    return Claim(
        "the kernel aligns with the table",
        "",
        "centred alignment with all labels, over its exact mean for permuted ones: above 1 at the end and more than at the start, "
        "in every seed (a kernel that separates the sums is aligned with what depends on them alone)",
        "derived",
        f"{spread(ends[0])} at the start, {spread(ends[1])} at the end",
        all(last > max(1.0, first) for first, last in zip(*ends, strict=True)),
    )


def _both(runs: Runs) -> Claim:
    shares = [rise(run, DIFFERENCES) / rise(run) for run in runs.sums()]
    solved = [run["solution"][DIFFERENCES] for run in runs.sums()]
    return Claim(
        BOTH,
        "",
        "a quadratic unit makes cos ω(a + b) and cos ω(a − b) with one weight, and the trace over outputs drops the phase that "
        "tells them apart: the energy of the differences rises by more than half of what that of the sums does, in every seed",
        "derived",
        f"{spread(shares)} of it; in the exact solution E of the differences is {spread(solved)}",
        all(share > 0.5 for share in shares),
    )


def _still(found: list[Run], key: str, family: str) -> Claim:
    rises = [rise(run, family) for run in found]
    return Claim(
        key,
        "",
        f"E of the waves of {family} does not rise by more than {STILL}, in every seed",
        "derived",
        f"{spread(rises)}",
        all(value <= STILL for value in rises),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """What was measured beside each claim that does not hold, so that a reader sees why."""
    if LEARNED in refuted:
        used = "; ".join(f"seed {run['seed']}: {len(run['used'])}" for run in runs.sums())
        last = spread(row["right"][1] for run in runs.sums() for row in run["moments"][-1:])
        layers = "; ".join(
            f"{name} {spread(run['layers'][name] for run in runs.sums())}" for name in runs.sums()[0]["layers"]
        )
        yield f"{LEARNED}. Frequencies in use: {used}. Unseen pairs right at the end: {last}. E by layer: {layers}."
    if WHEN in refuted:
        told = "; ".join(
            f"seed {run['seed']}: fastest at {steepest(run):,.0f}, learned by heart at {run['learned']}, half of the others "
            f"right at {run['grokked']}, E then {_at(run, run['grokked'])}"
            for run in runs.sums()
        )
        yield f"{WHEN}. {told}."
    if DELAYED in refuted:
        losses = "; ".join(
            f"α = {scale:g}: {spread(run['moments'][-1]['losses'][1] for run in runs.sums(scale))}"
            for scale in runs.scales
        )
        yield f"{DELAYED}. Loss on the unseen pairs at the end, of that of the function 0: {losses}."
    if BOTH in refuted:
        yield f"{BOTH}. E of the differences at the end: {spread(course(run, DIFFERENCES)[-1] for run in runs.sums())}."


def _at(run: Run, step: int | None) -> str:
    return "–" if step is None else f"{np.interp(step, steps(run), course(run)):.2f}"
