"""A network and its linearisations on targets of known difficulty: the signs of its own kernel's eigenfunctions.

Three learn the same target by the same minibatches: the network, f(x; θ) − f(x; θ_0); the network linearised at θ_0; and that
linearised at θ_T, where the first one's training has ended. A linear model is trained by its kernel alone, without parameters:

    u ← βu + Θ(·, B) r_B/|B|,   f ← f − ηu          is   v ← βv + J_Bᵀr_B/|B|,   θ ← θ − ηv   seen through J
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from digit_images import Images
from squares_by_sgd import Learner, stable_rate
from torch import Tensor, nn
from wide_networks import mlp

import kerneltrack as kt
from kerneltrack import observables


@dataclass(frozen=True)
class Momentum:
    """Minibatch descent with heavy-ball momentum on the mean of ½(f − y)².

    Attributes:
        share: η as a share of 2N/λ_1 of the kernel that training starts from.
        beta: β.
        batch: samples of a minibatch.
        epochs: passes over all samples.
    """

    share: float = 0.25
    beta: float = 0.9
    batch: int = 64
    epochs: int = 60

    def minibatches(self, count: int, seed: int) -> Iterator[Tensor]:
        """Rows, epoch after epoch, in an order of the seed."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.epochs):
            yield from torch.randperm(count, generator=generator).split(self.batch)


def train_network(learner: Learner, x: Tensor, y: Tensor, rate: float, momentum: Momentum, seed: int) -> None:
    """θ of f(x; θ) − f(x; θ_0).

    Raises:
        RuntimeError: outputs that are not finite.
    """
    optimizer = torch.optim.SGD(learner.network.parameters(), lr=rate, momentum=momentum.beta)
    for rows in momentum.minibatches(len(x), seed):
        optimizer.zero_grad()
        loss = (learner(x[rows]) - y[rows]).square().mean() / 2
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"descent at η = {rate:g} diverged; take a smaller share")
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own method is untyped
        optimizer.step()


def train_linear(kernel: Tensor, y: Tensor, rate: float, momentum: Momentum, seed: int) -> Tensor:
    """(all, 1) outputs of the linear model with a kernel (all, all), from 0, trained on its first points: targets y (N, 1)."""
    outputs, moving = (torch.zeros(len(kernel), 1, dtype=kernel.dtype) for _ in range(2))
    for rows in momentum.minibatches(len(y), seed):
        moving = momentum.beta * moving + kernel[rows].T @ (outputs[rows] - y[rows]) / len(rows)
        outputs = outputs - rate * moving
    return outputs


@dataclass(frozen=True)
class Targets:
    """The signs of a kernel's eigenvectors on all points, those that are trained on and those held out.

    Not of eigenfunctions extended from the former by Nyström: they are of the kernel's own making, and it would foretell them
    best.

    Attributes:
        pairs: the eigensystem of Θ_0 on all points.
    """

    pairs: kt.EigenSystem

    def sign(self, mode: int) -> Tensor:
        """(all, 1) of the k-th eigenvector, k from 1."""
        return torch.tensor(np.where(self.pairs.vectors[:, mode - 1 : mode] > 0, 1.0, -1.0))

    def along(self, kernel: Tensor, watched: int) -> list[float]:
        """v_iᵀΘv_i/λ_i along the leading eigenvectors of Θ_0: 1 for Θ_0 itself."""
        vectors = self.pairs.vectors[:, :watched]
        inner = np.sum(vectors * (kernel.numpy() @ vectors), axis=0)
        return [float(f"{value:.5g}") for value in inner / self.pairs.values[:watched]]


def tangent(network: nn.Module, x: Tensor) -> Tensor:
    """(all, all) Θ."""
    return kt.empirical_ntk(network, x)[:, :, 0, 0]


def run(
    train: int, held_out: int, width: int, modes: Sequence[int], watched: int, seed: int, momentum: Momentum
) -> dict[str, Any]:
    """The numbers of all targets of one network.

    Args:
        train: digits to train on.
        held_out: others.
        width: of both hidden layers.
        modes: k of the targets.
        watched: leading modes of Θ_0 along which the trained kernel is looked at.
        seed: of images, start and minibatches.
        momentum: how all learn.
    """
    images = Images.load("digits", seed)[: train + held_out]
    x = images.on_sphere(images[:train].pixels.mean(axis=0)).flatten(1).double()
    torch.manual_seed(seed)
    start = mlp("ntk", "relu", width, x.shape[1]).double()
    kernel = tangent(start, x)
    targets, rate = Targets(kt.eigensystem(kernel)), momentum.share * stable_rate(kernel[:train, :train])
    parts = slice(train), slice(train, None)
    trained: dict[int, Tensor] = {}
    found: dict[int, dict[str, Any]] = {}
    for mode in modes:
        learner, y = Learner(copy.deepcopy(start)), targets.sign(mode)
        train_network(learner, x[:train], y[:train], rate, momentum, seed)
        trained[mode] = tangent(learner.network, x)
        found[mode] = {
            "mode": mode,
            "network": accuracies(torch.tensor(learner.outputs(x)), y, train),
            "start": learned(kernel, y, train, momentum, seed),
            "cosines": [[_cosine(k[part, part], y[part]) for part in parts] for k in (kernel, trained[mode])],
            "along": targets.along(trained[mode], watched),
        }
    for place, mode in enumerate(modes):
        for name, of in (("trained", mode), ("foreign", modes[place - 1])):
            found[mode][name] = learned(trained[of], targets.sign(mode), train, momentum, seed)
    return {"kind": "targets", "seed": seed, "width": width, "targets": list(found.values())}


def learned(kernel: Tensor, y: Tensor, train: int, momentum: Momentum, seed: int) -> list[float]:
    """Accuracy on training and on held-out points of the linear model with that kernel."""
    rate = momentum.share * stable_rate(kernel[:train, :train])
    return accuracies(train_linear(kernel, y[:train], rate, momentum, seed), y, train)


def accuracies(outputs: Tensor, y: Tensor, train: int) -> list[float]:
    """The share of right signs on training and on held-out points."""
    right = ((outputs > 0) == (y > 0)).double()
    return [float(right[:train].mean()), float(right[train:].mean())]


def _cosine(kernel: Tensor, y: Tensor) -> float:
    """yᵀΘy/(‖y‖²‖Θ‖_F)."""
    return observables.cosine(kernel.numpy(), (y @ y.T).numpy())
