"""Minibatch descent on squares, of any function that is differentiable in some tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

import kerneltrack as kt

Predict = Callable[[Tensor], Tensor]
State = dict[str, Tensor]


class Points(Protocol):
    """Inputs (N, …) and targets (N, O)."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Task:
    """Training points (:class:`Points`), and others to be right on.

    Attributes:
        x: (N, …).
        y: (N, O).
        unseen: (N', …).
        labels: (N',) of the unseen ones.
    """

    x: Tensor
    y: Tensor
    unseen: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Sgd:
    """θ ← θ − η ∇ mean ½‖f(x) − y‖², the mean over a minibatch.

    Attributes:
        rate: η.
        batch: samples of a minibatch; every sample is in one minibatch of an epoch.
    """

    rate: float
    batch: int

    def epoch(self, predict: Predict, parameters: Iterable[Tensor], points: Points, generator: torch.Generator) -> int:
        """All samples once, in an order of the generator. Returns the number of updates.

        Raises:
            RuntimeError: outputs that are not finite.
        """
        leaves, order = list(parameters), torch.randperm(len(points.x), generator=generator)
        minibatches = order.split(self.batch)
        for rows in minibatches:
            outputs = predict(points.x[rows])
            residual = (outputs - points.y[rows]).detach() / len(rows)
            if not bool(torch.isfinite(residual).all()):
                raise RuntimeError(f"descent at η = {self.rate:g} diverged; take a smaller rate")
            for leaf, change in zip(leaves, torch.autograd.grad(outputs, leaves, residual), strict=True):
                leaf.data.sub_(change, alpha=self.rate)
        return len(minibatches)


class Learner:
    """f(x; θ) − f(x; θ_0): the function that was learned, 0 at the start. Its kernel is that of f."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self._start = network, copy.deepcopy(network).requires_grad_(False)

    def __call__(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x) - self._start(x)
        return outputs

    @property
    def state(self) -> State:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    @torch.no_grad()
    def outputs(self, x: Tensor) -> np.ndarray:
        return np.asarray(self(x).double())

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        return float(np.mean(self.outputs(x).argmax(axis=1) == labels.numpy()))


def mean_kernel(model: nn.Module, x: Tensor, other: Tensor | None = None) -> Tensor:
    """(N, N') (1/O) Σ_o Θ_oo in float64: the k for which k ⊗ I_O is nearest to Θ."""
    outputs = model(x[:1]).shape[1]
    return kt.empirical_ntk(model, x, other, output="trace").double() / outputs


def stable_rate(kernel: Tensor) -> float:
    """2N/λ_1: above it full-batch descent on the mean of ½‖f − y‖² grows in the linear model."""
    return 2 * len(kernel) / float(torch.linalg.eigvalsh(kernel)[-1])
