"""Forecasts and scores in words and tables."""

from __future__ import annotations

import numpy as np

from ..statements import Course, Forecast
from ..text import Table, count, number, signed
from .score import Score

#: Numbers of updates that a table lists, besides the last one and the horizon.
_MOMENTS = (0, 1, 10, 100, 1000, 10_000, 100_000)
#: How many modes the table of modes lists.
_MODES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


def forecast_lines(found: Forecast) -> list[str]:
    """What is forecast, in sentences."""
    last = int(found.updates[-1])
    told = found.horizon
    lines = [
        f"{found.run} from step {count(found.step)}, where the loss on the probe is {number(found.loss)}: "
        f"{count(last)} update{'s' * (last != 1)} at {found.kept.rate:g}, which is kept, or at {found.changed.rate:g}."
    ]
    i = found.at(told)
    if told and np.isfinite(found.effect[i]):
        lines.append(
            f"After {count(told)} update{'s' * (told != 1)} {_loss(found.kept, i)} at {found.kept.rate:g} and "
            f"{_loss(found.changed, i)} at {found.changed.rate:g}: an effect of {signed(float(found.effect[i]))} ± "
            f"{number(float(found.effect_error[i]), 2)}."
        )
    for course in _distinct(found):
        if course.reason:
            lines.append(f"At {course.rate:g}: {course.reason}.")
    if found.above:
        share = number(100 * found.oscillation, 2)
        modes = f"{len(found.above)} modes" if len(found.above) > 1 else f"mode {found.above[0]}"
        lines.append(
            f"Above the edge at {found.kept.rate:g}: {modes}, with {share} % of the loss, which is oscillation and goes on there."
        )
    return [*lines, *found.notes]


def forecast_tables(found: Forecast) -> list[Table]:
    """The losses after numbers of updates, and the modes at the horizon."""
    return [_loss_table(found), _mode_table(found)]


def score_sentence(found: Score) -> str:
    """What was forecast of a change and what came, at the last update within the horizon."""
    i = found.last
    if i is None:
        return ""
    after = int(found.updates[i])
    return (
        f"Forecast from the state before: an effect on the loss of {signed(float(found.predicted[i]))} ± "
        f"{number(float(found.error[i]), 2)}{_after(after)}; measured {signed(float(found.measured[i]))}."
    )


def score_table(found: Score) -> Table:
    """Predicted and measured effect at every update that run and control share."""
    rows = [
        [
            f"+{count(int(k))}",
            *(number(float(v)) for v in (found.changed[i], found.kept[i])),
            signed(float(found.predicted[i])),
            number(float(found.error[i]), 2),
            signed(float(found.measured[i])),
            number(float(found.ratio[i])),
        ]
        for i, k in enumerate(found.updates)
    ]
    reasons = dict.fromkeys(c.reason for c in _distinct(found.forecast) if c.reason)
    forecast = found.forecast
    return Table(
        f"Forecast and control, {forecast.kept.rate:g} → {forecast.changed.rate:g} at step {count(forecast.step)}",
        ["updates", "loss", "control", "effect forecast", "±", "effect measured", "forecast/measured"],
        rows,
        tuple(f"{reason[0].upper()}{reason[1:]}." for reason in reasons),
    )


def _loss_table(found: Forecast) -> Table:
    wanted = {*_MOMENTS, found.kept.horizon, found.changed.horizon, int(found.updates[-1])}
    rows = []
    for i, k in enumerate(found.updates):
        if int(k) in wanted:
            numbers = [v for c in (found.kept, found.changed) for v in (c.loss[i], c.loss_error[i])]
            effect = [signed(float(found.effect[i])), number(float(found.effect_error[i]), 2)]
            rows.append([f"+{count(int(k))}", *(number(float(v)) for v in numbers), *effect])
    heads = [f"loss at {found.kept.rate:g}", "±", f"loss at {found.changed.rate:g}", "±", "effect", "±"]
    return Table("Loss on the probe", ["updates", *heads], rows)


def _mode_table(found: Forecast) -> Table:
    i = found.at(found.horizon)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = found.kept.residual[0] ** 2 / np.sum(found.kept.residual[0] ** 2)
    rows = []
    for mode in (m for m in _MODES if m <= found.eigenvalues.size):
        m = mode - 1
        speeds = [number(float(c.rate * found.speeds[m])) for c in (found.kept, found.changed)]
        residual = [signed(float(c.residual[j, m])) for c, j in ((found.kept, 0), (found.kept, i), (found.changed, i))]
        rows.append([str(mode), *speeds, number(float(share[m]), 2), *residual])
    rates = [f"{c.rate:g}" for c in (found.kept, found.changed)]
    after = f"+{count(found.horizon)}"
    heads = [*(f"ηsλᵢ/N at {r}" for r in rates), "share of ‖m‖²", "⟨vᵢ, m⟩ now", *(f"{after} at {r}" for r in rates)]
    return Table("Residual, mode by mode", ["mode i", *heads], rows)


def _distinct(found: Forecast) -> list[Course]:
    return [found.kept] if found.kept.rate == found.changed.rate else [found.kept, found.changed]


def _loss(course: Course, i: int) -> str:
    return f"{number(float(course.loss[i]))} ± {number(float(course.loss_error[i]), 2)}"


def _after(updates: int) -> str:
    return f" ({'one step' if updates == 1 else f'{count(updates)} steps'} after)"
