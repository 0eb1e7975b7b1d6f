"""The demo: *Neural Spectrum Alignment* (Kopitkov & Indelman 2020) at desk size, on a real photograph, with a control.

A 6-layer leaky-ReLU network learns the grey values of a portrait at N scattered points by full-batch gradient descent;
the learning rate is halved once. The control goes on from the fork that the tracker kept there, the last state that the old
rate made, without the halving, into an archive of its own: only the difference between the two is the halving's effect.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from rich.console import Console
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from kerneltrack import schedule
from kerneltrack.archive import is_archive, open_archive
from kerneltrack.callbacks import NTKTracker, run_control
from kerneltrack.errors import ArchiveError, ArchiveExistsError
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Array

from ..report import write_report
from .demo_checks import Experiment, checks_table, run_checks

PHOTOGRAPH = "grace_hopper.jpg"
FILES = ("demo.h5", "control.h5", "demo.html")
EXPERIMENT = "neural spectrum alignment"  # by which a demo's archives are known


def photograph() -> Array:
    """Grey values in [0, 1], (rows, columns), of the portrait that ships with matplotlib."""
    with Image.open(str(get_sample_data(PHOTOGRAPH, asfileobj=False))) as picture:
        grey: Array = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    return grey


def scattered_pixels(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coordinates (N, 2) and grey values (N, 1) at points i.i.d. uniform on [0, 1]², both standardised, float32.

    The portrait is squeezed onto the unit square; the second coordinate points up, so that an ordinary plot stands
    upright. Standardised means empirical mean 0 and standard deviation 1, as in the paper.
    """
    grey = photograph()
    points = np.random.default_rng(seed).random((samples, 2))
    rows, columns = (1 - points[:, 1]) * (grey.shape[0] - 1), points[:, 0] * (grey.shape[1] - 1)
    values = map_coordinates(grey, np.stack([rows, columns]), order=1)[:, None]
    standardised = [(a - a.mean(axis=0)) / a.std(axis=0) for a in (points, values)]
    x, y = (torch.from_numpy(a.astype(np.float32)) for a in standardised)
    return x, y


class PictureNetwork(pl.LightningModule):
    """2 → width → … → 1, leaky ReLU, Xavier-uniform weights, zero biases; plain GD on the mean of ½(f − y)²."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self._experiment = experiment
        sizes = [2, *[experiment.width] * (experiment.depth - 1), 1]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU(experiment.slope)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        return outputs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss: Tensor = (self(x) - y).square().mean() / 2
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self._experiment.learning_rate)
        halve_at = self._experiment.halve_at
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 if step >= halve_at else 1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _WholeSet(Sampler[list[int]]):
    """The whole data set as one batch, ``repeats`` times an epoch: full-batch descent without an epoch per step."""

    def __init__(self, size: int, repeats: int) -> None:
        self._indices, self._repeats = list(range(size)), repeats

    def __iter__(self) -> Iterator[list[int]]:
        return iter([self._indices] * self._repeats)

    def __len__(self) -> int:
        return self._repeats


def train(experiment: Experiment, archive: Path, *, progress: bool = True) -> NTKTracker:
    """The run, into an archive; returns its tracker, which keeps the state before the halving."""
    e = experiment
    pl.seed_everything(e.seed, workers=True, verbose=False)
    x, y = scattered_pixels(e.samples, e.seed)
    rows, columns = photograph().shape
    identity = {"picture": PHOTOGRAPH, "points": e.samples, "seed": e.seed, "aspect": rows / columns}
    around = schedule.OnLearningRateChange(after=(0, 1, 10, 100, 1000))
    tracker = NTKTracker(
        archive,
        probe=Probe(x, y, name="train", identity=identity),
        schedule=schedule.Log(per_octave=1) | schedule.Every(max(e.steps // 8, 1)) | around,
        loss="half_mse",
        keep_inputs=True,
        log=False,
        metadata={"experiment": EXPERIMENT, "width": e.width, "depth": e.depth, "seed": e.seed},
        keep_forks=True,
    )
    with _quiet():
        _trainer(e, tracker, progress=progress).fit(PictureNetwork(e), _whole_set(e))
    return tracker


def train_control(experiment: Experiment, tracker: NTKTracker, archive: Path, *, progress: bool = True) -> None:
    """The same run from the state before the halving on, never halved, into an archive of its own."""
    (fork,) = tracker.forks
    with _quiet():
        run_control(
            fork,
            trainer=_trainer(experiment, progress=progress),
            module=PictureNetwork(experiment),
            train_dataloaders=_whole_set(experiment),
            steps=experiment.steps - fork.step,
            archive=archive,
        )


def _whole_set(experiment: Experiment) -> DataLoader[Any]:
    data = TensorDataset(*scattered_pixels(experiment.samples, experiment.seed))
    return DataLoader(data, sampler=_WholeSet(experiment.samples, min(500, experiment.steps)), batch_size=None)


def _trainer(experiment: Experiment, *callbacks: pl.Callback, progress: bool) -> pl.Trainer:
    bar = [pl.callbacks.RichProgressBar(refresh_rate=50)] if progress else []
    return pl.Trainer(
        max_steps=experiment.steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, *bar],
        enable_model_summary=False,
        enable_progress_bar=progress,
        deterministic=True,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice that is not for this run: one tensor batch gains nothing from workers; one is of Lightning's code."""
    with warnings.catch_warnings():
        for advice in ("does not have many workers", "treespec, LeafSpec"):
            warnings.filterwarnings("ignore", message=f".*{advice}.*")
        yield


