"""The forecast of a run, or the scores of its changes, printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from kerneltrack.errors import AnalysisError

from ..forecasting import forecast_lines, forecast_tables, rate_of, score_sentence, score_table, updates_of
from ..lr_decay import ChangeEffects, LrDecayEffects, analyse
from ..output import print_json, print_line, print_tables
from ..text import Table, count
from ..trajectory import Run, Trajectory


def run_forecast(run: Run, rate: str, *, steps: int, at: int | None, as_json: bool) -> None:
    """Print what the run would do at another learning rate.

    Raises:
        AnalysisError: as :meth:`Run.forecast`.
        typer.BadParameter: a rate that is none, or more updates than are told.
    """
    with _of_option("--rate"):
        rate_of(rate, 1.0)
    with _of_option("--steps"):
        updates_of(steps)
    found = run.forecast(rate, steps=steps, at=at)
    if as_json:
        print_json(found.to_dict())
        return
    _print(forecast_lines(found), forecast_tables(found))


@contextmanager
def _of_option(name: str) -> Iterator[None]:
    """Within: a value that cannot be is bad use of an option."""
    try:
        yield
    except AnalysisError as error:
        raise typer.BadParameter(f"{name}: {error}") from error


def run_check(runs: Trajectory, controls: Sequence[Path], *, as_json: bool) -> None:
    """Print what was forecast of each change and what came.

    Raises:
        AnalysisError: no change, or a control that is not comparable.
    """
    (_, _, effects) = analyse(runs, controls).runs[0]
    if as_json:
        print_json(_scores(effects))
        return
    changes = effects.changes
    scored = [change.score for change in changes if change.score is not None]
    lines = [f"Step {count(change.change.step)}: {_said(change)}" for change in changes]
    _print(
        lines or ["The learning rate moved continuously: of a trend there is no forecast."],
        [score_table(one) for one in scored],
    )


def _said(change: ChangeEffects) -> str:
    """The sentence of a change, or why there is none."""
    if change.score is None:
        return f"nothing is scored, {change.no_score}."
    sentence = score_sentence(change.score)
    return (
        sentence[0].lower() + sentence[1:] if sentence else "nothing that run and control share is within the horizon."
    )


def _scores(effects: LrDecayEffects) -> Any:
    """Plain JSON values."""
    return [
        {
            "step": c.change.step,
            "forecast": None if c.score is None else c.score.to_dict(),
            "no_forecast": c.no_score or None,
        }
        for c in effects.changes
    ]


def _print(lines: Sequence[str], tables: Sequence[Table]) -> None:
    for line in lines:
        print_line(line, "\n")
    print_tables(tables)
