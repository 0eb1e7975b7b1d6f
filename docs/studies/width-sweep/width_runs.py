"""One training of the sweep: full-batch gradient descent on "is a digit odd?", measured into one archive.

What the archive's observables do not cover is registered here (the Frobenius change of the Jacobian, the lower bound on
what the hidden layer must do) or measured before training and kept in the run's metadata (the sphere around θ_0).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from claims import finished
from odd_digits import odd_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from wide_networks import Activation, Moved, Parametrisation, cnn, mlp

import kerneltrack as kt
from kerneltrack import observables, schedule
from kerneltrack.callbacks import NTKTracker
from kerneltrack.errors import ObservableError
from kerneltrack.observables import Observable, State

OBSERVABLES = (
    "default", "condition_number", "parameter_distance", "jacobian_change", "jacobian_stability", "stability_radius",
    "stability_radius_share", "relative_kernel_change", "anchored_linearization_error", "activation_neuron_deviation",
    "activation_largest_deviation", "activation_layer_deviation", "activation_relative_deviation", "gate_flips",
    "jacobian_relative_change", "deviation_lower_bound", "deviation_bound_used",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One curve of the sweep."""

    name: str
    parametrisation: Parametrisation = "ntk"
    activation: Activation = "relu"
    convolutional: bool = False

    def build(self, width: int) -> nn.Sequential:
        return cnn(width) if self.convolutional else mlp(self.parametrisation, self.activation, width)


SETTINGS = {
    s.name: s
    for s in (
        Setting("relu-ntk"),
        Setting("tanh-ntk", activation="tanh"),
        Setting("relu-standard", "standard"),
        Setting("tanh-standard", "standard", "tanh"),
        Setting("relu-mup", "mup"),
        Setting("tanh-mup", "mup", "tanh"),
        Setting("cnn-ntk", convolutional=True),
    )
}


@dataclass
class ReadoutAtStart:
    """The readout w of the network that is being trained, as it was at step 0, and the nonlinearity before it."""

    weights: np.ndarray | None = None
    activation: Activation = "relu"

    def moved(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """(|w·Δφ(x)|/‖w‖ (N,), ‖Δa(x)‖ (N,)) of the last hidden layer; φ is 1-Lipschitz, so the first is at most the second."""
        start = None if state.initial is None else state.initial.activations
        if self.weights is None or state.activations is None or start is None:
            raise ObservableError("the bound needs a hidden layer right before the readout")
        before, now = (list(rows.values())[-1] for rows in (start, state.activations))
        phi = np.tanh if self.activation == "tanh" else lambda a: np.maximum(a, 0)
        return np.abs((phi(now) - phi(before)) @ self.weights) / np.linalg.norm(self.weights), np.linalg.norm(
            now - before, axis=1
        )


READOUT = ReadoutAtStart()


def _relative_change(state: State) -> float:
    if state.cross_time is None or state.initial is None or state.kernel is None or state.initial.kernel is None:
        raise ObservableError("J_t J_0ᵀ was not measured")
    now, start, cross = (np.einsum("nnoo->", k) for k in (state.kernel, state.initial.kernel, state.cross_time))
    return float(np.sqrt(max(now + start - 2 * cross, 0.0) / start))


def _bound(state: State) -> float:
    return float(np.mean(READOUT.moved(state)[0]))


def _bound_used(state: State) -> float:
    bound, deviation = READOUT.moved(state)
    if not np.all(deviation > 0):
        raise ObservableError("nothing has moved")
    return float(np.max(bound / deviation))


def register() -> None:
    """The three numbers that this study adds to the catalogue; harmless when called again."""
    if "jacobian_relative_change" in observables.catalogue():
        return
    since = frozenset({"activations", "initial"})
    for entry in (
        Observable(
            "jacobian_relative_change",
            "‖J_t − J_0‖_F/‖J_0‖_F",
            "1",
            "this study",
            frozenset({"kernel", "initial", "cross_time"}),
            _relative_change,
            reading="Higher: less lazy. Typical: 0.01 to 1, falling with width. Beside it: relative_kernel_change.",
        ),
        Observable(
            "deviation_lower_bound",
            "mean_n |w_0·Δφ(x_n)|/‖w_0‖",
            "1",
            "this study",
            since,
            _bound,
            reading="Higher: the layer must have moved farther. Typical: as activations. Beside it: activation_layer_deviation.",
        ),
        Observable(
            "deviation_bound_used",
            "max_n |w_0·Δφ(x_n)|/(‖w_0‖ ‖Δa(x_n)‖)",
            "1",
            "this study",
            since,
            _bound_used,
            reading="Higher: the bound is tighter. Typical: 0 to 1, 1 where it is met. Beside it: deviation_lower_bound.",
        ),
    ):
        observables.register(entry)


class Descent(pl.LightningModule):
    """Gradient descent on the mean of ½(f − y)²."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        super().__init__()
        self.network, self.rate = network, rate

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        return (self(x) - y).square().mean() / 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def sphere(network: nn.Module, x: Tensor, y: Tensor, smallest: float, directions: int, seed: int) -> dict[str, Any]:
    """R = 3‖y − f_0‖/√λ_min(Θ_0), and C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min at random θ with ‖θ − θ_0‖ = R."""
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        radius = observables.stability_radius((y - network(x)).double().numpy(), smallest)
    generator = torch.Generator().manual_seed(10_000 + seed)
    constants = []
    for _ in range(directions):
        way = {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}
        length = sum(float(v.square().sum()) for v in way.values()) ** 0.5
        point = {name: value + radius / length * way[name] for name, value in start.items()}
        change = kt.eigensystem(kt.empirical_ntk(Moved(network, start, point), x, method="jacobian"))
        constants.append(observables.jacobian_stability(float(change.values[0]) ** 0.5, smallest))
    return {"sphere_radius": radius, "sphere_constants": constants}


def run(
    folder: Path,
    setting: Setting,
    width: int,
    seed: int,
    *,
    samples: int,
    steps: int,
    directions: int,
    device: str = "cpu",
) -> Path:
    """Train and measure one network; a finished archive is used again.

    The learning rate is N/(2 λ_1(Θ_0)): a quarter of the largest stable one, whatever the parametrisation. On a GPU
    (``device="auto"``) training and tracking go there; what is measured before training stays on the CPU.
    """
    path = folder / f"{setting.name}-{width}-seed-{seed}.h5"
    if finished(path, steps):
        return path
    register()
    x, y = odd_digits(samples)
    pl.seed_everything(seed, verbose=False)
    network = setting.build(width)
    pairs = kt.eigensystem(kt.empirical_ntk(network, x))
    around = sphere(network, x, y, float(pairs.values[-1]), directions, seed)
    readout = network[-1]
    READOUT.weights = (
        None if setting.convolutional else readout.multiplier * readout.weight.detach().double().numpy()[0]
    )
    READOUT.activation = setting.activation
    model = Descent(network, samples / (2 * float(pairs.values[0])))
    tracker = NTKTracker(
        path,
        probe=kt.Probe(x, y, identity={"dataset": "scikit-learn digits", "indices": "first of permutation 0"}),
        loss="half_mse",
        schedule=schedule.At((0, steps // 16, steps // 4)),
        observables=OBSERVABLES,
        log=False,
        top_k=8,
        keep_inputs=True,
        if_exists="replace",
        metadata={"setting": setting.name, "width": width, "seed": seed, "steps": steps, **around},
    )
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[tracker],
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=samples))
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice, which does not apply to one batch."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        yield
