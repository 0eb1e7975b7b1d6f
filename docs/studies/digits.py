"""A classification run from end to end: digits, two networks, two schedules, two optimizers; one run watched closely
through two probes; and a sweep over width.

    python docs/studies/digits.py --out out/digits

writes one archive per run, a report of each but those of the sweep, and prints the tables of digits.md. The data are
scikit-learn's bundled 8×8 digits: nothing is downloaded. ``--small`` is the version that the test suite runs.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from claims import finished
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack import schedule
from kerneltrack.analysis import load, lr_decay_effects
from kerneltrack.analysis.comparison.sweep import sweep, sweep_table
from kerneltrack.analysis.lr_decay.wording import sentence, trend_sentence
from kerneltrack.analysis.report.findings import findings
from kerneltrack.analysis.report.page import write_report
from kerneltrack.analysis.text import plain_lines
from kerneltrack.callbacks import NTKTracker
from kerneltrack.probe import Probe

OBSERVABLES = (
    "default", "class_diagonal", "class_within", "class_between", "class_pair_r2", "kernel_specialization",
    "cross_output_share", "target_complexity", "target_modes_90", "leave_one_out_error", "stability_ratio_bias",
)  # fmt: skip
#: Of the run that is watched closely: hidden neurons, who learned what in each update, and what a frozen kernel would do.
CLOSE = (
    "default", "network_error", "kernel_regression_error", "target_energy_out_of_sample", "activation_neuron_deviation",
    "activation_layer_deviation", "gate_flips", "ledger_kernel_flow", "ledger_remainder", "ledger_curvature",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large the study is."""

    steps: int = 600
    batch: int = 64
    probe: int = 60
    width: int = 128
    widths: tuple[int, ...] = (32, 128, 512)
    seeds: int = 6
    sweep_steps: int = 300
    watched_steps: int = 1600
    watched: int = 300


SMALL = Size(steps=24, probe=12, width=16, widths=(8, 16, 32), seeds=2, sweep_steps=12, watched_steps=24, watched=20)


def data() -> tuple[Tensor, Tensor]:
    """The digits, standardised over all pixels, in an order of their own."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    return ((images - images.mean()) / images.std())[order], torch.tensor(digits.target)[order]


def odd(y: Tensor) -> Tensor:
    """+1 for an odd digit, −1 for an even one, (N, 1)."""
    return (y[:, None] % 2).float() * 2 - 1


def mlp(width: int, outputs: int = 10) -> nn.Module:
    """64 → width → width → outputs."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def cnn(width: int) -> nn.Module:
    """Two convolutions, global average, 10 classes."""
    channels = max(4, width // 8)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * channels, 10),
    )


