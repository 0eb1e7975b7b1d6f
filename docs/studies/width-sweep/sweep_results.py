"""The numbers of the sweep and of the deep limit, as results.json holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from course import Course
from results import Results

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """Every training of the sweep, by setting."""

    runs: dict[str, list[Numbers]]

    @classmethod
    def of(cls, results: Results) -> Trained:
        found: dict[str, list[Numbers]] = {}
        for run in results.runs:
            if run["kind"] == "training":
                found.setdefault(run["setting"], []).append(run)
        return cls(found)

    def course(self, setting: str, number: str) -> Course:
        """Of a number by name; NaN where a setting does not have it."""
        runs = self.runs[setting]
        values = [run["numbers"].get(number) for run in runs]
        return Course(
            np.array([float(run["width"]) for run in runs]),
            np.array([np.nan if value is None else value for value in values]),
        )


@dataclass(frozen=True)
class Scaled:
    """What a scaling of depth and time predicts, over n.

    Attributes:
        name: of the scaling.
        outcomes: one for each n, by what :class:`deep_limit.Outcome` calls it.
        changes: ‖f^(2n) − f^(n)‖/‖f^(2n)‖ less means, between neighbouring n.
        truth: standard deviation of the truth over the test points.
    """

    name: str
    outcomes: list[Numbers]
    changes: list[float]
    truth: float

    @classmethod
    def of(cls, run: Numbers) -> Scaled:
        return cls(run["name"], run["outcomes"], run["changes"], run["truth"])

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(o["n"] for o in self.outcomes)

    def each(self, name: str) -> np.ndarray:
        return np.array([o[name] for o in self.outcomes])

    @property
    def explained(self) -> np.ndarray:
        """R² against a constant, means taken off: 2rs − s², r the correlation with the truth, s the spread over the truth's."""
        shares = self.each("spread") / self.truth
        return 2 * self.each("correlation") * shares - shares**2


@dataclass(frozen=True)
class Deep:
    """What the closed form gives.

    Attributes:
        limits: what :func:`deep_runs.limits` found.
        scalings: on the sphere, by name.
        large: the same of many points.
        images: the same of real ones.
    """

    limits: Numbers
    scalings: dict[str, Scaled]
    large: dict[str, Scaled]
    images: dict[str, Scaled]

    @classmethod
    def of(cls, results: Results) -> Deep:
        def some(kind: str) -> Iterable[Numbers]:
            return (run for run in results.runs if run["kind"] == kind)

        (limits,) = some("limits")
        return cls(limits, *({r["name"]: Scaled.of(r) for r in some(kind)} for kind in ("sphere", "large", "images")))

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(self.limits["depths"])

    @property
    def counts(self) -> tuple[int, ...]:
        return next(iter(self.scalings.values())).counts
