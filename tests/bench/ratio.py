"""A snapshot's seconds over those of its kernel and its eigensystem, called by themselves beside it, in the same run.

    python tests/bench/ratio.py [--workloads demo,…] [--steps 24] [--threads 2]

The goal is 1.3 where the two take more than 0.2 s. At every whole state of a run with the tracker's defaults the kernel is
computed again by ``kerneltrack.empirical_ntk`` and solved again by ``kerneltrack.eigensystem``, right behind the measurement and
on the same network: whatever else the machine does at the time slows both. A state's seconds are those that its row says, with
what its update added and without writing. The first state is told apart; the goal there is twice the others.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import overhead
import pytorch_lightning as pl
import torch

import kerneltrack as kt
from kerneltrack.callbacks import NTKTracker
from kerneltrack.measurement import Instrument
from kerneltrack.spectrum import threads_for
from kerneltrack.undisturbed import undisturbed


@dataclass(frozen=True)
class State:
    """One whole state.

    Attributes:
        step: t.
        kernel: seconds of the kernel by itself.
        eigensystem: seconds of the eigensystem by itself.
        snapshot: seconds of the measurement.
    """

    step: int
    kernel: float
    eigensystem: float
    snapshot: float

    @property
    def ratio(self) -> float:
        return self.snapshot / (self.kernel + self.eigensystem)


class Beside(pl.Callback):
    """Behind the tracker: the kernel and the eigensystem of each whole state again, by themselves."""

    def __init__(self, tracker: NTKTracker) -> None:
        self.tracker = tracker
        self.alone: dict[int, tuple[float, float]] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        recorder = self.tracker._recorder
        if recorder is None or recorder.waiting != trainer.global_step or trainer.global_step in self.alone:
            return
        (instrument,) = self.tracker._instruments.values()
        with undisturbed(module):
            self.alone[trainer.global_step] = alone(module, instrument)


def alone(module: torch.nn.Module, instrument: Instrument) -> tuple[float, float]:
    """Seconds of the kernel and of the eigensystem by themselves."""
    began = time.perf_counter()
    options = {"output": instrument.output, "gauge": instrument.gauge, "forward": instrument.forward}
    kernel = kt.empirical_ntk(module, instrument.inputs(module), **options)
    computed = time.perf_counter()
    with threads_for(instrument.rows(instrument.network(module).outputs(instrument.inputs(module)))):
        ready = time.perf_counter()
        kt.eigensystem(kernel)
        return computed - began, time.perf_counter() - ready


def run(name: str, steps: int | None) -> list[State]:
    """The whole states of one training with the tracker's defaults."""
    build, usual, _ = overhead.WORKLOADS[name]
    pl.seed_everything(0, verbose=False)
    model, loader, options = build()
    with tempfile.TemporaryDirectory() as folder:
        tracker = NTKTracker(Path(folder) / "run.h5", log=False, **options)
        beside = Beside(tracker)
        pl.Trainer(
            max_steps=steps or usual,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[tracker, beside],
        ).fit(model, loader)
        with kt.open_archive(Path(folder) / "run.h5") as rows:
            seconds = {row.step: row.snapshot_seconds for row in rows if row.window == 0}
    return [State(step, *beside.alone[step], seconds[step]) for step in beside.alone if step in seconds]


def line(name: str, states: list[State]) -> str:
    """One row of the table."""
    first, *others = states
    kernel, eigensystem, snapshot, ratio = (
        statistics.median(getattr(state, part) for state in others)
        for part in ("kernel", "eigensystem", "snapshot", "ratio")
    )
    said = f"{ratio:.2f}" if kernel + eigensystem > 0.2 else f"({ratio:.2f}: below 0.2 s)"
    return (
        f"| {name} | {len(others)} | {kernel:.3f} | {eigensystem:.3f} | {snapshot:.3f} | {said} | "
        f"{first.snapshot:.2f} | {first.snapshot / snapshot:.1f} |"
    )


HEAD = """| training | states | kernel s | eigensystem s | snapshot s | ratio (medians) | the first s | over the next |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=None, help="updates of a run; each training has its own default")
    parser.add_argument("--workloads", default=",".join(n.replace(", ", "/") for n in overhead.WORKLOADS))
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(HEAD)
    for name in given.workloads.split(","):
        known = name.replace("/", ", ")
        print(line(known, run(known, given.steps)), flush=True)


if __name__ == "__main__":
    main()
