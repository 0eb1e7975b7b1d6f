"""The line of the shell that draws a figure of a page from the archive itself."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..trajectory import Run, controls_beside


def plot_command(run: Run, figure: str, control: Run | None = None, *, found: bool | None = None) -> str:
    """``kerneltrack plot …``, as typed in the archive's folder; "" for a run that lies in no file.

    Files stand there without their folders: a page goes to others, and folders say whose machine it was made on.

    Args:
        run: the run.
        figure: its registered name.
        control: the run that is drawn beside it; named where the command would not find the same one by itself.
        found: whether it would; None: look, which opens archives.
    """
    if not run.path:
        return ""
    words = ["kerneltrack", "plot", _file(run), "--figure", figure]
    if control is not None and control.path and not (is_found(run, control) if found is None else found):
        words += ["--control", _file(control)]
    if run.probes and run.probe != run.probes[0]:
        words += ["--probe", run.probe]
    return shlex.join([*words, "-o", f"{figure}.svg"])


def _file(run: Run) -> str:
    """A name that cannot be taken for an option."""
    name = Path(run.path).name
    return f"./{name}" if name.startswith("-") else name


def is_found(run: Run, control: Run) -> bool:
    """Whether a command that is told of the run alone takes this very control."""
    beside = next(iter(controls_beside(run)), None)
    return beside is not None and Path(beside.path).resolve() == Path(control.path).resolve()
