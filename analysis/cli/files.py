"""Archives as other files: export, merge, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from ..commands import ArchivePath, ArchivePaths, Output, ProbeName
from ..invocation import Command
from ..output import NETCDF, TABLE, free_for_archive, may_write, print_line
from .app import app, load_runs, wrote


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
    from ..commands import to_csv, to_netcdf

    may_write(output, TABLE if to == "csv" else NETCDF)
    run = load_runs([archive], probe).only
    (to_csv if to == "csv" else to_netcdf)(run, output)
    wrote(output)


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
    from ..commands import join

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
    from ..commands import run_publish

    done = run_publish(archive, output, licence=licence, authors=author, contact=contact, with_card=card)
    for place in done.removed:
        print_line(f"removed what is private from {place}")
    for path in done.written:
        wrote(path)
