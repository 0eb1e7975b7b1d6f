"""LrDecayEffects: what each learning-rate change was followed by, beside its prediction and against a control.

What comes after a change is not its effect: the run would have moved on anyway. Only a *control*, a run that shares the
state at the change and keeps the old rate, turns "was followed by" into "effect": the difference of the two at the same
step. Nothing is estimated here; every number is a stored one, a difference of two, or the closed form of
:mod:`.mode_factors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kerneltrack.errors import AnalysisError

from ..derived import Change, ModeFactors, Trend, learning_rate_changes, mode_factors
from ..forecasting import Score, score
from ..text import finite_or_none
from ..trajectory import Floats, Run, Trajectory
from ..withheld import gauge_note, misleading
from .change_effects import ChangeEffects
from .null import Null, null_of
from .time_point import SCALARS, TimePoint, energy_k, moment, numbers_of

#: Why nothing is an effect where nobody named a control and none was found.
NO_CONTROL = "no control was given"

#: How far the control's λ_1 and loss at the change may lie from the run's: float32 training restarted from a checkpoint is
#: bit-equal, so anything beyond the rounding of one float32 kernel is another state.
SAME_STATE = 1e-3

#: Moments at which a continuous schedule is described.
TREND_MOMENTS = 6


@dataclass(frozen=True)
class TrendCurve:
    """A stretch of continuously changing rates, described over Ση: no before and after.

    Attributes:
        trend: where.
        rates: at its two ends.
        moments: a few snapshots, evenly spread in Ση, both ends among them.
        times: Ση at each, from the start of the stretch.
        moment_rates: the learning rate of each (the first group's).
        trends: name → Kendall's τ of the quantity with Ση over every snapshot of the stretch.
        control: the name of a run that goes on from a state of the stretch with the rate it had there, or "".
        after: the last snapshot of the stretch that it has too, counted from that state; empty without one.
        null: what other batches alone do after that state.
    """

    trend: Trend
    rates: tuple[float, float]
    moments: tuple[TimePoint, ...]
    times: tuple[float, ...]
    moment_rates: tuple[float, ...]
    trends: Mapping[str, float]
    control: str = ""
    after: tuple[TimePoint, ...] = ()
    null: Null = field(default_factory=lambda: Null("missing"))

    @property
    def has_control(self) -> bool:
        """Whether differences to a control are there."""
        return bool(self.after)

    def tells(self, m: TimePoint, name: str) -> bool:
        """As of :meth:`ChangeEffects.tells`."""
        return name in m.difference and self.null.tells(m.step, name, m.difference[name])

    @property
    def start(self) -> TimePoint:
        """The first moment."""
        return self.moments[0]

    @property
    def end(self) -> TimePoint:
        """The last one."""
        return self.moments[-1]


@dataclass(frozen=True)
class LrDecayEffects:
    """Every change and every trend of one run.

    Attributes:
        run: the run's name.
        probe: the probe's name.
        control: the control's name, or "".
        energy_k: the k of the energies that are reported.
        changes: step changes in order.
        trends: stretches of continuous change in order.
        notes: what is withheld and why, and what else a reader must know of the numbers.
    """

    run: str
    probe: str
    control: str
    energy_k: tuple[int, ...]
    changes: tuple[ChangeEffects, ...]
    trends: tuple[TrendCurve, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become None."""
        return {
            "run": self.run,
            "probe": self.probe,
            "control": self.control or None,
            "changes": [_change_dict(effects) for effects in self.changes],
            "trends": [_trend_dict(course) for course in self.trends],
            "notes": list(self.notes),
        }


def lr_decay_effects(
    trajectory: Trajectory | Run, control: Trajectory | Run | None = None, placebos: Sequence[Run] = ()
) -> LrDecayEffects:
    """Find every change of the stored learning rates and report what followed.

    Args:
        trajectory: one run.
        control: a run of the same seed that shares the states up to a change and did not change the rate; of several each change
            has the one that begins there.
        placebos: runs that go on from the state at a change with the run's own rates, on other batches.

    Raises:
        AnalysisError: several runs, no eigenvalues, a control on another probe or of another reduction, or no change.
    """
    run = _single(trajectory)
    run.require("eigenvalues", "learning_rate", why="the learning-rate analysis")
    paired = () if control is None else (control,) if isinstance(control, Run) else tuple(control)
    for each in paired:
        Trajectory((run, each)).comparable()
    changes, trends = learning_rate_changes(run)
    if not changes and not trends:
        raise _no_change(run)
    return LrDecayEffects(
        run=run.name,
        probe=run.probe,
        control=", ".join(each.name for each in paired),
        energy_k=energy_k(run),
        changes=tuple(_effects(run, _control_at(run, paired, change), change, placebos) for change in changes),
        trends=tuple(_beside(run, _course(run, trend), paired, placebos) for trend in trends),
        notes=(
            *(f"{n} is {words}." for n, words in misleading(run) if n in SCALARS),
            *filter(None, (gauge_note(run),)),
        ),
    )


def _control_at(run: Run, controls: Sequence[Run], change: Change) -> Run | None:
    """The control of this change: one that may be called so; else one that begins there, or any."""
    fitting = [control for control in controls if not _no_control(run, control, change)]
    there = [control for control in controls if control.fork_step == change.step]
    return next(iter((*fitting, *there, *controls)), None)


def _effects(run: Run, control: Run | None, change: Change, placebos: Sequence[Run]) -> ChangeEffects:
    before = moment(run, change.before, origin=change.step)
    after = [moment(run, row, origin=change.step) for row in change.after]
    no_control = _no_control(run, control, change)
    if control is not None and not no_control:
        before, *after = [_paired(m, control) for m in (before, *after)]
        if not any(m.control for m in after):
            no_control = "the control has no snapshot at the same steps after the change"
    factors, no_factors = _factors(run, change)
    null = null_of(run, after, [p for p in placebos if p.placebo_of == run.archive_id and p.fork_step == change.step])
    scored, no_score = (None, no_control) if control is None or no_control else _score(run, control, change)
    return ChangeEffects(change, before, tuple(after), factors, no_factors, no_control, null, scored, no_score)


def _score(run: Run, control: Run, change: Change) -> tuple[Score | None, str]:
    try:
        return score(run, control, change), ""
    except AnalysisError as error:
        return None, error.problem if error.got is None else f"{error.problem} (got {error.got})"


def _factors(run: Run, change: Change) -> tuple[ModeFactors | None, str]:
    if not change.exact:
        return None, f"the change lies somewhere in steps {change.earliest} to {change.step}"
    try:
        return mode_factors(run, change.before, change.after[0], old=change.old, new=change.new), ""
    except AnalysisError as error:
        return None, error.problem if error.got is None else f"{error.problem} (got {error.got})"


def _no_control(run: Run, control: Run | None, change: Change) -> str:
    """Why the differences to ``control`` would not be this change's effect, or ""."""
    if control is None:
        return NO_CONTROL
    if said := _said_against(run, control):
        return said
    row = control.row(int(run.steps[change.before]))
    if row is None:
        return f"the control has no snapshot at step {run.steps[change.before]}"
    kept = control.learning_rates[control.measured & (control.steps >= run.steps[change.before])]
    if not np.array_equal(kept[0], change.old) or not np.all(kept == kept[0]):
        return f"{control.name} did not keep the learning rate {change.old[0]:g}: it is no control of this change"
    states = [(r.values("eigenvalues")[i, 0], "λ_1") for r, i in ((run, change.before), (control, row))]
    if run.has("probe_loss") and control.has("probe_loss"):
        states += [(r.values("probe_loss")[i], "loss") for r, i in ((run, change.before), (control, row))]
    for (mine, name), (theirs, _) in zip(states[::2], states[1::2], strict=True):
        if not abs(mine - theirs) <= SAME_STATE * abs(mine):
            return f"the control was in another state at the change ({name} {theirs:.6g} against {mine:.6g})"
    return ""


def _said_against(run: Run, control: Run) -> str:
    """What the archive says of itself against its being the control of this run; "" where nothing."""
    if control.placebo_of:
        return f"{control.name} is a placebo, with the run's own learning rates"
    if control.control_of and control.control_of != run.archive_id:
        return f"{control.name} says that it is the control of another run"
    if control.other_batches == "unverified":
        return f"{control.name} has not ended, so nothing says whether its batches were the run's (unverified)"
    if control.other_batches:
        return f"{control.name} was trained on other batches than the run (other_batches)"
    return ""


def _paired(m: TimePoint, control: Run) -> TimePoint:
    row = control.row(m.step)
    return m if row is None else TimePoint(m.row, m.step, m.offset, m.numbers, numbers_of(control, row))


def _course(run: Run, trend: Trend) -> TrendCurve:
    rows = np.flatnonzero(run.measured)
    rows = rows[(run.steps[rows] >= run.steps[trend.first]) & (run.steps[rows] <= run.steps[trend.last])]
    rates = run.learning_rates[rows, 0]
    gaps = np.diff(run.steps[rows].astype(np.float64))
    times = np.concatenate([[0.0], np.cumsum(gaps * (rates[1:] + rates[:-1]) / 2)])
    wanted = np.linspace(0, times[-1], TREND_MOMENTS)
    chosen = np.unique([int(np.argmin(np.abs(times - t))) for t in wanted])
    origin, numbers = int(run.steps[rows[0]]), [numbers_of(run, int(row)) for row in rows]
    return TrendCurve(
        trend,
        (float(rates[0]), float(rates[-1])),
        tuple(moment(run, int(rows[i]), origin=origin) for i in chosen),
        tuple(float(times[i]) for i in chosen),
        tuple(float(rates[i]) for i in chosen),
        {name: _kendall(times, np.array([n[name] for n in numbers])) for name in numbers[0]},
    )


def _beside(run: Run, course: TrendCurve, controls: Sequence[Run], placebos: Sequence[Run]) -> TrendCurve:
    """The course with what its end is against a control that begins within it; as it is where none does."""
    first, last = course.start.step, course.end.step
    for control in controls:
        step = control.fork_step
        if step is None or not first <= step < last or _said_against(run, control):
            continue
        shared = [row for row in np.flatnonzero(run.measured) if step < run.steps[row] <= last]
        shared = [row for row in shared if control.row(int(run.steps[row])) is not None]
        kept = control.learning_rates[control.measured]
        if shared and np.all(kept == kept[0]):
            after = (_paired(moment(run, int(shared[-1]), origin=step), control),)
            own = [p for p in placebos if p.placebo_of == run.archive_id and p.fork_step == step]
            return replace(course, control=control.name, after=after, null=null_of(run, after, own))
    return course


def _kendall(times: Floats, values: Floats) -> float:
    from scipy.stats import kendalltau

    known = np.isfinite(values)
    if known.sum() < 3 or np.ptp(values[known]) == 0:
        return float("nan")
    return float(kendalltau(times[known], values[known]).statistic)


def _single(trajectory: Trajectory | Run) -> Run:
    return trajectory if isinstance(trajectory, Run) else trajectory.only


def _no_change(run: Run) -> AnalysisError:
    rates = run.learning_rates[run.measured]
    if len(rates) < 2:
        return AnalysisError(
            "there is no before and after", expected="at least two snapshots", got=len(rates), where=run.path
        )
    if (rates[:-1] == rates[0]).all() and (rates[-1] != rates[0]).any():
        return AnalysisError(
            "nothing was measured after the learning rate changed",
            expected=f"a snapshot after step {run.steps[run.measured][-1]}",
            got=f"{rates[0].tolist()}, and {rates[-1].tolist()} from the last snapshot on",
            where=run.path,
            remedy="Let the run go on, and measure with schedule=... | OnLearningRateChange(after=(0, 1, 10, 100)).",
        )
    return AnalysisError(
        "the stored learning rates never change",
        got=f"{rates[0].tolist()} in all {len(rates)} snapshots",
        where=run.path,
    )


def _change_dict(effects: ChangeEffects) -> dict[str, Any]:
    change, factors = effects.change, effects.factors
    return {
        "step": change.step,
        "earliest_step": change.earliest,
        "exact": change.exact,
        "old_learning_rates": list(change.old),
        "new_learning_rates": list(change.new),
        "before": _moment_dict(effects.before),
        "after": [_moment_dict(m) for m in effects.after],
        "control": "paired" if effects.has_control else effects.no_control,
        "null": effects.null.kind,
        "placebos": list(effects.null.placebos),
        "placebo_spread": {
            str(step): {name: finite_or_none(value) for name, value in values.items()}
            for step, values in effects.null.spread.items()
        },
        "target_energy_moves": {str(k): move for k, move in effects.target_moves.items()},
        "mode_factors": None
        if factors is None
        else {
            "predicted": _numbers_list(factors.predicted),
            "predicted_at_old_rate": _numbers_list(factors.predicted_old),
            "measured": _numbers_list(factors.measured),
            "residual_energy_share": _numbers_list(factors.energy),
        },
        "no_mode_factors": effects.no_factors or None,
        "forecast": None if effects.score is None else effects.score.to_dict(),
        "no_forecast": effects.no_score or None,
    }


def _trend_dict(course: TrendCurve) -> dict[str, Any]:
    return {
        "first_step": course.start.step,
        "last_step": course.end.step,
        "learning_rates": list(course.rates),
        "sum_of_learning_rates": finite_or_none(course.trend.travel),
        "moments": [
            {"sum_of_learning_rates": finite_or_none(t), "learning_rate": rate, **_moment_dict(m)}
            for t, rate, m in zip(course.times, course.moment_rates, course.moments, strict=True)
        ],
        "control": course.control or None,
        "after": [_moment_dict(m) for m in course.after],
        "null": course.null.kind,
        "kendall_tau_with_sum_of_learning_rates": {name: finite_or_none(tau) for name, tau in course.trends.items()},
    }


def _moment_dict(m: TimePoint) -> dict[str, Any]:
    return {
        "step": m.step,
        "offset": m.offset,
        "numbers": {name: finite_or_none(value) for name, value in m.numbers.items()},
        "control": {name: finite_or_none(value) for name, value in m.control.items()},
        "difference": {name: finite_or_none(value) for name, value in m.difference.items()},
    }


def _numbers_list(values: Any) -> list[float | None]:
    return [finite_or_none(v) for v in values]
