"""A convolutional network and its linearisation, trained alike, on images.

f_lin(x; θ) = f(x; θ_0) + J(x; θ_0)(θ − θ_0) starts where f starts, and takes the same minibatches at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from digit_images import Images, Source
from squares_by_sgd import Predict, Sgd, mean_kernel, stable_rate
from torch import Tensor, nn
from wide_networks import Moved

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.regression import kernel_regression

Difficulty = Literal["parity", "classes", "permuted", "random"]
#: images on which the full kernel is taken: all outputs of each
FULL = 20


@dataclass(frozen=True)
class Task:
    """Training points (:class:`squares_by_sgd.Points`), and others to be right on.

    Attributes:
        x: (N, 1, H, W).
        y: (N, O) one-hot less 1/O.
        unseen: (N', 1, H, W).
        labels: (N',) of the unseen ones.
    """

    x: Tensor
    y: Tensor
    unseen: Tensor
    labels: Tensor

    @property
    def outputs(self) -> int:
        return self.y.shape[1]

    def accuracy(self, outputs: Tensor) -> float:
        """Of outputs at the unseen points."""
        return float((outputs.argmax(dim=1) == self.labels).float().mean())


def task(source: Source, difficulty: Difficulty, train: int, test: int, seed: int) -> Task:
    """Digits: odd or even; which one; which one, pixels in another order; and labels drawn at random.

    Raises:
        ValueError: fewer images than asked for.
    """
    images, generator = Images.load(source, seed), np.random.default_rng(seed)
    if len(images) < train + test:
        raise ValueError(f"{train} training images and {test} unseen ones are more than {len(images)}")
    pixels, labels = images[: train + test].on_sphere(images[:train].pixels.mean(axis=0)), images.labels[: train + test]
    if difficulty == "parity":
        labels = labels % 2
    if difficulty == "random":
        labels = generator.permutation(labels)
    if difficulty == "permuted":
        pixels = pixels.flatten(1)[:, generator.permutation(pixels[0].numel())].view_as(pixels)
    x, known = pixels[:, None], torch.tensor(labels)
    y = nn.functional.one_hot(known).float()
    return Task(x[:train], (y - 1 / y.shape[1])[:train], x[train:], known[train:])


def lenet(multiplier: float, side: int, outputs: int) -> nn.Sequential:
    """LeNet-5 with 6c, 16c channels and 120c, 84c units; ReLU, means over 2 × 2, torch's own initialisation."""
    first, second, third, fourth = (max(1, round(count * multiplier)) for count in (6, 16, 120, 84))
    return nn.Sequential(
        nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (side // 4) ** 2, third), nn.ReLU(),
        nn.Linear(third, fourth), nn.ReLU(),
        nn.Linear(fourth, outputs),
    )  # fmt: skip


def trained(predict: Predict, parameters: Mapping[str, Tensor], some: Task, sgd: Sgd, epochs: int, seed: int) -> float:
    """Changes the parameters. Returns the mean of ½‖f − y‖² on the training points afterwards."""
    leaves = [leaf for leaf in parameters.values() if leaf.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        sgd.epoch(predict, leaves, some, generator)
    return float((_in_parts(predict, some.x) - some.y).square().sum(dim=1).mean() / 2)


@torch.no_grad()
def _in_parts(predict: Predict, x: Tensor) -> Tensor:
    return torch.cat([predict(part) for part in x.split(250)])


def both(model: nn.Module, some: Task, sgd: Sgd, epochs: int, seed: int) -> dict[str, float]:
    """Trains the linearisation on its own parameters, and the model: the shares of unseen images that are right, and losses."""
    linear = kt.linearize(model)
    theta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if p.requires_grad}

    def tangent(x: Tensor) -> Tensor:
        return linear(x, theta)

    found = {}
    ways: dict[str, tuple[Callable[[Tensor], Tensor], Mapping[str, Tensor]]] = {
        "linear": (tangent, theta),
        "network": (model, dict(model.named_parameters())),
    }
    for name, (predict, parameters) in ways.items():
        found[f"{name}_loss"] = trained(predict, parameters, some, sgd, epochs, seed)
        found[name] = some.accuracy(_in_parts(predict, some.unseen))
    return found


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        parameters: θ_0 by name.
        kernel: (N + N', N + N') the mean kernel of training and unseen points.
        smallest: λ_min of the full kernel on a few of them.
    """

    parameters: dict[str, Tensor]
    kernel: np.ndarray
    smallest: float

    @classmethod
    def of(cls, model: nn.Module, some: Task, unseen: int) -> Start:
        full = kt.empirical_ntk(model, some.x[:FULL], dtype=torch.float64)
        parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
        return cls(parameters, seen(model, some, unseen), float(kt.eigensystem(full).values[-1]))

    def stability(self, model: nn.Module, x: Tensor) -> float:
        """C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min(Θ_0) on those few."""
        here = {name: value.detach().clone() for name, value in model.named_parameters()}
        moved = kt.empirical_ntk(Moved(model, self.parameters, here), x[:FULL])
        return observables.jacobian_stability(float(kt.eigensystem(moved).values[0]) ** 0.5, self.smallest)


def seen(model: nn.Module, some: Task, unseen: int) -> np.ndarray:
    """The mean kernel on all training points and so many unseen ones."""
    return np.asarray(mean_kernel(model, torch.cat([some.x, some.unseen[:unseen]])))


def regression(kernel: np.ndarray, some: Task) -> float:
    """The share of unseen images that kernel regression without ridge has right."""
    count = len(some.x)
    pairs = kt.eigensystem(kernel[:count, :count])
    predicted = kernel_regression(kernel[count:, :count], pairs, some.y.double().numpy(), ridge=0.0)
    return float(np.mean(predicted.argmax(axis=1) == some.labels[: len(predicted)].numpy()))


def run(
    difficulty: Difficulty, multiplier: float, seed: int, *, source: Source, train: int, test: int, epochs: int, batch: int,
    share: float, unseen: int,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one network.

    Args:
        difficulty: of the task.
        multiplier: c of all widths.
        seed: of images, initialisation and minibatches.
        source: of the images.
        train: N.
        test: unseen images.
        epochs: of both trainings.
        batch: of a minibatch.
        share: η as a share of the stable rate of Θ_0.
        unseen: images on which kernel regression is judged.
    """
    some = task(source, difficulty, train, test, seed)
    torch.manual_seed(seed)
    model = lenet(multiplier, some.x.shape[-1], some.outputs)
    start = Start.of(model, some, unseen)
    sgd = Sgd(share * stable_rate(torch.tensor(start.kernel[:train, :train])), batch)
    found = both(model, some, sgd, epochs, seed)
    kernel = seen(model, some, unseen)
    return {
        "difficulty": difficulty,
        "multiplier": multiplier,
        "seed": seed,
        "rate": sgd.rate,
        **found,
        "change": observables.relative_kernel_change(kernel[:train, :train], start.kernel[:train, :train]),
        "cosine": observables.cosine(kernel[:train, :train], start.kernel[:train, :train]),
        "constant": start.stability(model, some.x),
        "smallest": start.smallest,
        "regression_start": regression(start.kernel, some),
        "regression_end": regression(kernel, some),
    }
