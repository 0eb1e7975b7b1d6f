"""Sweep: one quantity of many runs over a number of their metadata (width, depth, rate), with its slope on log axes.

    log q = c + s log x + error,        one error per run

s and its standard error come from least squares over the *runs*; the interval is Student's t with (runs − 2) degrees of
freedom. It speaks of the seeds that were run, and supposes that a power law is the right shape: the points stand beside
the line so that a reader can see whether it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import check_across_sizes, key_of, quantity, title_of
from ..text import Table, finite_or_none, number, plain
from ..trajectory import Floats, Run, Trajectory


@dataclass(frozen=True)
class Sweep:
    """One quantity over one number.

    Attributes:
        against: the key of the metadata.
        name: the quantity.
        runs: names.
        x: (R,) the number of each run.
        values: (R,) the quantity of each run.
        steps: (R,) where it was taken.
        slope: of log q over log x; NaN where there is none, and ``no_slope`` says why.
        error: its standard error.
        interval: 95 % confidence.
        intercept: log q at log x = 0.
        no_slope: "" or the reason.
    """

    against: str
    name: str
    runs: tuple[str, ...]
    x: Floats
    values: Floats
    steps: tuple[int, ...]
    slope: float
    error: float
    interval: tuple[float, float]
    intercept: float
    no_slope: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        return {
            "quantity": self.name,
            "against": self.against,
            "runs": list(self.runs),
            "x": self.x.tolist(),
            "values": [finite_or_none(v) for v in self.values],
            "steps": list(self.steps),
            "slope": finite_or_none(self.slope),
            "standard_error": finite_or_none(self.error),
            "interval_95": [finite_or_none(v) for v in self.interval],
            "no_slope": self.no_slope or None,
        }


def sweep(trajectory: Trajectory, against: str, names: list[str], *, at: int | None = None) -> list[Sweep]:
    """Each quantity over a number of the runs' metadata.

    Args:
        trajectory: the runs.
        against: a key of the metadata (or a path into the provenance) that holds a number.
        names: quantities; see :mod:`.quantities`.
        at: the step at which it is taken; None: each run's last snapshot at which it is known.

    Raises:
        AnalysisError: no quantity, mixed probes or reductions, a key that is missing or no number, a run without that step.
    """
    trajectory.comparable()
    if not names:
        raise AnalysisError("a sweep", expected="a quantity that every run holds", got="none")
    check_across_sizes(trajectory, names)
    x = np.array([_numeric(key_of(run, against), against) for run in trajectory])
    runs = tuple(run.name for run in trajectory)
    found = []
    for name in names:
        taken = [_taken(run, quantity(run, name), at) for run in trajectory]
        if absent := [run.name for run, row in zip(trajectory, taken, strict=True) if row is None]:
            where = "" if at is None else f" at step {at}"
            reason = next(filter(None, (run.withheld(name).reason for run in trajectory)), "")
            raise AnalysisError(
                f"a sweep of {name!r}{where}" + (f", which is withheld: {reason}" if reason else ""),
                expected="a value in every run",
                got=f"none in {absent}",
            )
        rows = [row for row in taken if row is not None]
        values = np.array([quantity(run, name)[row] for run, row in zip(trajectory, rows, strict=True)])
        steps = tuple(int(run.steps[row]) for run, row in zip(trajectory, rows, strict=True))
        found.append(Sweep(against, name, runs, x, values, steps, *power_law(x, values)))
    return found


def _taken(run: Run, values: Floats, at: int | None) -> int | None:
    """The row at a step, or the last one at which the quantity is known: the last update's own is never seen."""
    if at is not None:
        return run.row(at)
    known = np.flatnonzero(np.isfinite(values))
    return int(known[-1]) if known.size else None


def power_law(x: Floats, values: Floats) -> tuple[float, float, tuple[float, float], float, str]:
    """(slope, standard error, 95 % interval, intercept, reason why not) of log values over log x."""
    from scipy import stats  # loading it takes a second that only a fit needs

    nan = float("nan")
    known = np.isfinite(values)
    if not np.all(values[known] > 0) or not np.all(x[known] > 0):
        return nan, nan, (nan, nan), nan, "a value is not positive, so it has no logarithm"
    if len(np.unique(x[known])) < 3 or known.sum() < 4:
        return nan, nan, (nan, nan), nan, "a slope needs three different numbers and four runs"
    logs = np.log(values[known])
    if np.ptp(logs) == 0:  # the mean of equal numbers is not quite one of them: its rounding would be a slope of 1e-32
        return 0.0, 0.0, (0.0, 0.0), float(logs[0]), ""
    fit = stats.linregress(np.log(x[known]), logs)
    reach = float(stats.t.ppf(0.975, known.sum() - 2) * fit.stderr)
    slope = float(fit.slope)
    return slope, float(fit.stderr), (slope - reach, slope + reach), float(fit.intercept), ""


def sweep_table(found: list[Sweep]) -> Table:
    """Means over runs at each number, and the fitted slopes."""
    numbers = np.unique(found[0].x)
    heads = ["", *(f"{found[0].against} {float(x):g} (n = {int(np.sum(found[0].x == x))})" for x in numbers)]
    rows = [
        [title_of(s.name), *(number(float(np.mean(s.values[s.x == x]))) for x in numbers), slope_text(s)] for s in found
    ]
    note = "Slope of log q over log x by least squares over runs, with its 95 % interval."
    return Table(f"Against {found[0].against}", [*heads, "slope"], rows, (note,))


def slope_text(s: Sweep) -> str:
    """The slope with its interval, for reading; "–" where there is none."""
    if s.no_slope:
        return "–"
    return f"{number(s.slope, 2)} [{number(s.interval[0], 2)}, {number(s.interval[1], 2)}]"


def _numeric(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise AnalysisError(f"a sweep against {key!r}", expected="a number in every run", got=plain(value))
    return float(value)
