"""The application: its name, its version, and what several commands say or read alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ..invocation import Group, run
from ..output import is_stdout, is_stream, print_line

if TYPE_CHECKING:
    from ..trajectory import Trajectory

app = typer.Typer(
    cls=Group,
    name="kerneltrack",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        import kerneltrack

        print_line(f"kerneltrack {kerneltrack.__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A network's tangent kernel, tracked while the network trains: look into archives, analyse them, draw them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        argv: the words after ``kerneltrack``; None: the process's own.
    """
    return run(app, argv)


def stream_given(output: Path | None) -> dict[str, object]:
    """The condition of --format."""
    return {"-o - or a pipe": output is not None and is_stream(output)}


def wrote(output: Path) -> None:
    """Say so, unless that would stand in the middle of what was written."""
    if not is_stdout(output):
        print_line(f"wrote {output}")


def load_runs(paths: Sequence[Path], probe: str | None) -> Trajectory:
    """What `kerneltrack.analysis.load` gives, imported when it is asked."""
    from ..trajectory import load

    return load(paths, probe=probe)
