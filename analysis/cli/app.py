"""The command line. Each command opens archives, asks the analysis, prints; it computes nothing itself.

Exit codes: 0 success; 1 a check failed, or the archives do not hold what was asked of them; 2 bad use or unreadable
input. Heavy imports stand inside the commands, so that ``kerneltrack --help`` answers at once and loads no plotting
library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from .commands import (
    ArchivePath,
    ArchivePaths,
    AsJson,
    By,
    Control,
    Controls,
    Eigenpairs,
    Factory,
    Forward,
    Gauge,
    Loss,
    MemoryBudget,
    Model,
    Output,
    Params,
    Picture,
    PictureFormat,
    ProbeName,
    Reduction,
    StyleName,
    TopK,
    refuse_useless,
)
from .invocation import Command, Group, run
from .output import (
    HTML,
    NETCDF,
    TABLE,
    free_for_archive,
    is_stdout,
    is_stream,
    may_write,
    print_json,
    print_line,
    print_tables,
)

if TYPE_CHECKING:
    from .trajectory import Trajectory

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


@app.command(cls=Command, epilog="Example: kerneltrack show out/demo.h5")
def show(archive: ArchivePath, as_json: AsJson = False) -> None:
    """Print what is in an archive: run, probes, snapshots, last values."""
    from kerneltrack.archive import open_archive

    from .commands import overview, tables

    facts = overview(open_archive(archive), os.fspath(archive))
    if as_json:
        print_json(facts)
    else:
        print_tables(tables(facts))


@app.command(cls=Command, epilog="Example: kerneltrack summary out/demo.h5 --control out/control.h5")
def summary(archive: ArchivePath, control: Control = None, probe: ProbeName = None, as_json: AsJson = False) -> None:
    """Say at a glance whether a run was lazy, at the edge, aligned, and what each change of its rate did."""
    from .commands import require_another

    runs = _load([archive], probe)
    beside = None if control is None else _load([control], runs.only.probe)
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
    """Draw one figure."""
    given: dict[str, object] = {"ARCHIVE": archives, "--figure": figure, "-o": output, "--control": control}
    given |= {"--probe": probe, "--x": x, "--style": style, "--format": kind}
    given |= {"--list": list_figures, "--figure runs": figure == "runs"}
    refuse_useless("plot", {**given, **_stream(output)})
    from . import commands

    if list_figures:
        commands.list_figures()
        return
    if not archives or figure is None or output is None:
        raise typer.BadParameter("give an ARCHIVE, --figure NAME and -o FILE; or --list")
    commands.run_plot(archives, figure, output, control=control, probe=probe, style=style or "paper", x=x, kind=kind)
    _wrote(output)


@app.command(cls=Command, epilog="Example: kerneltrack report out/demo.h5 --control out/control.h5 -o demo.html")
def report(archives: ArchivePaths, output: Output, control: Control = None, probe: ProbeName = None) -> None:
    """Write one self-contained page about a run; reading it needs no network. Several archives: FILE-NAME.html each."""
    may_write(output, HTML)
    from .commands import require_another
    from .report import write_report

    runs = _load(archives, probe)
    beside = None if control is None else _load([control], runs[0].probe)
    require_another(runs, beside or [])
    for path in write_report(runs, output, control=beside):
        _wrote(path)


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
    refuse_useless("lr-decay", {**given, **_stream(output)})
    from .commands import require_another
    from .figures import format_of, save
    from .lr_decay import analyse, as_dict, lines_and_tables

    if output is not None:
        format_of(output, kind)
    runs = _load(archives, probe)
    require_another(runs, _load(control, runs[0].probe) if control else [])
    found = analyse(runs, control or [])
    if output is not None:
        save(found, output, style or "paper", kind=kind)
        _wrote(output)
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
    from .commands import require_another, run_check, run_forecast

    runs = _load([archive], probe)
    if check:
        require_another(runs, [] if control is None else _load([control], runs.only.probe))
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
    refuse_useless("compare", {**given, "--format": kind, "--json": as_json, **_stream(output)})
    from .commands import Asked, run_compare, run_sweep

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
        _wrote(output)


@app.command(cls=Command, epilog="Example: kerneltrack export out/demo.h5 --to csv -o demo.csv")
def export(
    archive: ArchivePath,
    output: Output,
    to: Annotated[
        Literal["csv", "netcdf"], Option("--to", help="csv: numbers per snapshot; netcdf: everything.")
    ] = "csv",
    probe: ProbeName = None,
) -> None:
    """Write the numbers for other tools."""
    from .commands import to_csv, to_netcdf

    may_write(output, TABLE if to == "csv" else NETCDF)
    run = _load([archive], probe).only
    (to_csv if to == "csv" else to_netcdf)(run, output)
    _wrote(output)


@app.command(cls=Command, epilog="Example: kerneltrack merge shard-*.h5 -o run.h5")
def merge(
    archives: ArchivePaths,
    output: Annotated[
        Path | None, Option("--output", "-o", help="The archive to write of all shards of a run.")
    ] = None,
) -> None:
    """Join what a killed or resumed run left beside its archive, or the shards of `track --shard` into one archive."""
    if output is None:
        from kerneltrack.archive import merge as joined

        for archive in archives:
            parts = joined(archive)
            print_line(f"{parts} part{'s' * (parts != 1)} joined into {archive}")
        return
    from .commands import join

    free_for_archive(output)
    rows = join(archives, output)
    print_line(f"{rows} snapshots of {len(archives)} shard{'s' * (len(archives) != 1)} in {output}")


@app.command(
    cls=Command,
    epilog="Example: kerneltrack publish run.h5 -o run-public.h5 --licence CC-BY-4.0 --author 'A. Curie' --contact "
    "curie@example.org",
)
def publish(
    archive: ArchivePath,
    output: Annotated[Path, Option("--output", "-o", help="The file to write; it must not exist.")],
    licence: Annotated[str, Option("--licence", help="SPDX identifier.")],
    author: Annotated[list[str], Option("--author", help="A name; may be repeated.")],
    contact: Annotated[str, Option("--contact", help="An e-mail address.")],
    card: Annotated[
        bool,
        Option(
            "--card",
            help="Write a dataset card, a citation and checksums beside it: README.md, CITATION.cff, SHA256SUMS.",
        ),
    ] = False,
) -> None:
    """Write a copy without host, user, command and paths, and say where some were removed."""
    from .commands import run_publish

    done = run_publish(archive, output, licence=licence, authors=author, contact=contact, with_card=card)
    for place in done.removed:
        print_line(f"removed what is private from {place}")
    for path in done.written:
        _wrote(path)


@app.command(cls=Command, epilog="Example: kerneltrack demo --out out/")
def demo(
    out: Annotated[Path, Option("--out", help="Folder for demo.h5, control.h5 and demo.html.")] = Path("out"),
    force: Annotated[bool, Option("--force", help="Replace an earlier demo.")] = False,
) -> None:
    """Train a small network on a real picture with the tracker on, and a control; write archives and a page."""
    # Threads that spin while they wait cost a factor of ten as soon as anything else runs on the machine; the choice is
    # read when torch is loaded, which is now.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .commands import run_demo

    raise typer.Exit(run_demo(out, force=force))


@app.command(
    cls=Command,
    epilog="Example: kerneltrack track --checkpoints 'ckpt/*.ckpt' --model mypackage.nets:MLP --probe probe.npz -o "
    "run.h5",
)
def track(
    checkpoints: Annotated[str, Option("--checkpoints", help="A pattern of checkpoint files.")],
    probe: Annotated[Path, Option("--probe", help="A probe saved with Probe.save.")],
    output: Annotated[Path, Option("--output", "-o", help="The archive to write.")],
    model: Model = None,
    factory: Factory = None,
    forward: Forward = None,
    params: Params = None,
    weights: Annotated[
        Literal["current", "average"], Option("--weights", help="Of checkpoints that hold both: trained, or averaged.")
    ] = "current",
    shard: Annotated[
        str | None, Option("--shard", metavar="I/N", help="Only the I-th of N shares; `merge` joins their archives.")
    ] = None,
    workers: Annotated[
        int | None, Option("--workers", metavar="N", min=1, help="Processes of this machine that measure side by side.")
    ] = None,
    cluster: Annotated[
        str | None, Option("--cluster", metavar="ADDRESS", help="Of a dask scheduler whose workers measure.")
    ] = None,
    loss: Loss = None,
    reduction: Reduction = "auto",
    gauge: Gauge = "auto",
    eigenpairs: Eigenpairs = "all",
    top_k: TopK = 64,
    memory_budget: MemoryBudget = None,
) -> None:
    """Measure saved checkpoints: the same snapshots without training again."""
    from .commands import MeasuringOptions, Shard, Workers, run_track

    share, spread = None if shard is None else Shard.read(shard), Workers.asked(workers, cluster)
    if share is None or not output.exists():  # a shard goes on with what it has left
        free_for_archive(output)

    options = MeasuringOptions(
        loss=loss, output=reduction, gauge=gauge, eigenpairs=eigenpairs, top_k=top_k, memory_budget=memory_budget,
        params=params or (), forward=forward,
    )  # fmt: skip
    raise typer.Exit(
        run_track(
            checkpoints, model, probe, output, options, factory=factory, weights=weights, shard=share, workers=spread
        )
    )


@app.command(cls=Command, epilog="Example: kerneltrack plan --model mypackage.nets:MLP --probe probe.npz")
def plan(
    probe: Annotated[Path, Option("--probe", help="A probe saved with Probe.save.")],
    model: Model = None,
    factory: Factory = None,
    forward: Forward = None,
    params: Params = None,
    loss: Loss = None,
    reduction: Reduction = "auto",
    gauge: Gauge = "auto",
    eigenpairs: Eigenpairs = "all",
    top_k: TopK = 64,
    memory_budget: MemoryBudget = None,
    as_json: AsJson = False,
) -> None:
    """Say before a run what a snapshot will cost, and what the kernel at initialisation allows."""
    from .commands import MeasuringOptions, run_plan

    options = MeasuringOptions(
        loss=loss, output=reduction, gauge=gauge, eigenpairs=eigenpairs, top_k=top_k, memory_budget=memory_budget,
        params=params or (), forward=forward,
    )  # fmt: skip
    raise typer.Exit(run_plan(model, probe, options, factory=factory, as_json=as_json))


def _stream(output: Path | None) -> dict[str, object]:
    """The condition of --format."""
    return {"-o - or a pipe": output is not None and is_stream(output)}


def _wrote(output: Path) -> None:
    """Say so, unless that would stand in the middle of what was written."""
    if not is_stdout(output):
        print_line(f"wrote {output}")


def _load(paths: Sequence[Path], probe: str | None) -> Trajectory:
    from .trajectory import load

    return load(paths, probe=probe)
