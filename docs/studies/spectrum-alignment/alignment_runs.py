"""The runs of the study: data, networks, optimizers; one archive for each run and for each of its controls.

A run and its controls share every state up to a decay: the run saves a checkpoint one update before each, and the
control goes on from there without that decay. Only the difference between the two is the decay's effect.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from portrait import mirrored, mlp
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from kerneltrack import Probe, schedule
from kerneltrack.analysis.commands.demo import PHOTOGRAPH, photograph, scattered_pixels
from kerneltrack.callbacks import NTKTracker

#: Snapshots after each decay, in updates; 0 is the last state that the old rate made.
AFTER = (0, 1, 10, 100, 1000)
#: Of the heavy ball.
MOMENTUM = 0.9
#: Batches that Lightning takes for an epoch, which costs it a millisecond or two; every batch is the whole set.
EPOCH = 1000


@dataclass(frozen=True)
class Recipe:
    """One training run, and what its archive's metadata say.

    Attributes:
        task: "picture" (grey values of a portrait), "mirror" (the same portrait mirrored, on the same points) or "digits".
        optimizer: "gd", "momentum" (heavy ball) or "adam".
        samples: N points; the whole of them is every batch, and the probe.
        width: neurons per hidden layer.
        depth: weight layers.
        seed: of points, initialisation and everything else.
        rate: of the first block; for gradient descent the paper's δ.
        decays: updates from which on the rate is half of what it was.
        steps: updates in all.
        grid: a pair of snapshots every so many updates, (t − 1, t), besides those near the start and the decays: at the edge
            of stability a single state shows one phase of an orbit of period 2.
        observables: of the tracker.
        without: the decay that a control leaves out, as its update; 0 for a run that takes all of its decays.
    """

    task: str
    optimizer: str
    samples: int
    width: int
    depth: int
    seed: int
    rate: float
    decays: tuple[int, ...]
    steps: int
    grid: int
    observables: tuple[str, ...] = ("default",)
    without: int = 0

    @property
    def name(self) -> str:
        """Of the archive: what tells this run from the others of the study."""
        without = f"-without-{self.without}" if self.without else ""
        return f"{self.task}-{self.optimizer}-depth{self.depth}-width{self.width}-seed{self.seed}{without}"

    @property
    def before_grid(self) -> tuple[int, ...]:
        """The first state of each pair."""
        return tuple(step - 1 for step in range(self.grid, self.steps + 1, self.grid))

    @property
    def loss(self) -> str:
        """The loss that is trained, by the tracker's name."""
        return "cross_entropy" if self.task == "digits" else "half_mse"

    def control(self, decay: int, steps: int) -> Recipe:
        """The same run without the decay at that update, for ``steps`` updates or until the next decay."""
        place = self.decays.index(decay)
        until = [*self.decays, self.steps][place + 1]
        return replace(self, decays=self.decays[:place], steps=min(decay + steps, until), without=decay)


