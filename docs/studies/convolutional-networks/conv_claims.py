"""What networks should do beside their linearisations, each claim beside what the runs say. Decided before the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from claims import Claim, spread
from course import Course, Trend
from results import Results

Run = dict[str, Any]
Number = Callable[[Run], float]

#: from the easiest; "random" is the control
TASKS = ("parity", "classes", "permuted")
LIMITS = "the limit does not describe large networks in practice"
AHEAD, NARROWS = "networks are ahead of their linearisations", "the linearisation catches up with width"
HARDER, CHANCE = "the harder the task, the further ahead", "control: random labels"
LEARNED = "the kernel that training made is the better one"


@dataclass(frozen=True)
class Runs:
    """Every run."""

    all: list[Run]

    @classmethod
    def of(cls, results: Results) -> Runs:
        return cls(results.runs)

    @property
    def tasks(self) -> list[str]:
        return [name for name in TASKS if self.some(difficulty=name)]

    def some(self, **wanted: object) -> list[Run]:
        return [run for run in self.all if all(run[key] == value for key, value in wanted.items())]

    def multipliers(self, difficulty: str) -> list[float]:
        return sorted({run["multiplier"] for run in self.some(difficulty=difficulty)})

    def trend(self, number: Number, difficulty: str) -> Trend:
        """Over log_2 of the multiplier."""
        rows = {(run["seed"], run["multiplier"]): number(run) for run in self.some(difficulty=difficulty)}
        widths = self.multipliers(difficulty)
        seeds = sorted({seed for seed, _ in rows})
        return Trend.of([np.array([[rows[seed, width] for width in widths] for seed in seeds])], widths)

    def course(self, number: Number, difficulty: str) -> Course:
        found = self.some(difficulty=difficulty)
        return Course(np.array([run["multiplier"] for run in found]), np.array([number(run) for run in found]))


def gap(run: Run) -> float:
    """A_net − A_lin in points of unseen images that are right."""
    return 100 * float(run["network"] - run["linear"])


def claims(runs: Runs) -> Iterator[Claim]:
    """The rows of the page."""
    yield _ahead(runs)
    yield _narrows(runs)
    yield _harder(runs)
    yield _unstable(runs)
    yield _lazier(runs)
    yield _learned(runs)
    yield _chance(runs)


def _each(runs: Runs, tell: Callable[[str], object]) -> str:
    return "; ".join(f"{name}: {tell(name)}" for name in runs.tasks)


def _gaps(runs: Runs, name: str) -> list[float]:
    return [gap(run) for run in runs.some(difficulty=name, multiplier=1.0)]


def _surely(values: list[float]) -> bool:
    """Whether the mean is more than two standard errors above 0."""
    return float(np.mean(values)) > 2 * float(np.std(values, ddof=1)) / len(values) ** 0.5


def _ahead(runs: Runs) -> Claim:
    return Claim(
        AHEAD,
        "trained networks are well above their linearisations at standard width",
        "at c = 1 the gap is above 0 by two standard errors, on each task",
        "read",
        _each(runs, lambda name: f"{spread(_gaps(runs, name))} points"),
        all(_surely(_gaps(runs, name)) for name in runs.tasks),
    )


def _narrows(runs: Runs) -> Claim:
    trends = {name: runs.trend(gap, name) for name in runs.tasks}
    return Claim(
        NARROWS,
        "linearisations improve steeply with width",
        "the gap's slope over log c is below 0 on each task, with its 95 % interval",
        "read",
        _each(runs, lambda name: trends[name]),
        all(trend.interval[1] < 0 for trend in trends.values()),
    )


def _harder(runs: Runs) -> Claim:
    medians = [float(np.median(_gaps(runs, name))) for name in runs.tasks]
    return Claim(
        HARDER,
        "the gap grows with difficulty",
        "at c = 1, medians: odd or even < ten classes < ten classes with permuted pixels",
        "read",
        ", ".join(f"{name} {value:.3g}" for name, value in zip(runs.tasks, medians, strict=True)) + " points",
        all(a < b for a, b in pairwise(medians)),
    )


def _unstable(runs: Runs) -> Claim:
    found = [run["constant"] for name in runs.tasks for run in runs.some(difficulty=name, multiplier=1.0)]
    return Claim(
        "the theory's condition does not hold of it",
        LIMITS,
        "C' ≥ ½ for every network at c = 1",
        "read",
        f"{min(found):.3g} to {max(found):.3g}; over width, {_each(runs, lambda n: runs.course(lambda r: r['constant'], n))}",
        min(found) >= 0.5,
    )


def _lazier(runs: Runs) -> Claim:
    courses = {name: runs.course(lambda run: run["change"], name) for name in runs.tasks}
    return Claim(
        "the wider, the less the kernel changes",
        "",
        "‖Θ_T − Θ_0‖/‖Θ_0‖ falls with c: slope below 0 (95 %) on each task",
        "derived",
        _each(runs, lambda name: courses[name]),
        all(course.interval[1] < 0 for course in courses.values()),
    )


def _learned(runs: Runs) -> Claim:
    gains = {
        name: [100 * (run["regression_end"] - run["regression_start"]) for run in runs.some(difficulty=name)]
        for name in runs.tasks
    }
    return Claim(
        LEARNED,
        "the kernel of finite networks learns features",
        "kernel regression with Θ_T has more unseen images right than with Θ_0: the median over runs, on each task",
        "read",
        _each(runs, lambda name: f"{spread(gains[name])} points"),
        all(np.median(found) > 0 for found in gains.values()),
    )


def _chance(runs: Runs) -> Claim:
    found = {way: [run[way] for run in runs.some(difficulty="random")] for way in ("network", "linear")}
    return Claim(
        CHANCE,
        "",
        "nothing can be known of unseen images: both within 4 points of 10 %",
        "derived",
        "; ".join(f"{way}: {spread([100 * v for v in values])} %" for way, values in found.items()),
        all(abs(value - 0.1) < 0.04 for values in found.values() for value in values),
    )


def why_not(runs: Runs, refuted: set[str]) -> Iterator[str]:
    """A reason, measured, for each claim that does not hold and can be explained."""
    if refuted & {AHEAD, NARROWS, HARDER}:
        for name in runs.tasks:
            ends = [(c, runs.some(difficulty=name, multiplier=c)) for c in runs.multipliers(name)]
            told = "; ".join(
                f"c = {c:g}: network {100 * _middle(some, 'network'):.1f} % (loss {_middle(some, 'network_loss'):.2g}), "
                f"linearisation {100 * _middle(some, 'linear'):.1f} % (loss {_middle(some, 'linear_loss'):.2g})"
                for c, some in ends
            )
            yield f"{name}, medians of unseen images that are right, and of the training loss: {told}."


def _middle(some: list[Run], key: str) -> float:
    return float(np.median([run[key] for run in some]))
