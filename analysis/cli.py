"""The command line. Each command opens archives, asks the analysis, prints; it computes nothing itself.

Exit codes: 0 success; 1 a check failed, or the archives do not hold what was asked of them; 2 bad use or unreadable
input. Heavy imports stand inside the commands, so that ``kerneltrack --help`` answers at once and loads no plotting
library.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from kerneltrack.errors import AnalysisError, KerneltrackError, OutputError

from .commands import (
    ArchivePath,
    ArchivePaths,
    AsJson,
    Control,
    Eigenpairs,
    Loss,
    MemoryBudget,
    Output,
    ProbeName,
    Reduction,
    StyleName,
    TopK,
)
from .output import (
    FIGURE,
    HTML,
    NETCDF,
    TABLE,
    complain,
    may_write,
    new_archive,
    patient,
    print_json,
    print_line,
    print_tables,
)
from .text import Table

if TYPE_CHECKING:
    from .trajectory import Run, Trajectory

app = typer.Typer(
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
    with patient():  # for what is said of an error; the inner one makes a full disk an error while it can be told
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        with patient(), warnings.catch_warnings():
            # What an archive holds may overflow or be NaN throughout, and is shown as it is. Appended: the filters of
            # whoever develops or tests, for whom such a warning is a defect, come first.
            warnings.simplefilter("ignore", RuntimeWarning, append=True)
            # The command itself, not the Typer object: calling that one replaces sys.excepthook for the whole process.
            typer.main.get_command(app).main(args=None if argv is None else list(argv), prog_name="kerneltrack")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KerneltrackError as error:
        complain(str(error))
        return 1 if isinstance(error, AnalysisError) and not isinstance(error, OutputError) else 2
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        return 2
    return 0


@app.command(epilog="Example: kerneltrack show out/demo.h5")
def show(archive: ArchivePath, as_json: AsJson = False) -> None:
    """Print what is in an archive: run, probes, snapshots, last values."""
    from kerneltrack.archive import open_archive

    from .commands import overview, tables

    facts = overview(open_archive(archive), os.fspath(archive))
    if as_json:
        print_json(facts)
    else:
        print_tables(tables(facts))


@app.command(epilog="Example: kerneltrack check out/*.h5")
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
    epilog="Example: kerneltrack plot out/demo.h5 --figure stability --control out/control.h5 -o stability.pdf"
)
def plot(
    archives: Annotated[
        list[Path] | None, Argument(metavar="ARCHIVE...", help="One archive; several for `runs`.")
    ] = None,
    figure: Annotated[str | None, Option("--figure", help="The figure's name; --list names them.")] = None,
    output: Annotated[Path | None, Option("--output", "-o", help="PNG, PDF or SVG, by its ending.")] = None,
    control: Control = None,
    probe: ProbeName = None,
    style: StyleName = "paper",
    x: Annotated[
        Literal["linear", "log"] | None, Option("--x", help="The time axis; chosen by the snapshots otherwise.")
    ] = None,
    list_figures: Annotated[bool, Option("--list", help="Name the figures and leave.")] = False,
) -> None:
    """Draw one figure."""
    from .figures import STYLES, Scene, choose, registered, save_figure, save_runs

    if list_figures:
        rows = [[spec.name, spec.title] for spec in registered().values()]
        print_tables(
            [Table("", ["figure", "shows"], [*rows, ["runs", "Several runs side by side"]], text=frozenset({1}))]
        )
        return
    if not archives or figure is None or output is None:
        raise typer.BadParameter("give an ARCHIVE, --figure NAME and -o FILE; or --list")
    may_write(output, FIGURE)
    try:
        spec = None if figure == "runs" else choose(figure)
    except AnalysisError as error:
        raise typer.BadParameter(str(error)) from error
    trajectory = _load(archives, probe)
    if spec is None:
        from .comparison import compare as compared

        print_line(f"wrote {save_runs(compared(trajectory), output, style)}")
        return
    if len(trajectory) > 1:
        raise typer.BadParameter(f"the figure {figure!r} is of one run; --figure runs draws several")
    scene = Scene(trajectory.only, _control(control, trajectory.only), STYLES[style], x)
    print_line(f"wrote {save_figure(spec(scene), output, scene.style)}")


@app.command(epilog="Example: kerneltrack report out/demo.h5 --control out/control.h5 -o demo.html")
def report(archives: ArchivePaths, output: Output, control: Control = None, probe: ProbeName = None) -> None:
    """Write one self-contained page about a run; reading it needs no network. Several archives: FILE-NAME.html each."""
    may_write(output, HTML, make_folder=True)
    from .report import write_report

    for path in write_report(archives, output, control=control, probe=probe):
        print_line(f"wrote {path}")


@app.command("lr-decay", epilog="Example: kerneltrack lr-decay out/demo.h5 --control out/control.h5")
def lr_decay(
    archives: ArchivePaths,
    control: Annotated[
        list[Path] | None,
        Option(
            "--control",
            help="An archive of the same seed that did not change the rate: only with it anything is called an effect. "
            "May be repeated, one for each seed.",
        ),
    ] = None,
    probe: ProbeName = None,
    output: Annotated[Path | None, Option("--output", "-o", help="Draw the figure into a PNG, PDF or SVG.")] = None,
    style: StyleName = "paper",
    as_json: AsJson = False,
) -> None:
    """Say what followed each learning-rate change, beside its prediction and, with controls, its effect."""
    from .figures import save
    from .lr_decay import analyse, as_dict, lines_and_tables

    if output is not None:
        may_write(output, FIGURE)
    found = analyse(_load(archives, probe), control or [])
    if output is not None:
        print_line(f"wrote {save(found, output, style)}")
        return
    if as_json:
        print_json(as_dict(found))
        return
    lines, tables = lines_and_tables(found)
    for line in lines:
        print_line(line, "\n")
    print_tables(tables)


@app.command(epilog="Example: kerneltrack compare width-*.h5 --by loss --quantity effective_rank")
def compare(
    archives: ArchivePaths,
    by: Annotated[
        Literal["step", "epoch", "samples", "flow_time", "loss"],
        Option("--by", help="What the runs are aligned on; flow_time is the sum of the learning rates."),
    ] = "step",
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
    output: Annotated[Path | None, Option("--output", "-o", help="Draw a figure into a PNG, PDF or SVG.")] = None,
    style: StyleName = "paper",
    probe: ProbeName = None,
    as_json: AsJson = False,
) -> None:
    """Put runs side by side at common positions, or sweep them over a number; nothing is interpolated."""
    from .comparison import compare as compared
    from .comparison import defaults, group_tables, tables

    if output is not None:
        may_write(output, FIGURE)
    runs = _load(archives, probe)
    if against is not None:
        _sweep(runs, against, quantity or defaults(runs), at, output, style, as_json)
        return
    found = compared(runs, by=by, quantities=quantity or ())
    if output is not None:
        from .figures import save_runs

        print_line(f"wrote {save_runs(found, output, style, group=group)}")
    elif as_json:
        print_json(found.to_dict())
    else:
        print_tables(tables(found) if group is None else group_tables(found, group))


@app.command(epilog="Example: kerneltrack export out/demo.h5 --to csv -o demo.csv")
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
    print_line(f"wrote {(to_csv if to == 'csv' else to_netcdf)(run, output)}")


@app.command(epilog="Example: kerneltrack merge out/run.h5")
def merge(archive: ArchivePath) -> None:
    """Join what a killed or resumed run left beside its archive."""
    from kerneltrack.archive import merge as joined

    parts = joined(archive)
    print_line(f"{parts} part{'s' * (parts != 1)} joined into {archive}")


@app.command(
    epilog="Example: kerneltrack publish run.h5 -o run-public.h5 --licence CC-BY-4.0 --author 'A. Curie' --contact "
    "curie@example.org"
)
def publish(
    archive: ArchivePath,
    output: Annotated[Path, Option("--output", "-o", help="The file to write; it must not exist.")],
    licence: Annotated[str, Option("--licence", help="SPDX identifier.")],
    author: Annotated[list[str], Option("--author", help="A name; may be repeated.")],
    contact: Annotated[str, Option("--contact", help="An e-mail address.")],
) -> None:
    """Write a copy without host, user, command and paths, and say where some were removed."""
    from kerneltrack.archive import publish as published

    new_archive(output)
    for place in published(archive, output, licence=licence, authors=author, contact=contact):
        print_line(f"removed what is private from {place}")
    print_line(f"wrote {output}")


@app.command(epilog="Example: kerneltrack demo --out out/")
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
    epilog="Example: kerneltrack track --checkpoints 'ckpt/*.ckpt' --model mypackage.nets:MLP --probe probe.npz -o "
    "run.h5"
)
def track(
    checkpoints: Annotated[str, Option("--checkpoints", help="A pattern of checkpoint files.")],
    model: Annotated[str, Option("--model", help="module:Class of the LightningModule.")],
    probe: Annotated[Path, Option("--probe", help="A probe saved with Probe.save.")],
    output: Annotated[Path, Option("--output", "-o", help="The archive to write.")],
    loss: Loss = None,
    reduction: Reduction = "full",
    eigenpairs: Eigenpairs = "all",
    top_k: TopK = 64,
    memory_budget: MemoryBudget = None,
) -> None:
    """Measure saved checkpoints: the same snapshots without training again."""
    new_archive(output)
    from .commands import run_track

    how = {"output": reduction, "eigenpairs": eigenpairs, "top_k": top_k, "memory_budget": memory_budget}
    raise typer.Exit(run_track(checkpoints, model, probe, output, loss=loss, how=how))


@app.command(epilog="Example: kerneltrack plan --model mypackage.nets:MLP --probe probe.npz")
def plan(
    model: Annotated[str, Option("--model", help="module:Class of the model.")],
    probe: Annotated[Path, Option("--probe", help="A probe saved with Probe.save.")],
    loss: Loss = None,
    reduction: Reduction = "full",
    eigenpairs: Eigenpairs = "all",
    top_k: TopK = 64,
    memory_budget: MemoryBudget = None,
    as_json: AsJson = False,
) -> None:
    """Say before a run what a snapshot will cost, and what the kernel at initialisation allows."""
    from .commands import run_plan

    how = {"output": reduction, "eigenpairs": eigenpairs, "top_k": top_k, "memory_budget": memory_budget}
    raise typer.Exit(run_plan(model, probe, as_json, loss=loss, how=how))


def _sweep(
    runs: Trajectory, against: str, names: list[str], at: int | None, output: Path | None, style: str, as_json: bool
) -> None:
    from .comparison import sweep, sweep_table
    from .figures import save_sweep

    found = sweep(runs, against, names, at=at)
    if output is not None:
        print_line(f"wrote {save_sweep(found, output, style)}")
    elif as_json:
        print_json([one.to_dict() for one in found])
    else:
        print_tables([sweep_table(found)])


def _load(paths: Sequence[Path], probe: str | None) -> Trajectory:
    from .trajectory import load

    return load(paths, probe=probe)


def _control(path: Path | None, run: Run) -> Run | None:
    return None if path is None else _load([path], run.probe).only
