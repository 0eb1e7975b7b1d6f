"""What is in archives, and what it looks like: show, summary, check, plot, report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from ..commands import (
    ArchivePath,
    ArchivePaths,
    AsJson,
    Control,
    Output,
    Picture,
    PictureFormat,
    ProbeName,
    StyleName,
    refuse_useless,
)
from ..invocation import Command
from ..output import HTML, may_write, print_json, print_line, print_tables
from .app import app, load_runs, stream_given, wrote


@app.command(cls=Command, epilog="Example: kerneltrack show out/demo.h5")
def show(archive: ArchivePath, as_json: AsJson = False) -> None:
    """Print what is in an archive: run, probes, snapshots, last values."""
    from kerneltrack.archive import open_archive

    from ..commands import overview, tables

    facts = overview(open_archive(archive), os.fspath(archive))
    if as_json:
        print_json(facts)
    else:
        print_tables(tables(facts))


@app.command(cls=Command, epilog="Example: kerneltrack summary out/demo.h5 --control out/control.h5")
def summary(archive: ArchivePath, control: Control = None, probe: ProbeName = None, as_json: AsJson = False) -> None:
    """Say at a glance whether a run was lazy, at the edge, aligned, and what each change of its rate did."""
    from ..commands import require_another

    runs = load_runs([archive], probe)
    beside = None if control is None else load_runs([control], runs.only.probe)
    require_another(runs, beside or [])
    found = runs.only.summary(None if beside is None else beside.only)
    if as_json:
        print_json(found.to_dict())
        return
    for line in found.lines():
        print_line(line)


@app.command(cls=Command, epilog="Example: kerneltrack check out/*.h5")
def check(archives: ArchivePaths) -> None:
    """Validate archives against the format: one line per problem, exit 1 if there is any. Safe on any file."""
    from kerneltrack.archive import check as problems_of

    problems = [problem for path in archives for problem in problems_of(path)]
    for problem in problems:
        print_line(str(problem))
    bad = {problem.where for problem in problems if problem.severity == "problem"}
    if not bad:
        print_line(f"{len(archives)} archive{'s' * (len(archives) != 1)} in order")
    if bad:
        raise typer.Exit(1)


@app.command(
    cls=Command,
    epilog="Example: kerneltrack plot out/demo.h5 --figure stability --control out/control.h5 -o stability.pdf",
)
def plot(
    archives: Annotated[
        list[Path] | None, Argument(metavar="ARCHIVE...", help="One archive; several for `runs`.")
    ] = None,
    figure: Annotated[str | None, Option("--figure", help="The figure's name; --list names them.")] = None,
    output: Picture = None,
    control: Control = None,
    probe: ProbeName = None,
    style: StyleName = None,
    x: Annotated[
        Literal["linear", "log"] | None,
        Option("--x", metavar="SCALE", help="linear or log: the time axis; chosen by the snapshots otherwise."),
    ] = None,
    list_figures: Annotated[bool, Option("--list", help="Name the figures and leave.")] = False,
    kind: PictureFormat = None,
) -> None:
    """Draw one figure; eigenfunctions also in motion, with an ending of .gif."""
    given: dict[str, object] = {"ARCHIVE": archives, "--figure": figure, "-o": output, "--control": control}
    given |= {"--probe": probe, "--x": x, "--style": style, "--format": kind}
    given |= {"--list": list_figures, "--figure runs": figure == "runs"}
    refuse_useless("plot", {**given, **stream_given(output)})
    from .. import commands

    if list_figures:
        commands.list_figures()
        return
    if not archives or figure is None or output is None:
        raise typer.BadParameter("give an ARCHIVE, --figure NAME and -o FILE; or --list")
    commands.run_plot(archives, figure, output, control=control, probe=probe, style=style or "paper", x=x, kind=kind)
    wrote(output)


@app.command(cls=Command, epilog="Example: kerneltrack report out/demo.h5 --control out/control.h5 -o demo.html")
def report(
    archives: ArchivePaths,
    output: Output,
    control: Control = None,
    probe: ProbeName = None,
    group: Annotated[
        str | None,
        Option("--group", help="Of several archives: a metadata key or run.KEY that runs are coloured by first."),
    ] = None,
    each: Annotated[
        bool, Option("--each", help="Of several archives: a page for each of them, FILE-NAME.html.")
    ] = False,
    watching: Annotated[
        bool,
        Option("--watch", help="While runs go on, write the page anew with their snapshots; the open page follows."),
    ] = False,
) -> None:
    """Write one self-contained page about a run, or about several laid over each other; reading it needs no network."""
    may_write(output, HTML)
    given = {"--group": group, "--each": each, "--watch": watching, "several ARCHIVEs": len(archives) > 1}
    refuse_useless("report", {**given, **stream_given(output)})
    from ..commands import require_another, run_watch
    from ..report import write_report

    def make(reload: int) -> None:
        runs = load_runs(archives, probe)
        beside = None if control is None else load_runs([control], runs[0].probe)
        require_another(runs, beside or [])
        for path in write_report(runs, output, control=beside, group=group, each=each, reload=reload):
            wrote(path)

    if not watching:
        make(0)
    elif not run_watch(archives, make):
        print_line("no process writes what was asked for: the page is as it stays")
