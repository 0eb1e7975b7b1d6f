"""One number over width: its medians and its slope; and all runs of a sweep, from which the number is read.

The slope of a :class:`Course` is that of log q over log width by least squares over the runs, with its 95 % interval
(``kerneltrack.analysis.comparison.sweep``); :class:`Corrected` is the exponent that is left at infinite width; the slope of a
:class:`Trend` is of q itself, for shares that may be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from results import Results

from kerneltrack.analysis.comparison.sweep import power_law

#: An exponent of theory is that of infinite width: one within this of the interval of a finite sweep is not refuted.
ASYMPTOTIC = 0.1
#: A correction is not more than this factor at the narrowest width, and not less than one over it: else it is no correction.
LARGEST_CORRECTION = 4.0
#: An interval of the corrected exponent that is wider cannot tell exponents apart that differ by ½.
TELLING = 0.5

Run = dict[str, Any]
Number = Callable[[Run], float]


@dataclass(frozen=True)
class Course:
    """One number of every run of a setting.

    Attributes:
        widths: (R,).
        values: (R,).
    """

    widths: np.ndarray
    values: np.ndarray

    def at(self, width: float) -> np.ndarray:
        return self.values[self.widths == width]

    @property
    def sorted_widths(self) -> list[float]:
        return sorted(set(self.widths.tolist()))

    @property
    def medians(self) -> np.ndarray:
        return np.array([np.median(self.at(w)) for w in self.sorted_widths])

    @property
    def slope(self) -> float:
        return power_law(self.widths, self.values)[0]

    @property
    def interval(self) -> tuple[float, float]:
        return power_law(self.widths, self.values)[2]

    @property
    def last_slope(self) -> float:
        """Between the medians of the two largest widths."""
        return float(np.diff(np.log(self.medians[-2:]))[0] / np.diff(np.log(self.sorted_widths[-2:]))[0])

    def agrees(self, exponent: float) -> bool:
        """Whether the interval, widened by :data:`ASYMPTOTIC` on both sides, holds the exponent."""
        low, high = self.interval
        return bool(low - ASYMPTOTIC <= exponent <= high + ASYMPTOTIC)

    @cached_property
    def corrected(self) -> Corrected:
        known = np.isfinite(self.values)
        return Corrected.of(self.widths[known], self.values[known])

    def limit(self, exponent: float) -> bool | None:
        """Whether an exponent is that of infinite width, by the corrected fit; None where its interval tells too little."""
        low, high = self.corrected.interval
        return False if not low <= exponent <= high else True if high - low <= TELLING else None

    def reaches(self, level: float) -> float:
        """The width at which the fitted line is at ``level``; it is an extrapolation."""
        slope, _, _, intercept, _ = power_law(self.widths, self.values)
        return float(np.exp((np.log(level) - intercept) / slope))

    def __str__(self) -> str:
        """Slope with its interval, medians at both ends, seeds."""
        first, final = self.sorted_widths[0], self.sorted_widths[-1]
        ends = f"{_short(self.medians[0])} at {first:g} → {_short(self.medians[-1])} at {final:g}"
        low, high = self.interval
        return f"slope {self.slope:.2f} [{low:.2f}, {high:.2f}]; {ends} ({len(self.at(first))} seeds)".replace("-", "−")


@dataclass(frozen=True)
class Corrected:
    """q = a m^p (1 + b m^−½): the exponent p of infinite width, with the first correction of a finite one.

    A slope over finite widths is that of the product; between −½ and −0.4 it cannot tell. b is such that the correction is
    within :data:`LARGEST_CORRECTION` at the narrowest width.

    Attributes:
        exponent: p.
        interval: 95 %, by profile: the p for which the best a and b leave at most 1 + F/ν times the least sum of squares of
            log q; ν = runs − 3, F the quantile of F(1, ν). Without a ν everything.
        factor: 1 + b m^−½ at the narrowest width.
    """

    exponent: float
    interval: tuple[float, float]
    factor: float

    @classmethod
    def of(cls, widths: np.ndarray, values: np.ndarray) -> Corrected:
        from scipy import stats  # loading it takes a second that only a fit needs

        x, factors = np.log(widths), np.geomspace(1 / LARGEST_CORRECTION, LARGEST_CORRECTION, 601)
        shares = np.sqrt(widths.min() / widths)
        y = np.log(values) - np.log1p((factors[:, None] - 1) * shares)  # (factors, runs)
        x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
        exponents = np.linspace(-4, 4, 3201)[:, None]
        left = (y**2).sum(axis=1) - 2 * exponents * (y @ x) + exponents**2 * (x @ x)  # (exponents, factors)
        left = np.maximum(left, 0)  # where a fit is exact, rounding
        best = np.unravel_index(left.argmin(), left.shape)
        point, factor, free = float(exponents[best[0], 0]), float(factors[best[1]]), len(x) - 3
        if free < 1:
            return cls(point, (-np.inf, np.inf), factor)
        within = left.min(axis=1) <= left.min() * (1 + float(stats.f.ppf(0.95, 1, free)) / free)
        return cls(point, (float(exponents[within].min()), float(exponents[within].max())), factor)

    def __str__(self) -> str:
        """Exponent with its interval, and what the correction is at the narrowest width."""
        low, high = self.interval
        told = f"[{low:.2f}, {high:.2f}]" if np.isfinite(high - low) else "[no interval]"
        return f"at infinite width {self.exponent:.2f} {told}".replace("-", "−")


@dataclass(frozen=True)
class Trend:
    """A number over log_2 width: the change by a doubling, with a 95 % bootstrap interval over seeds."""

    slope: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, tables: Sequence[np.ndarray], widths: Sequence[float], draws: int = 2_000) -> Trend:
        """Of one (S, W) table, or of the second less the first, in which the same seeds are drawn."""
        table = tables[-1] - (tables[0] if len(tables) > 1 else 0.0)
        x = np.log2(widths) - np.mean(np.log2(widths))
        slopes = table @ x / (x @ x)
        drawn = np.random.default_rng(0).integers(0, len(slopes), (draws, len(slopes)))
        low, high = np.quantile(slopes[drawn].mean(axis=1), [0.025, 0.975])
        return cls(float(slopes.mean()), (float(low), float(high)))

    def __str__(self) -> str:
        return f"{self.slope:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}] points a doubling".replace("-", "−")


@dataclass(frozen=True)
class Sweep:
    """Every run of a study, each with its ``seed`` and its width.

    Attributes:
        all: the runs' numbers.
        along: under which name a run has its width.
    """

    all: list[Run]
    along: ClassVar[str] = "width"

    @classmethod
    def of(cls, results: Results) -> Self:
        return cls(results.runs)

    @property
    def widths(self) -> list[Any]:
        return self.widths_of()

    def some(self, **wanted: object) -> list[Run]:
        return [run for run in self.all if all(run[key] == value for key, value in wanted.items())]

    def distinct(self, key: str, **wanted: object) -> list[Any]:
        """The values of a key, in the order of the runs."""
        return list(dict.fromkeys(run[key] for run in self.some(**wanted)))

    def widths_of(self, **wanted: object) -> list[Any]:
        return sorted(self.distinct(self.along, **wanted))

    def table(self, number: Number, **wanted: object) -> np.ndarray:
        """(seeds, widths)."""
        rows = {(run["seed"], run[self.along]): number(run) for run in self.some(**wanted)}
        seeds, widths = sorted({seed for seed, _ in rows}), self.widths_of(**wanted)
        return np.array([[rows[seed, width] for width in widths] for seed in seeds])

    def trend(self, number: Number, **wanted: object) -> Trend:
        return Trend.of([self.table(number, **wanted)], self.widths_of(**wanted))

    def course(self, number: Number, **wanted: object) -> Course:
        found = self.some(**wanted)
        return Course(np.array([float(run[self.along]) for run in found]), np.array([number(run) for run in found]))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
