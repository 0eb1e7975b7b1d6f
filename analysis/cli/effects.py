"""What learning rates did and would do, and runs side by side: lr-decay, forecast, compare."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from ..commands import (
    ArchivePath,
    ArchivePaths,
    AsJson,
    By,
    Control,
    Controls,
    Picture,
    PictureFormat,
    ProbeName,
    StyleName,
    refuse_useless,
)
from ..invocation import Command
from ..output import print_json, print_line, print_tables
from .app import app, load_runs, stream_given, wrote


@app.command("lr-decay", cls=Command, epilog="Example: kerneltrack lr-decay out/demo.h5 --control out/control.h5")
def lr_decay(
    archives: ArchivePaths,
    control: Controls = None,
    probe: ProbeName = None,
    output: Picture = None,
    style: StyleName = None,
    kind: PictureFormat = None,
    as_json: AsJson = False,
) -> None:
    """Say what followed each learning-rate change, beside its prediction and, with controls, its effect."""
    given = {"--json": as_json, "-o": output, "--style": style, "--format": kind}
    refuse_useless("lr-decay", {**given, **stream_given(output)})
    from ..commands import require_another
    from ..figures import format_of, save
    from ..lr_decay import analyse, as_dict, lines_and_tables

    if output is not None:
        format_of(output, kind)
    runs = load_runs(archives, probe)
    require_another(runs, load_runs(control, runs[0].probe) if control else [])
    found = analyse(runs, control or [])
    if output is not None:
        save(found, output, style or "paper", kind=kind)
        wrote(output)
        return
    if as_json:
        print_json(as_dict(found))
        return
    lines, tables = lines_and_tables(found)
    for line in lines:
        print_line(line, "\n")
    print_tables(tables)


@app.command(cls=Command, epilog="Example: kerneltrack forecast run.h5 --rate x0.5 --steps 500")
def forecast(
    archive: ArchivePath,
    rate: Annotated[
        str | None, Option("--rate", help="A factor of the rate that is kept, ×0.5 or x0.5, or a learning rate.")
    ] = None,
    steps: Annotated[int | None, Option("--steps", min=1, help="How many updates; 500 by default.")] = None,
    at: Annotated[
        int | None, Option("--at", help="The step of a snapshot; the last that says how far a linear model holds.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="Score the forecast of each change of the run by its control, instead.")
    ] = False,
    control: Control = None,
    probe: ProbeName = None,
    as_json: AsJson = False,
) -> None:
    """Say what another learning rate would do from a snapshot on; with --check, whether that came true."""
    given = {"--rate": rate, "--steps": steps, "--at": at, "--check": check, "--control": control}
    refuse_useless("forecast", given)
    from ..commands import require_another, run_check, run_forecast

    runs = load_runs([archive], probe)
    if check:
        require_another(runs, [] if control is None else load_runs([control], runs.only.probe))
        run_check(runs, [] if control is None else [control], as_json=as_json)
        return
    if rate is None:
        raise typer.BadParameter("give --rate ×0.5, x0.5 or a learning rate; or --check")
    run_forecast(runs.only, rate, steps=steps or 500, at=at, as_json=as_json)


@app.command(cls=Command, epilog="Example: kerneltrack compare width-*.h5 --by loss --quantity effective_rank")
def compare(
    archives: ArchivePaths,
    by: By = None,
    quantity: Annotated[
        list[str] | None, Option("--quantity", help="A scalar, eigenvalue_I or NAME_energy_K; may be repeated.")
    ] = None,
    group: Annotated[
        str | None,
        Option("--group", help="A metadata key or run.KEY of the provenance: runs that share it are averaged."),
    ] = None,
    against: Annotated[
        str | None, Option("--against", help="A numeric metadata key such as width: values over it, with slopes.")
    ] = None,
    at: Annotated[int | None, Option("--at", help="With --against: the step; the last one by default.")] = None,
    output: Picture = None,
    style: StyleName = None,
    kind: PictureFormat = None,
    probe: ProbeName = None,
    as_json: AsJson = False,
) -> None:
    """Put runs side by side at common positions, or sweep them over a number; nothing is interpolated."""
    given = {"--by": by, "--group": group, "--against": against, "--at": at, "-o": output, "--style": style}
    refuse_useless("compare", {**given, "--format": kind, "--json": as_json, **stream_given(output)})
    from ..commands import Asked, run_compare, run_sweep

    asked = Asked(
        archives=archives,
        quantities=quantity or (),
        probe=probe,
        output=output,
        style=style or "paper",
        kind=kind,
        as_json=as_json,
    )
    if against is None:
        run_compare(asked, by=by or "step", group=group)
    else:
        run_sweep(asked, against, at=at)
    if output is not None:
        wrote(output)
