"""What the tracker costs a training: seconds a snapshot, where they go, and the share of the run's wall time.

    python tests/bench/overhead.py [--steps 64] [--repeats 3] [--output FILE.md]

Three trainings, the demo's, a digits CNN's and a small ResNet's, each with the tracker's defaults (schedule "log", 256
samples, every default observable) and without it, in turn. The share in a run of T updates follows from the two measured
times and from how many states the schedule asks for: a log schedule asks for few more the longer the run, so a short run
overstates it.
"""

from __future__ import annotations

import argparse
import logging
import pkgutil
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytorch_lightning as pl
import torch
from run import processor
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe, open_archive
from kerneltrack.analysis.commands.demo import PictureNetwork, scattered_pixels
from kerneltrack.analysis.commands.demo_checks import Experiment
from kerneltrack.callbacks import NTKTracker
from kerneltrack.schedule import Log

ROOT = Path(__file__).parents[2]

#: Pieces of a snapshot: what the table calls them, and the function whose calls are timed.
PIECES = {
    "kernel": "kerneltrack.measurement.kernels.Kernels._within_memory",
    "eigensystem": "kerneltrack.measurement.instrument.solved",
    "observables": "kerneltrack.observables.compute",
    "coefficients and vectors": "kerneltrack.observables.measurement",
    "sharpness and ρ": "kerneltrack.measurement.curvature._top_curvatures",
    "the update's effects": "kerneltrack.measurement.instrument.update_effects",
    "writing": "kerneltrack.archive.writer.ArchiveWriter.append",
}


