"""One network, and what kernels of it foretell at some moments of its training: its last layer's, and its tangent kernel.

    K = φφᵀ (+ 11ᵀ, what a bias of the readout adds)        Θ = K + 11ᵀ + (what the layers below add)

Each learns the task alone, from zero: ridge regression, or its logistic twin, with the ridge that serves other points best. (By
the training points themselves a trained kernel would choose too small a one: it has seen their labels.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from conjugate_tasks import Loss, Task
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.errors import ObservableError
from kerneltrack.regression import CrossEntropy, Through, kernel_newton, kernel_regression

#: γ in units of tr K/N; of the logistic loss, a mean, in those of tr K/N²
RIDGES: dict[Loss, np.ndarray] = {"squares": np.logspace(-12, 0, 13), "logistic": np.logspace(-5, 1, 7)}
#: the first mode of the window in which a spectrum's decay is read; the last is N/4
FIRST_MODE = 5
#: orthonormal: a function z is the pair of logits (z, −z)/√2, whose difference is √2 z
_PAIR = np.array([[1.0], [-1.0]]) / np.sqrt(2)


def mlp(inputs: int, width: int) -> nn.Sequential:
    """Three hidden layers of ReLU, one output; weights and biases as PyTorch draws them, in float64."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([inputs, width, width, width, 1]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def conjugate(network: nn.Sequential, x: Tensor, train: int) -> np.ndarray:
    """(all, N) φ(x)·φ(X), φ the inputs of the readout."""
    with torch.no_grad():
        features = network[:-1](x)
        return np.asarray(features @ features[:train].T)


def tangent(network: nn.Module, x: Tensor, train: int, params: Sequence[str] | None = None) -> np.ndarray:
    """(all, N) Θ(x, X); of some parameters only, if they are named."""
    return np.asarray(kt.empirical_ntk(network, x, x[:train], params=params)[:, :, 0, 0])


def gaussian(x: Tensor, train: int) -> np.ndarray:
    """(all, N) exp(−‖x − x'‖²/2s²), s the median distance of training points."""
    distances = torch.cdist(x, x[:train])
    scale = torch.pdist(x[:train]).median()
    return np.asarray((-(distances**2) / (2 * scale**2)).exp())


def mean_loss(task: Task, outputs: np.ndarray, part: slice) -> float:
    """Of outputs (M, 1) at the points of a part."""
    y = task.y[part].numpy()
    return float(np.mean((outputs - y) ** 2) / 2 if task.loss == "squares" else np.mean(np.logaddexp(0, -y * outputs)))


@dataclass(frozen=True)
class Machine:
    """A kernel that learns a task.

    Attributes:
        kernel: (all, N).
        pairs: the eigensystem of its training rows.
    """

    kernel: np.ndarray
    pairs: kt.EigenSystem

    @classmethod
    def of(cls, kernel: np.ndarray, task: Task) -> Machine:
        return cls(kernel, kt.eigensystem(kernel[task.train]))

    def outputs(self, task: Task, ridge: float) -> np.ndarray:
        """(all, 1), trained with γ = ``ridge`` in units of tr K/N, or of tr K/N² where the loss is logistic."""
        y, unit = task.y[task.train].numpy(), self.pairs.trace / len(self.pairs.values)
        if task.loss == "squares":
            return kernel_regression(self.kernel, self.pairs, y, ridge=ridge * unit)
        loss = Through(CrossEntropy(np.hstack([1 + y, 1 - y]) / 2), _PAIR)
        alpha = kernel_newton(self.pairs, np.zeros_like(y), loss, ridge=ridge * unit / len(y))
        return np.asarray(np.sqrt(2) * self.kernel @ alpha)

    def best(self, task: Task) -> tuple[float, float]:
        """The loss on held-out points, and the ridge, which is the best on the points that choose it."""
        tried = [(self.outputs(task, ridge), ridge) for ridge in RIDGES[task.loss]]
        outputs, ridge = min(tried, key=lambda one: mean_loss(task, one[0][task.choosing], task.choosing))
        return mean_loss(task, outputs[task.held_out], task.held_out), float(ridge)

    @property
    def exponent(self) -> float | None:
        """a of λ_i ∝ i^{−a} from mode :data:`FIRST_MODE` to N/4; None where fewer are above rounding."""
        last = len(self.pairs.values) // 4
        if self.rank < last:
            return None
        try:
            return observables.decay_exponent(self.pairs.values, FIRST_MODE, last)
        except ObservableError:
            return None

    @property
    def rank(self) -> int:
        """How many eigenvalues are above rounding."""
        return int(np.sum(self.pairs.values > self.pairs.noise_floor))

    def numbers(self, task: Task) -> dict[str, Any]:
        loss, ridge = self.best(task)
        return {"loss": loss, "ridge": ridge, "exponent": self.exponent, "rank": self.rank}


def train(network: nn.Module, task: Task, moments: Sequence[int], rate: float) -> Iterator[int]:
    """Adam on all training points; stops after each of the numbers of updates, which rise."""
    x, y = task.x[task.train], task.y[task.train]
    optimizer, made = torch.optim.Adam(network.parameters(), lr=rate), 0
    for moment in moments:
        for _ in range(moment - made):
            optimizer.zero_grad()
            f = network(x)
            loss = (f - y).square().mean() / 2 if task.loss == "squares" else nn.functional.softplus(-y * f).mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own method is untyped
            optimizer.step()
        made = moment
        yield moment


def moment_numbers(network: nn.Sequential, task: Task) -> dict[str, Any]:
    """The network's own loss on held-out points, those of its kernels, and what makes one of Θ and K the larger."""
    count = task.sizes[0]
    (own, own_seconds), (theta, seconds) = (_timed(kind, network, task.x, count) for kind in (conjugate, tangent))
    machines = {"K": own, "K + 1": own + 1, "Θ": theta}
    with torch.no_grad():
        loss = mean_loss(task, network(task.x[task.held_out]).numpy(), task.held_out)
    rest = np.linalg.eigvalsh(theta[task.train] - own[task.train] - 1)
    return {
        "network": loss,
        **{name: Machine.of(kernel, task).numbers(task) for name, kernel in machines.items()},
        "share": float((np.trace(own[task.train]) + count) / np.trace(theta[task.train])),
        "least": float(rest[0] / rest[-1]),
        "seconds": [own_seconds, seconds],
    }


def _timed(kind: Callable[..., np.ndarray], *given: Any) -> tuple[np.ndarray, float]:
    began = time.perf_counter()
    kernel = kind(*given)
    return kernel, time.perf_counter() - began


def run(task: Task, width: int, seed: int, moments: Sequence[int], rate: float) -> dict[str, Any]:
    """The numbers of one network.

    Args:
        task: what it learns.
        width: of its three hidden layers.
        seed: of its initialisation.
        moments: numbers of updates after which kernels are taken.
        rate: of Adam.
    """
    torch.manual_seed(seed)
    network = mlp(task.x.shape[1], width)
    found = [moment_numbers(network, task) for _ in train(network, task, moments, rate)]
    alone = tangent(network, task.x, task.sizes[0], ["6.weight", "6.bias"])
    return {
        "width": width,
        "seed": seed,
        "moments": found,
        "readout": Machine.of(alone, task).best(task)[0],
        "gaussian": Machine.of(gaussian(task.x, task.sizes[0]), task).numbers(task),
    }