class Lazy(nn.Module):
    """64 → width → 1 in NTK parametrisation: f(x) = a·φ(Wx/√d)/√width, so that width alone decides the laziness."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, width, bias=False), nn.Linear(width, 1, bias=False)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x.flatten(1)) / 64**0.5)
        outputs: Tensor = (2 / hidden.shape[1]) ** 0.5 * self.last(hidden)
        return outputs


class Classifier(pl.LightningModule):
    """A network, its optimizer and its schedule."""

    def __init__(self, network: nn.Module, optimizer: str, decay: str, steps: int) -> None:
        super().__init__()
        self.network, self.optimizer, self.decay, self.steps = network, optimizer, decay, steps

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x)
        return outputs

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        if y.is_floating_point():  # is a digit odd: the mean of ½(f − y)²
            return (self(x) - y).square().mean() / 2
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        if self.optimizer == "adam":
            optimizer: torch.optim.Optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        else:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1 if self.decay != "none" else 0.5)
        if self.decay == "none":
            return optimizer
        scheduler: Any = (
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            if self.decay == "cosine"
            else torch.optim.lr_scheduler.MultiStepLR(optimizer, [self.steps // 2], 0.1)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trainer(steps: int, tracker: NTKTracker) -> pl.Trainer:
    """Nothing on disk but the archive, nothing on the screen."""
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[tracker],
    )


def classification(folder: Path, network: str, optimizer: str, decay: str, size: Size) -> Path:
    """One of the eight runs."""
    path = folder / f"{network}-{optimizer}-{decay}.h5"
    if finished(path, size.steps):
        return path
    x, y = data()
    pl.seed_everything(0, verbose=False)
    model = Classifier((mlp if network == "mlp" else cnn)(size.width), optimizer, decay, size.steps)
    identity = {"dataset": "scikit-learn digits", "split": "held-out", "indices": "first"}  # training has x[200:]
    probe = Probe(x[: size.probe], y[: size.probe], identity=identity)
    when = (
        schedule.Log(per_octave=2) | schedule.OnLearningRateChange(after=(0, 1, 10, 100), held=10)
        if decay == "step"
        else (schedule.Log(per_octave=2) | schedule.Every(max(size.steps // 12, 1)))
    )
    tracker = NTKTracker(
        path,
        if_exists="replace",
        probe=probe,
        loss="cross_entropy",
        schedule=when,
        observables=OBSERVABLES,
        keep_inputs=True,
        log=False,
        metadata={"network": network, "optimizer": optimizer, "decay": decay, "width": size.width, "seed": 0},
    )
    loader = DataLoader(TensorDataset(x[200:], y[200:]), batch_size=size.batch, shuffle=True)
    trainer(size.steps, tracker).fit(model, loader)
    return path


def watched_run(folder: Path, size: Size) -> Path:
    """Is a digit odd: one MLP on ``size.watched`` digits, seen through those and through as many new ones."""
    path = folder / "watched.h5"
    if finished(path, size.watched_steps):
        return path
    x, y = data()
    seen, new = slice(0, size.watched), slice(size.watched, 2 * size.watched)
    probes = {
        name: Probe(x[part], odd(y[part]), name=name, identity={"dataset": "scikit-learn digits", "indices": name})
        for name, part in (("trained", seen), ("new", new))
    }
    pl.seed_everything(0, verbose=False)
    model = Classifier(mlp(size.width // 2, outputs=1), "sgd", "step", size.watched_steps)
    tracker = NTKTracker(
        path,
        if_exists="replace",
        probe=probes,
        loss="half_mse",
        observables=CLOSE,
        keep_inputs=True,
        log=False,
        schedule=schedule.Log(per_octave=2) | schedule.OnLearningRateChange(after=(0, 1, 10, 100), held=10),
        metadata={"network": "mlp", "optimizer": "sgd", "decay": "step", "width": size.width // 2, "seed": 0},
    )
    loader = DataLoader(TensorDataset(x[seen], odd(y[seen])), batch_size=min(size.batch, size.watched), shuffle=True)
    trainer(size.watched_steps, tracker).fit(model, loader)
    return path


def width_run(folder: Path, width: int, seed: int, size: Size) -> Path:
    """One run of the sweep: is a digit odd, learned by full-batch descent in NTK parametrisation."""
    path = folder / f"width-{width}-seed-{seed}.h5"
    if finished(path, size.sweep_steps):
        return path
    x, y = data()
    x, y = x[: size.probe], odd(y[: size.probe])
    pl.seed_everything(seed, verbose=False)
    model = Classifier(Lazy(width), "sgd", "none", size.sweep_steps)
    tracker = NTKTracker(
        path,
        if_exists="replace",
        probe=Probe(x, y, identity={"dataset": "scikit-learn digits", "indices": "first"}),
        loss="half_mse",
        schedule=schedule.Log(per_octave=1),
        log=False,
        metadata={"width": width, "seed": seed},
    )
    trainer(size.sweep_steps, tracker).fit(model, DataLoader(TensorDataset(x, y), batch_size=len(x)))
    return path


def row(path: Path) -> str:
    """One line of the table of the eight runs, first → last snapshot."""
    run = load(path).only
    rows = np.flatnonzero(run.measured)[[0, -1]]

    def ends(values: np.ndarray, digits: str) -> str:
        return " → ".join(format(float(v), digits) for v in values[rows])

    ratio = run.values("stability_ratio") if run.has("stability_ratio") else np.array([np.nan])
    return (
        "| "
        + " | ".join(
            [
                ", ".join(
                    run.name.replace("mlp", "MLP")
                    .replace("cnn", "CNN")
                    .replace("sgd", "SGD")
                    .replace("adam", "Adam")
                    .split("-")
                ),
                ends(run.values("class_within") / run.values("class_between"), ".2f"),
                ends(run.values("class_pair_r2"), ".3f"),
                f"{run.values('kernel_distance_from_initial')[rows[1]]:.3f}",
                ends(run.values("cross_output_share"), ".3f"),
                ends(run.values("target_modes_90"), ".0f"),
                ends(run.values("leave_one_out_error"), ".3f"),
                f"{np.nanmax(ratio):.2f}" if np.isfinite(ratio).any() else "not known",
            ]
        )
        + " |"
    )


def told(path: Path) -> list[str]:
    """What followed the learning-rate changes of a run, in words."""
    run = load(path).only
    effects = lr_decay_effects(run)
    sentences = [sentence(c, effects.energy_k) for c in effects.changes]
    sentences += [trend_sentence(t, effects.energy_k) for t in effects.trends]
    return [f"{run.name}: {words}" for words in sentences]


def watched_lines(path: Path) -> list[str]:
    """The findings of the closely watched run, on the new digits."""
    return [
        f"watched: {found.title}: {found.sentence} {found.null}" for found in findings(load(path, probe="new").only)
    ]


def permuted_modes(network: str, size: Size, draws: int = 20) -> str:
    """How many modes hold 90 % of the target at initialisation, and of permuted labels (mean): how much of the count is of them?

    In the gauge of softmax, as the archives have it: kernel, and one-hot labels, less their mean over outputs.
    """
    x, y = (part[: size.probe] for part in data())
    pl.seed_everything(0, verbose=False)
    kernel = kt.empirical_ntk((mlp if network == "mlp" else cnn)(size.width), x).double()
    outputs = kernel.shape[-1]
    centre = torch.eye(outputs, dtype=torch.float64) - 1 / outputs
    vectors = kt.eigensystem(torch.einsum("po,nmoq,qr->nmpr", centre, kernel, centre)).vectors
    labels = nn.functional.one_hot(y, outputs).double() @ centre

    def held(rows: Tensor) -> int:
        squares = np.cumsum((vectors.T @ rows.reshape(-1).numpy()) ** 2)
        return int(np.searchsorted(squares, 0.9 * squares[-1]) + 1)

    generator = torch.Generator().manual_seed(0)
    drawn = [held(labels[torch.randperm(len(labels), generator=generator)]) for _ in range(draws)]
    return f"{network}: {held(labels)} modes for 90 % of y at initialisation, {np.mean(drawn):.0f} for permuted labels"


def main(folder: Path, size: Size) -> list[str]:
    """Train what is not there yet, analyse, write the reports; returns the lines of the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    choices = itertools.product(("mlp", "cnn"), ("sgd", "adam"), ("cosine", "step"))
    classified = [classification(folder, *choice, size) for choice in choices]
    watched = watched_run(folder, size)
    widths = [width_run(folder, w, s, size) for w in size.widths for s in range(size.seeds)]
    for path in classified:
        write_report(path, path.with_suffix(".html"))
    for probe in ("trained", "new"):
        write_report(watched, folder / f"watched-{probe}.html", probe=probe)
    found = sweep(load(widths), "width", ["relative_kernel_change", "anchored_linearization_error", "eigenvalue_1"])
    words = [line for path in classified for line in told(path)]
    counts = [permuted_modes(network, size) for network in ("mlp", "cnn")]
    return [*map(row, classified), *counts, *words, *watched_lines(watched), *plain_lines(sweep_table(found))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/digits"))
    parser.add_argument("--small", action="store_true")
    words = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print("\n".join(main(words.out, SMALL if words.small else Size())))
