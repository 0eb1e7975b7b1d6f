"""``kerneltrack plot``: one figure of one run, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from kerneltrack.errors import AnalysisError

from ..comparison import compare
from ..figures import STYLES, Scene, choose, format_of, is_film, registered, save_figure, save_film, save_runs
from ..output import FILM, may_write, print_tables
from ..text import Table
from ..trajectory import load
from .control import control_of

if TYPE_CHECKING:
    from ..figures import Format


def list_figures() -> None:
    """The names of all figures, and what they show."""
    rows = [[spec.name, spec.title] for spec in registered().values()]
    rows.append(["runs", "Several runs side by side"])
    print_tables([Table("", ["figure", "shows"], rows, text=frozenset({1}))])


def run_plot(
    archives: Sequence[Path],
    figure: str,
    output: Path,
    *,
    control: Path | None,
    probe: str | None,
    style: str,
    x: Literal["linear", "log"] | None,
    kind: Format | None,
) -> None:
    """Draw a figure and write it; as a film where ``output`` ends in .gif.

    Raises:
        typer.BadParameter: no such figure, one that does not move for a GIF, several archives for a figure of one, or an option
            that the figure ignores.
        AnalysisError: the archive does not hold what the figure needs.
        OutputError: nothing may be written at ``output``.
    """
    moves = is_film(output)
    may_write(output, FILM) if moves else format_of(output, kind)
    try:
        spec = None if figure == "runs" else choose(figure)
    except AnalysisError as error:
        raise typer.BadParameter(str(error)) from error
    trajectory = load(archives, probe=probe)
    if moves and (spec is None or spec.film is None):
        moving = ", ".join(name for name, one in registered().items() if one.film is not None)
        raise typer.BadParameter(f"the figure {figure!r} does not move; a GIF can be of {moving}")
    if spec is None:
        save_runs(compare(trajectory), output, style, kind=kind)
        return
    if len(trajectory) > 1:
        raise typer.BadParameter(f"the figure {figure!r} is of one run; --figure runs draws several")
    scene = Scene(trajectory.only, control_of(control, trajectory.only), STYLES[style], x)
    if moves:
        film = spec.moving(scene)
        _refuse_unused(scene, figure, control, x)
        save_film(film, output, scene.style)
        return
    drawn = spec(scene)
    _refuse_unused(scene, figure, control, x)
    save_figure(drawn, output, scene.style, kind)


def _refuse_unused(scene: Scene, figure: str, control: Path | None, x: str | None) -> None:
    for option, given, name in (("--control", control, "control"), ("--x", x, "x")):
        if given is not None and name not in scene.used:
            raise typer.BadParameter(f"{option} has no effect on the figure {figure!r}, which does not draw it")
