"""What natural gradient should do over width, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from claims import Claim, spread
from course import Course
from results import Results

#: keys of the claims that the page explains where they do not hold
SPEED, CONTROL = "the speed-up is that of the kernel at the start", "control: in μP the rate stays what it is"
LIMITS = "the limit does not describe large networks in practice"
Run = dict[str, Any]


@dataclass(frozen=True)
class Runs:
    """Every run, by setting."""

    by_setting: dict[str, list[Run]]
    rate: float

    @classmethod
    def of(cls, results: Results) -> Runs:
        found: dict[str, list[Run]] = {}
        for run in results.runs:
            found.setdefault(run["setting"], []).append(run)
        return cls(found, results.settings["rate"])

    def of_kind(self, kind: str) -> list[str]:
        return [name for name in self.by_setting if name.endswith(kind)]

    def all(self, kind: str = "ntk") -> list[Run]:
        return [run for name in self.of_kind(kind) for run in self.by_setting[name]]

    def course(self, setting: str, number: Callable[[Run], float]) -> Course:
        runs = self.by_setting[setting]
        return Course(np.array([float(run["width"]) for run in runs]), np.array([number(run) for run in runs]))

    def departure(self, run: Run) -> float:
        """max_k |q_k − (1 − η)|: 0 in a linear model."""
        norms = np.array(run["natural_norms"])
        return float(np.max(np.abs(norms[1:] / norms[:-1] - (1 - self.rate))))

    def keeps_the_bound(self, run: Run) -> bool:
        """‖r_k‖² ≤ (1 − η)^k ‖r_0‖² for every k."""
        norms = np.array(run["natural_norms"])
        return bool(np.all(norms**2 <= (1 - self.rate) ** np.arange(len(norms)) * norms[0] ** 2))


def constant(run: Run) -> float:
    """The largest C' on the path of natural gradient."""
    return float(max(run["natural_constants"]))


def speed_up(run: Run) -> float:
    """Updates of gradient descent over those of natural gradient; a lower bound where descent was cut off."""
    return float(run["plain_updates"] or run["plain_made"]) / float(run["natural_updates"] or np.nan)


def promised(run: Run, rate: float) -> float:
    """The same in the linear model of the start."""
    return float(run["linear_updates"]) / linear_natural(rate)


def linear_natural(rate: float, level: float = 1e-3) -> int:
    """The smallest k with (1 − η)^k ≤ level."""
    return int(np.ceil(np.log(level) / np.log(1 - rate)))


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _falls(runs)
    yield _bound(runs)
    yield _not_explained(runs)
    yield _faster(runs)
    yield _promised(runs)
    yield _control(runs)


def _falls(runs: Runs) -> Claim:
    courses = {name: runs.course(name, runs.departure) for name in runs.of_kind("ntk")}
    return Claim(
        "the wider, the more like the linear model",
        "",
        f"max_k |q_k − {1 - runs.rate:g}| falls with width: the 95 % interval of its slope is below 0",
        "derived",
        "; ".join(f"{name}: {course}" for name, course in courses.items()),
        all(course.interval[1] < 0 for course in courses.values()),
    )


def _bound(runs: Runs) -> Claim:
    kept = [runs.keeps_the_bound(run) for run in runs.all()]
    return Claim(
        "the conclusion of the theorem",
        "",
        "‖r_k‖² ≤ (1 − η)^k ‖r_0‖² for all k, although C' > ½: the condition is sufficient, not necessary",
        "derived",
        f"kept by {sum(kept)} of {len(kept)} runs",
        all(kept),
    )


def _not_explained(runs: Runs) -> Claim:
    constants = [constant(run) for run in runs.all()]
    return Claim(
        "its condition does not explain it",
        LIMITS,
        "C' ≥ ½ at every width where natural gradient is fast: the theory's reason is not the reason",
        "read",
        f"C' on the path {min(constants):.3g} to {max(constants):.3g} over {len(constants)} runs",
        min(constants) >= 0.5,
    )


def _faster(runs: Runs) -> Claim:
    ratios = [speed_up(run) for run in runs.all()]
    return Claim(
        "natural gradient needs fewer updates than gradient descent",
        "",
        "by about κ ln 10³/25 if the target has weight in the slowest mode, less if not",
        "derived",
        f"{min(ratios):.3g} to {max(ratios):.3g} times fewer over {len(ratios)} runs",
        min(ratios) > 1,
    )


def _promised(runs: Runs) -> Claim:
    largest = max(run["width"] for run in runs.all())
    shares = [speed_up(run) / promised(run, runs.rate) for run in runs.all() if run["width"] == largest]
    return Claim(
        SPEED,
        "",
        "measured over that of the linear model of Θ_0: ½ to 2 at the largest width",
        "derived",
        f"{spread(shares)} at width {largest}",
        all(0.5 <= share <= 2 for share in shares),
    )


def _control(runs: Runs) -> Claim:
    courses = {name: runs.course(name, runs.departure) for name in runs.of_kind("mup")}
    return Claim(
        CONTROL,
        "",
        "μP does not become linear: the 95 % interval of the slope holds 0",
        "derived",
        "; ".join(f"{name}: {course}" for name, course in courses.items()),
        all(course.interval[0] <= 0 <= course.interval[1] for course in courses.values()),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """A reason, measured, for each claim that does not hold and can be explained."""
    if SPEED in refuted:
        middle = {
            name: np.median([run["plain_updates"] / run["linear_updates"] for run in found if run["plain_updates"]])
            for name, found in runs.by_setting.items()
            if any(run["plain_updates"] for run in found)
        }
        told = ", ".join(f"{name} {value:.2g}" for name, value in middle.items())
        yield f"{SPEED}: updates of gradient descent over those of the linear model, median over runs: {told}."
    if CONTROL in refuted:
        ends = "; ".join(
            f"{name}: {course.medians[0]:.3g} → {course.medians[-1]:.3g}, NTK {ntk.medians[0]:.3g} → {ntk.medians[-1]:.3g}"
            for name in runs.of_kind("mup")
            for course in [runs.course(name, runs.departure)]
            for ntk in [runs.course(name.replace("mup", "ntk"), runs.departure)]
        )
        yield (
            f"{CONTROL}: the readout of a μP network is N(0, σ²/m) at the start and moves by order 1/√m, so finite-width "
            f"fluctuations fall with m while the departure from the linear model keeps a part that does not: {ends}."
        )
