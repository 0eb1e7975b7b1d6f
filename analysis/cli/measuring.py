"""What measures: demo, track, plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from ..commands import AsJson, Eigenpairs, Factory, Forward, Gauge, Loss, MemoryBudget, Model, Params, Reduction, TopK
from ..invocation import Command
from ..output import free_for_archive
from .app import app


@app.command(cls=Command, epilog="Example: kerneltrack demo --out out/")
def demo(
    out: Annotated[Path, Option("--out", help="Folder for demo.h5, control.h5 and demo.html.")] = Path("out"),
    force: Annotated[bool, Option("--force", help="Replace an earlier demo.")] = False,
) -> None:
    """Train a small network on a real picture with the tracker on, and a control; write archives and a page."""
    # Threads that spin while they wait cost a factor of ten as soon as anything else runs on the machine; the choice is
    # read when torch is loaded, which is now.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..commands import run_demo

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
    from ..commands import MeasuringOptions, Shard, Workers, run_track

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
    from ..commands import MeasuringOptions, run_plan

    options = MeasuringOptions(
        loss=loss, output=reduction, gauge=gauge, eigenpairs=eigenpairs, top_k=top_k, memory_budget=memory_budget,
        params=params or (), forward=forward,
    )  # fmt: skip
    raise typer.Exit(run_plan(model, probe, options, factory=factory, as_json=as_json))