def data(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Inputs and targets, standardised: (N, 2) and (N, 1) of the picture, (N, 64) and classes (N,) of the digits."""
    if recipe.task == "digits":
        digits = load_digits()
        order = np.random.default_rng(recipe.seed).permutation(len(digits.target))[: recipe.samples]
        images = torch.tensor(digits.data[order], dtype=torch.float32)
        return (images - images.mean()) / images.std(), torch.tensor(digits.target[order])
    x, y = scattered_pixels(recipe.samples, recipe.seed)
    return x, (mirrored(x, y) if recipe.task == "mirror" else y)


class Learner(pl.LightningModule):
    """A network on its task: the mean of ½(f − y)², or cross-entropy; the rate is halved at each decay."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        inputs, outputs = (64, 10) if recipe.task == "digits" else (2, 1)
        self.network = mlp(inputs, recipe.width, recipe.depth, outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x)
        return outputs

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.recipe.loss == "cross_entropy":
            return nn.functional.cross_entropy(self(x), y)
        return (self(x) - y).square().mean() / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(*batch)

    def configure_optimizers(self) -> Any:
        rate, decays = self.recipe.rate, self.recipe.decays
        optimizer: torch.optim.Optimizer
        if self.recipe.optimizer == "adam":
            optimizer = torch.optim.Adam(self.parameters(), lr=rate)
        else:
            beta = MOMENTUM if self.recipe.optimizer == "momentum" else 0.0
            optimizer = torch.optim.SGD(self.parameters(), lr=rate, momentum=beta)
        # A plain function is no part of the scheduler's state, so a control resumes without its decay.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** sum(step >= d for d in decays))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class CapturedLearner(Learner):
    """The same training with loss and gradients on static tensors: on a GPU captured once as a CUDA graph, then replayed.

    A replay launches the whole forward and backward pass at once and leaves the gradients where the optimizer looks for
    them; optimizer, decays and tracker stay those of any other run. Without a GPU the same function is called.
    """

    def __init__(self, recipe: Recipe, x: Tensor, y: Tensor) -> None:
        super().__init__(recipe)
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("y", y, persistent=False)
        self._graph: Any = None
        self._loss = torch.zeros(())

    def on_train_start(self) -> None:
        if self.device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their kernels and take their memory before the capture
            for _ in range(3):
                self._loss_and_gradients()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = self._loss_and_gradients()

    def _loss_and_gradients(self) -> Tensor:
        for parameter in self.parameters():
            parameter.grad = None
        loss = self.loss(self.x, self.y)
        loss.backward()
        return loss.detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self._graph is None:
            return self._loss_and_gradients()
        self._graph.replay()
        return self._loss

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Nothing: a replay writes the gradients anew."""

    def backward(self, *_: Any, **__: Any) -> None:
        """Nothing: the replay has done it."""


class _Whole(Dataset[Any]):
    """The whole set, whatever the index: full-batch descent that copies nothing."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._pair = x, y

    def __len__(self) -> int:
        return len(self._pair[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._pair


class _Repeated(Sampler[int]):
    """Index 0, so many times an epoch."""

    def __iter__(self) -> Iterator[int]:
        return iter([0] * EPOCH)

    def __len__(self) -> int:
        return EPOCH


class _SaveBefore(pl.Callback):
    """Saves the checkpoints from which controls start: one update before each first one at a new rate."""

    def __init__(self, paths: dict[int, Path]) -> None:
        self._paths = paths

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step in self._paths:
            trainer.save_checkpoint(self._paths[trainer.global_step])


def run_with_controls(
    folder: Path, recipe: Recipe, control_steps: int, captured: bool = False, until: int | None = None
) -> list[Path]:
    """The archives of a run and of its controls, one for each decay; what is finished already is not trained again.

    Of a run that is to end at ``until`` for now there are none.
    """
    if until is not None and until < recipe.steps:
        train(folder, recipe, captured=captured, until=until)
        return []
    controls = [recipe.control(decay, control_steps) for decay in recipe.decays if control_steps]
    archives = [train(folder, recipe, captured=captured)]
    for control in controls:
        start = _checkpoint(folder, recipe, control.without)
        archives.append(train(folder, control, start=start, captured=captured))
    return archives


def train(
    folder: Path, recipe: Recipe, *, start: Path | None = None, captured: bool = False, until: int | None = None
) -> Path:
    """The archive of one run.

    Args:
        folder: of all archives and checkpoints.
        recipe: what is trained.
        start: the checkpoint that it goes on from.
        captured: loss and gradients as a CUDA graph, where there is a device for it.
        until: the update at which it ends for now; the next call goes on from there, in the same archive.
    """
    path = folder / f"{recipe.name}.h5"
    if path.exists():
        return path
    unfinished, stopped = folder / f"unfinished-{path.name}", folder / f"unfinished-{recipe.name}.ckpt"
    start = stopped if stopped.exists() else start
    pl.seed_everything(recipe.seed, workers=True, verbose=False)
    x, y = data(recipe)
    saves = {} if recipe.without else {decay - 1: _checkpoint(folder, recipe, decay) for decay in recipe.decays}
    with without_advice():
        trainer = pl.Trainer(
            max_steps=recipe.steps if until is None else min(until, recipe.steps),
            accelerator="auto" if captured else "cpu",
            devices=1,
            logger=False,
            callbacks=[tracker(unfinished, recipe, x, y), _SaveBefore(saves)],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            deterministic=not captured,
        )
        model = CapturedLearner(recipe, x, y) if captured else Learner(recipe)
        loader = DataLoader(_Whole(x, y), sampler=_Repeated(), batch_size=None)
        trainer.fit(model, loader, ckpt_path=start, weights_only=True if start else None)
    if trainer.global_step < recipe.steps:
        trainer.save_checkpoint(stopped)
        return unfinished
    unfinished.rename(path)
    stopped.unlink(missing_ok=True)
    return path


def tracker(path: Path, recipe: Recipe, x: Tensor, y: Tensor) -> NTKTracker:
    """Measures on the training set itself: along a grid, and where rates decay near the start and around each decay too."""
    when: schedule.Schedule = schedule.Every(recipe.grid) | schedule.At(recipe.before_grid)
    if recipe.without:
        when = when | schedule.At(tuple(recipe.without + offset for offset in AFTER))
    elif recipe.decays:
        when = when | schedule.OnLearningRateChange(after=AFTER, held=10) | schedule.Log(per_octave=1)
    rows, columns = photograph().shape
    identity = {"data": recipe.task, "seed": recipe.seed, "points": recipe.samples}
    if recipe.task != "digits":
        identity |= {"picture": PHOTOGRAPH, "aspect": rows / columns}
    return NTKTracker(
        path,
        probe=Probe(x, y, name="train", identity=identity),
        schedule=when,
        output="trace",
        top_k=min(100, recipe.samples),
        observables=recipe.observables,
        loss=recipe.loss,
        keep_inputs=recipe.task != "digits",
        metadata=asdict(recipe),
        log=False,
        if_exists="replace",
    )


def _checkpoint(folder: Path, recipe: Recipe, decay: int) -> Path:
    return folder / f"{recipe.name}-before-{decay}.ckpt"


@contextmanager
def without_advice() -> Iterator[None]:
    """Lightning's advice that does not apply: a loader of one batch needs no workers, every batch is the same, and a
    control forks from a checkpoint that knows the tracker of another run."""
    for noisy in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for advice in (
            "does not have many workers",
            "resuming from a checkpoint that ended before the epoch",
            "callbacks used to create the checkpoint",
            "treespec, LeafSpec",
        ):
            warnings.filterwarnings("ignore", message=f".*{advice}.*")
        yield
