"""One number over width: its medians and its slope.

A slope is that of log q over log width by least squares over the runs, with its 95 % interval
(``kerneltrack.analysis.comparison.sweep``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.analysis.comparison.sweep import power_law

#: An exponent of theory is that of infinite width: one within this of the interval of a finite sweep is not refuted.
ASYMPTOTIC = 0.1


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


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
