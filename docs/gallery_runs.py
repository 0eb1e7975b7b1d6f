"""Small runs for the figures that the demo has no numbers for: ``python docs/gallery_runs.py --out out``.

``classes.h5``: the bundled digits, two probes, a cosine schedule, and the observables that are measured on request.
``line.h5``: a function of one input. ``squares.h5``: the digits with squares, and points held out.
``filters.h5``: a convolutional network on the digits under Adam, with the spectrum of the loss-weighted kernel.
``edge.h5``: full batches at the edge of stability, in triples of states. ``balance.h5``: a network of one mode at the edge.
``tasks.h5``: the digits, then the digits turned by 90°.
``leading.h5``: 5,000 rows of the digits' kernel, which is not formed. Together they take
a minute and a quarter on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kerneltrack import Probe
from kerneltrack.callbacks import NTKTracker
from kerneltrack.schedule import At, Every, Log


class Digits(pl.LightningModule):
    def __init__(self, updates: int):
        super().__init__()
        self.updates = updates
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class SquaredDigits(Digits):
    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().sum(1).mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


class Filters(Digits):
    def __init__(self, updates: int):
        super().__init__(updates)
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 10),
        )

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


class Edge(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 10))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().sum(dim=1).mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.4)


class Balance(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean() / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def classes(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pictures))
    x, y = (torch.tensor(pictures, dtype=torch.float32) / 16 - 0.5)[order], torch.tensor(labels)[order]
    tracker = NTKTracker(
        path,
        probe={
            "train": Probe(x[:80], y[:80], identity={"image_shape": [8, 8]}),
            "new": Probe(x[-200:-120], y[-200:-120], identity={"split": "validation", "image_shape": [8, 8]}),
        },
        schedule=max(1, updates // 10),
        output="trace",
        loss="cross_entropy",
        keep_inputs=True,
        observables="all",
        keep_kernel="all",
        if_exists="replace",
    )
    fit(Digits(updates), tracker, DataLoader(TensorDataset(x[:-200], y[:-200]), batch_size=64, shuffle=True), updates)


def line(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    x = torch.linspace(-1, 1, 80)[:, None]
    y = (4 * x).sin() + 0.3 * (11 * x).sin()
    when = Log(per_octave=1, pairs=0)
    tracker = NTKTracker(path, probe=Probe(x, y), schedule=when, loss="half_mse", keep_inputs=True, if_exists="replace")
    fit(Line(), tracker, DataLoader(TensorDataset(x, y), batch_size=len(x)), updates)


def squares(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pictures))
    x, y = (torch.tensor(pictures, dtype=torch.float32) / 16 - 0.5)[order], torch.eye(10)[torch.tensor(labels)[order]]
    tracker = NTKTracker(
        path,
        probe={"train": Probe(x[:150], y[:150]), "new": Probe(x[-150:], y[-150:], identity={"split": "validation"})},
        schedule=Log(per_octave=1, pairs=0),
        output="trace",
        loss="half_mse",
        observables=["default", "posterior_calibration", "ntk_gp_nll", "log_evidence", "information_gain"],
        keep_kernel="all",
        if_exists="replace",
    )
    loader = DataLoader(TensorDataset(x[:150], y[:150]), batch_size=64, shuffle=True)
    fit(SquaredDigits(updates), tracker, loader, updates)


def tasks(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures, dtype=torch.float32) / 16 - 0.5, torch.eye(10)[torch.tensor(labels)]
    turned = torch.rot90(x.reshape(-1, 8, 8), 1, (1, 2)).reshape(-1, 64)
    half = updates // 2
    tracker = NTKTracker(
        path,
        probe={"new": Probe(turned[600:650], y[600:650]), "old": Probe(x[:50], y[:50])},
        schedule=At((0, half // 8, half, half + 1, half + 5, half + 20, half + half // 2, updates)),
        output="full",
        top_k=500,
        loss="half_mse",
        observables=["probe_loss", "frobenius", "target_energy_out_of_sample"],
        metadata={"switch": half},
        if_exists="replace",
    )
    first = torch.arange(half * 64) % 600
    order = torch.cat([first, 600 + first])
    both = TensorDataset(torch.cat([x[:600], turned[600:1200]])[order], y[:1200][order])
    fit(SquaredDigits(updates), tracker, DataLoader(both, batch_size=64), updates)


def leading(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures, dtype=torch.float32) / 16 - 0.5, torch.tensor(labels)
    sizes = ("trace", "frobenius", "participation_ratio", "alignment")
    tracker = NTKTracker(
        path,
        probe=Probe(x[:500], y[:500]),
        schedule=Log(per_octave=1, pairs=0),
        output="full",
        eigenpairs="leading",
        memory_budget="64MiB",
        top_k=16,
        loss="cross_entropy",
        observables=[f"{name}_estimate{end}" for name in sizes for end in ("", "_error")],
        if_exists="replace",
    )
    fit(Digits(updates), tracker, DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True), updates)


def filters(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures, dtype=torch.float32) / 16 - 0.5, torch.tensor(labels)
    tracker = NTKTracker(
        path,
        probe=Probe(x[:50], y[:50]),
        schedule=max(1, updates // 8),
        output="full",
        loss="cross_entropy",
        observables=["default", "loss_weighted_eigenvalues"],
        if_exists="replace",
    )
    fit(Filters(updates), tracker, DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True), updates)


def edge(path: Path, updates: int) -> None:
    pl.seed_everything(0)
    pictures, labels = load_digits(return_X_y=True)
    x = torch.tensor(pictures[:120], dtype=torch.float32) / 16 - 0.5
    y = nn.functional.one_hot(torch.tensor(labels[:120])).float()
    tracker = NTKTracker(
        path,
        probe=Probe(x, y),
        schedule=Every(max(3, updates // 12), window=3),
        output="trace",
        loss="half_mse",
        observables=["default", "oscillation_loss", "oscillation_loss_seen"],
        if_exists="replace",
    )
    fit(Edge(), tracker, DataLoader(TensorDataset(x, y), batch_size=len(x)), updates)


def balance(path: Path, updates: int) -> None:
    pl.seed_everything(1)
    x = torch.linspace(-1, 1, 12)[:, None]
    y = (4 * x).sin()
    tracker = NTKTracker(
        path,
        probe=Probe(x, y),
        schedule=Every(max(3, updates // 24), window=3),
        loss="half_mse",
        observables=["default", "edge_swing", "edge_swing_predicted"],
        if_exists="replace",
    )
    fit(Balance(), tracker, DataLoader(TensorDataset(x, y), batch_size=len(x)), updates)


def fit(module: pl.LightningModule, tracker: NTKTracker, loader: DataLoader, updates: int) -> None:
    trainer = pl.Trainer(
        max_steps=updates, accelerator="cpu", callbacks=[tracker], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


#: Archive → what trains it, and how many times the updates of the digits it takes.
RUNS = {
    "classes": (classes, 1),
    "line": (line, 10),
    "squares": (squares, 5),
    "tasks": (tasks, 2),
    "leading": (leading, 1),
    "filters": (filters, 1),
    "edge": (edge, 3),
    "balance": (balance, 12),
}


def train(folder: Path, name: str, updates: int) -> None:
    """Write ``folder/name.h5``, where it is not there."""
    path, (run, times) = folder / f"{name}.h5", RUNS[name]
    if not path.exists():
        run(path, times * updates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument(
        "--updates", type=int, default=200, help="of the digits; other runs take up to ten times as many"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, (run, times) in RUNS.items():
        run(given.out / f"{name}.h5", times * given.updates)


if __name__ == "__main__":
    main()
