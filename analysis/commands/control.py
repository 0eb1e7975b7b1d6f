"""The control run that a command is given beside its run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from ..trajectory import Run, controls_beside, load


def control_of(path: Path | None, run: Run) -> Run | None:
    """The control as a run, seen through the run's probe; where none is given, what lies beside the run and says that it is its.

    Raises:
        typer.BadParameter: it is the run itself.
    """
    if path is None:
        return next(iter(controls_beside(run)), None)
    control = load([path], probe=run.probe).only
    require_another([run], [control])
    return control


def require_another(runs: Iterable[Run], controls: Iterable[Run]) -> None:
    """Refuse a control that is the run itself, or a copy: between the two nothing can differ.

    Raises:
        typer.BadParameter: it is.
    """
    names = {run.dataset.attrs.get("archive_id"): run.name for run in runs}
    for control in controls:
        if (name := names.get(control.dataset.attrs.get("archive_id"))) is not None:
            raise typer.BadParameter(f"--control {control.path} is the run {name} itself, not a control of it")