class Block(nn.Module):
    """Two 3×3 convolutions with BatchNorm and a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.second(torch.relu(self.one(self.first(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet(pl.LightningModule):
    """ResNet-8 for 32 × 32 pictures, 16–32–64 channels, ten classes; SGD with momentum on cross-entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            Block(16, 16, 1),
            Block(16, 32, 2),
            Block(32, 64, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def demo() -> tuple[pl.LightningModule, DataLoader, dict]:
    e = Experiment()
    x, y = scattered_pixels(e.samples, e.seed)
    loader = DataLoader(TensorDataset(x, y), batch_size=e.samples)
    return PictureNetwork(replace(e, halve_at=sys.maxsize)), loader, {"probe": Probe(x, y), "loss": "half_mse"}


class DigitsCNN(pl.LightningModule):
    """The network of the digits studies, two convolutions of 16 and 32 channels; Adam on cross-entropy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def digits() -> tuple[pl.LightningModule, DataLoader, dict]:
    images, classes = (torch.tensor(part) for part in (load_digits().images, load_digits().target))
    data = TensorDataset(images[:, None].float() / 16 - 0.5, classes)
    return DigitsCNN(), DataLoader(data, batch_size=64, shuffle=True), {"loss": "cross_entropy"}


def resnet(output: str) -> Callable[[], tuple[pl.LightningModule, DataLoader, dict]]:
    def build() -> tuple[pl.LightningModule, DataLoader, dict]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4096, 3, 32, 32, generator=generator)
        y = torch.randint(10, (4096,), generator=generator)
        loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
        return ResNet(), loader, {"probe": 256, "loss": "cross_entropy", "output": output}

    return build


#: Of 1,797 digits in batches of 64.
FIVE_EPOCHS = 145


def digits_in_full() -> tuple[pl.LightningModule, DataLoader, dict]:
    """128 × 10 rows, less one output that softmax does not see: the eigensystem is the larger part."""
    module, loader, options = digits()
    return module, loader, {**options, "probe": 128, "output": "full"}


#: name → (how it is built, updates of a measured run, the lengths of run that the share is given for).
WORKLOADS = {
    "demo": (demo, 64, (3_000, 30_000)),
    "digits CNN": (digits, FIVE_EPOCHS, (FIVE_EPOCHS, 10_000)),
    "digits CNN, full": (digits_in_full, 24, (FIVE_EPOCHS, 10_000)),
    "ResNet-8, trace": (resnet("trace"), 8, (10_000, 100_000)),
    "ResNet-8, full": (resnet("full"), 8, (10_000, 100_000)),
}

#: The share of wall time that a snapshot should stay within, and the lengths of run at which one looks.
GOAL = 0.05
LENGTHS = [digit * 10**power for power in range(2, 9) for digit in (1, 2, 5)]


@contextmanager
def stopwatch():
    """Seconds spent in each of the pieces, by name; one inside another counts for the outer one only."""
    spent: dict[str, float] = defaultdict(float)
    inside: list[str] = []

    def timed(name: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            if inside:
                return function(*args, **kwargs)
            inside.append(name)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - began
                inside.pop()

        return call

    with ExitStack() as stack:
        for name, target in PIECES.items():
            owner, _, attribute = target.rpartition(".")
            holder = pkgutil.resolve_name(owner)
            stack.enter_context(mock.patch.object(holder, attribute, timed(name, getattr(holder, attribute))))
        yield spent


def train(build: Callable, steps: int, folder: Path | None) -> tuple[float, dict[str, float], list[float]]:
    """Wall seconds of a training, seconds by piece, and the seconds of each snapshot (none without a folder)."""
    pl.seed_everything(0, verbose=False)
    model, loader, options = build()
    archive = None if folder is None else folder / "run.h5"
    callbacks = [] if archive is None else [NTKTracker(archive, log=False, **options)]
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    began = time.perf_counter()
    with stopwatch() as spent:
        trainer.fit(model, loader)
    wall = time.perf_counter() - began
    if archive is None:
        return wall, {}, []
    with open_archive(archive) as rows:
        return wall, dict(spent), [row.snapshot_seconds for row in rows]


def share(length: int, step: float, each: float) -> tuple[int, float]:
    """Snapshots of a run of so many updates with the default schedule, and their share of its wall time."""
    count = Log().count(0, length) + 1
    return count, count * each / (count * each + length * step)


def measure(name: str, steps: int | None, repeats: int) -> dict:
    build, usual, lengths = WORKLOADS[name]
    steps = steps or usual
    with_it, without, pieces, snapshots = [], [], defaultdict(float), []
    for _ in range(repeats):
        without.append(train(build, steps, None)[0])
        with tempfile.TemporaryDirectory() as folder:
            wall, spent, seconds = train(build, steps, Path(folder))
        with_it.append(wall)
        snapshots.append(seconds)
        for piece, value in spent.items():
            pieces[piece] += value / repeats
    step = statistics.median(without) / steps
    rows = len(snapshots[0])
    each = statistics.median((a - b) / rows for a, b in zip(with_it, without, strict=True))
    shares = {length: share(length, step, each) for length in lengths}
    return {
        "name": name,
        "steps": steps,
        "repeats": repeats,
        "rows": rows,
        "step": step,
        "each": each,
        "own": [statistics.median(s) for s in snapshots],
        "with": with_it,
        "without": without,
        "pieces": {piece: value / rows for piece, value in pieces.items()},
        "shares": shares,
        "kept": next((length for length in LENGTHS if share(length, step, each)[1] <= GOAL), None),
    }


def page(results: list[dict], threads: int) -> str:
    lines = [
        "# What the tracker costs",
        "",
        f"Made by `make bench` on {datetime.now(UTC).isoformat(timespec='minutes')}: {processor()}, {threads} threads, float32. "
        'The tracker\'s defaults: 256 samples (the demo: its whole training set), schedule "log", every default observable. '
        "A snapshot's seconds are the difference of runs with and without the tracker, in turn, over its snapshots: what it "
        "costs the run, closing the archive included. The share of a long run is computed from the two medians and the number "
        "of states that the schedule asks for; the first length of 100, 200, 500, 1,000, … that keeps to "
        f"{GOAL:.0%} is the last column. The first snapshot of a run also audits the kernel against automatic "
        "differentiation, once; of the few of these short runs it is one, so a long run's snapshot costs a little less.",
        "",
        "| training | updates × repeats | an update | a snapshot (fastest – slowest repeat) | share of wall time | "
        f"{GOAL:.0%} or less from |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        each = [(a - b) / r["rows"] for a, b in zip(r["with"], r["without"], strict=True)]
        shares = "; ".join(
            f"{share:.1%} of {length:,} updates ({count} snapshots)" for length, (count, share) in r["shares"].items()
        )
        lines.append(
            f"| {r['name']} | {r['steps']} × {r['repeats']} | {1000 * r['step']:.1f} ms | {r['each']:.2f} s "
            f"({min(each):.2f} – {max(each):.2f}) | {shares} | {_from(r['kept'])} |"
        )
    lines += ["", "## Where the time goes", "", "Seconds of one snapshot by piece, means over all of them.", ""]
    names = list(PIECES)
    lines += ["| training | " + " | ".join(names) + " | the rest |", "| --- " * (len(names) + 2) + "|"]
    for r in results:
        whole = statistics.mean((a - b) / r["rows"] for a, b in zip(r["with"], r["without"], strict=True))
        rest = whole - sum(r["pieces"].values())
        cells = [f"{r['pieces'].get(name, 0.0):.3f}" for name in names]
        lines.append(f"| {r['name']} | " + " | ".join(cells) + f" | {rest:.3f} |")
    lines += [
        "",
        "A run shorter than the last column says: `max_overhead=0.05` halves the grid until the share is kept, and the "
        'archive says what was left out; or measure fewer samples, `output="trace"`, fewer observables, a thinner schedule.',
        "",
    ]
    return "\n".join(lines)


def _from(length: int | None) -> str:
    return "never" if length is None else f"{length:,} updates on"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=None, help="updates of a measured run; each training has its own default"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workloads", default=",".join(n.replace(", ", "/") for n in WORKLOADS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks-overhead.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    results = []
    for name in given.workloads.split(","):
        results.append(measure(name.replace("/", ", "), given.steps, given.repeats))
        r = results[-1]
        print(
            f"{r['name']:16} {1000 * r['step']:.1f} ms an update, {r['each']:.2f} s a snapshot", r["pieces"], flush=True
        )
        given.output.write_text(page(results, given.threads), encoding="utf-8")


if __name__ == "__main__":
    main()