def run_demo(out: Path, *, force: bool = False, experiment: Experiment | None = None) -> int:
    """Write demo.h5, control.h5 and demo.html into ``out``, all three or none; returns the exit status.

    Raises:
        ArchiveExistsError: one of them exists and ``force`` is False, or is not what an earlier demo wrote; nothing is
            touched.
    """
    experiment = experiment or Experiment()
    existing = [out / name for name in FILES if os.path.lexists(out / name)]
    if foreign := [path for path in existing if not _is_ours(path)]:
        raise ArchiveExistsError(
            "not an earlier demo; nothing was touched", got=", ".join(map(str, foreign)), remedy="Give another --out."
        )
    if existing and not force:
        raise ArchiveExistsError(
            "the demo's output exists",
            got=", ".join(map(str, existing)),
            remedy="Give --force to write it anew, or another --out.",
        )
    out.mkdir(parents=True, exist_ok=True)
    console, began = Console(stderr=True), time.perf_counter()
    with TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        _write(Path(folder), experiment, console)
        for name in FILES:
            os.replace(Path(folder) / name, out / name)
    checks = run_checks(out / "demo.h5", out / "control.h5", experiment)
    Console().print(checks_table(checks))
    for name in FILES:
        Console().print(str(out / name), highlight=False, markup=False, soft_wrap=True)
    console.print(f"done in {time.perf_counter() - began:.0f} s")
    return 0


def _is_ours(path: Path) -> bool:
    """Whether a file that is there is what an earlier demo wrote: of a page nobody can tell, an archive says it."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.suffix != ".h5":
        return not is_archive(path)
    try:
        with open_archive(path) as archive:
            return archive.provenance.metadata.get("experiment") == EXPERIMENT
    except ArchiveError:
        return False


def _write(folder: Path, experiment: Experiment, console: Console) -> None:
    for noisy in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    demo, control, page = (folder / name for name in FILES)
    console.print(f"[bold]1/3[/] training {experiment.steps} steps, learning rate halved at {experiment.halve_at}")
    tracker = train(experiment, demo, progress=console.is_terminal)
    console.print(f"[bold]2/3[/] control: the same run from step {experiment.halve_at} on, never halved")
    train_control(experiment, tracker, control, progress=console.is_terminal)
    console.print("[bold]3/3[/] report")
    write_report([demo], page)  # the control lies beside it and says what it is
