"""One network beside its linearisation: the same start, rate and minibatches; then what the kernel did meanwhile.

f_lin(x; θ) = f(x; θ_0) + J(x; θ_0)(θ − θ_0)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from image_networks import build
from squares_by_sgd import Predict, Task, mean_kernel, stable_rate
from torch import Tensor, nn
from wide_networks import Moved

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.regression import kernel_regression

#: γ of kernel regression, over the mean of Θ(x, x)
RIDGE = 1e-3


@dataclass(frozen=True)
class Learned:
    """A function after training, and its numbers.

    Attributes:
        predict: the function at the parameters it ended at.
        epochs: that it took.
        loss: mean ½‖f − y‖² on the training points, over that of the function ½‖y‖².
    """

    predict: Predict
    epochs: int
    loss: float

    @torch.no_grad()
    def outputs(self, x: Tensor) -> np.ndarray:
        """(N, O) in float64, a few hundred at a time."""
        return np.concatenate([np.asarray(self.predict(rows).double()) for rows in x.split(250)])

    def numbers(self, task: Task) -> dict[str, Any]:
        seen = accuracy(self.outputs(task.x), task.y.argmax(dim=1))
        return {"unseen": accuracy(self.outputs(task.unseen), task.labels), "seen": seen, "loss": self.loss,
                "epochs": self.epochs}  # fmt: skip


def accuracy(outputs: np.ndarray, labels: Tensor) -> float:
    return float(np.mean(outputs.argmax(axis=1) == labels.numpy()))


@dataclass(frozen=True)
class Descent:
    """Heavy ball on the mean of ½‖f − y‖² over minibatches, with torch's own optimizer.

    Attributes:
        rate: η.
        batch: samples of a minibatch.
        epochs: at most.
        level: of ‖f − y‖²/‖y‖² on the training points, at which it ends earlier.
        momentum: β.
    """

    rate: float
    batch: int
    epochs: int
    level: float
    momentum: float = 0.9

    def learn(self, predict: Predict, parameters: list[Tensor], task: Task, seed: int) -> Learned:
        """Changes the parameters in place; whoever is given the same seed sees the same minibatches.

        Raises:
            RuntimeError: the loss is not finite.
        """
        optimizer = torch.optim.SGD(parameters, lr=self.rate, momentum=self.momentum)
        generator, done = torch.Generator().manual_seed(seed), 0
        while done < self.epochs and loss_of(predict, task) > self.level:
            for rows in torch.randperm(len(task.x), generator=generator).split(self.batch):
                optimizer.zero_grad()
                (0.5 * (predict(task.x[rows]) - task.y[rows]).square().sum(dim=1).mean()).backward()
                optimizer.step()
            done += 1
        loss = loss_of(predict, task)
        if not np.isfinite(loss):
            raise RuntimeError(f"descent at η = {self.rate:g} diverged; take a smaller rate")
        return Learned(predict, done, loss)


@torch.no_grad()
def loss_of(predict: Predict, task: Task) -> float:
    """‖f − y‖²/‖y‖² on the training points."""
    squares = sum(
        float((predict(x) - y).square().sum()) for x, y in zip(task.x.split(250), task.y.split(250), strict=True)
    )
    return squares / float(task.y.square().sum())


def linearised(network: nn.Module) -> tuple[Predict, dict[str, Tensor]]:
    """f_lin at the network's present parameters, and the leaves by name that it is a function of: θ, now θ_0."""
    linear = kt.linearize(network)
    theta = {
        name: value.detach().clone().requires_grad_()
        for name, value in network.named_parameters()
        if value.requires_grad
    }
    return (lambda x: linear(x, theta)), theta


def compared(network: nn.Module, task: Task, descent: Descent, seed: int) -> dict[str, Any]:
    """The network and its linearisation, trained alike, and how far the network's own weights lead the linear function.

    Returns:
        ``net``, ``lin``: accuracies, loss and epochs; ``anchored``: ‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖² on unseen points, θ_T
        the trained network's; ``seconds`` of both.
    """
    linear, theta = linearised(network)
    anchor, start = kt.linearize(network), Learned(_still(network), 0, 1.0).outputs(task.unseen)
    began = time.perf_counter()
    net = descent.learn(network, [p for p in network.parameters() if p.requires_grad], task, seed)
    half = time.perf_counter()
    lin = descent.learn(linear, list(theta.values()), task, seed)
    seconds = [round(half - began, 2), round(time.perf_counter() - half, 2)]
    foretold = Learned(anchor, 0, 1.0).outputs(task.unseen) - start
    anchored = observables.relative_squared_error(foretold, net.outputs(task.unseen) - start)
    return {"net": net.numbers(task), "lin": lin.numbers(task), "anchored": anchored, "seconds": seconds}


def _still(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: network(x).detach()


class Watch:
    """The kernel at the start, to be compared with that after training.

    Args:
        network: at its start.
        task: what it will learn.
        probe: training points of (1/O) Σ_o Θ_oo.
        few: of them, those of the full kernel, for C'.
        others: unseen points on which kernel regression is tried.
    """

    def __init__(self, network: nn.Module, task: Task, probe: int, few: int, others: int) -> None:
        self._x, self._few = task.x[:probe], task.x[:few]
        self._task, self._others = task, others
        self._start = {name: value.detach().clone() for name, value in network.named_parameters()}
        self._kernel, self._regressed = self.mean(network), self.regressed(network)
        full = kt.empirical_ntk(network, self._few, output="full").double()
        rows = full.shape[0] * full.shape[2]
        self._smallest = float(torch.linalg.eigvalsh(full.transpose(1, 2).reshape(rows, rows))[0])

    def mean(self, network: nn.Module) -> np.ndarray:
        return np.asarray(mean_kernel(network, self._x))

    def regressed(self, network: nn.Module) -> float:
        """Share of unseen points that kernel regression with this network's kernel has right."""
        unseen, n = self._task.unseen[: self._others], len(self._x)
        kernel = mean_kernel(network, torch.cat([self._x, unseen]), self._x).numpy()
        pairs = kt.eigensystem(kernel[:n])
        y = self._task.y[:n].double().numpy()
        found = kernel_regression(kernel[n:], pairs, y, ridge=RIDGE * float(pairs.trace) / n)
        return accuracy(found, self._task.labels[: self._others])

    def ended(self, network: nn.Module) -> dict[str, Any]:
        """The kernel after training against that at the start.

        Returns:
            ``change`` ‖ΔΘ‖/‖Θ‖, ``cosine``, ``stability`` C' = 3‖ΔJ‖₂/√λ_min(Θ_0), ``smallest`` λ_min(Θ_0), ``regressed``
            with the kernel of the start, and with that of now.
        """
        kernel = self.mean(network)
        here = {name: value.detach() for name, value in network.named_parameters()}
        moved = kt.eigensystem(kt.empirical_ntk(Moved(network, self._start, here), self._few, method="jacobian"))
        return {
            "change": observables.relative_kernel_change(kernel, self._kernel),
            "cosine": observables.cosine(kernel, self._kernel),
            "stability": observables.jacobian_stability(max(float(moved.values[0]), 0.0) ** 0.5, self._smallest),
            "smallest": self._smallest,
            "regressed": [self._regressed, self.regressed(network)],
        }


def run(
    name: str, task: Task, multiplier: float, seed: int, *, probe: int, few: int, others: int, batch: int, share: float,
    epochs: int, level: float,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one network.

    Args:
        name: of the network.
        task: what it learns.
        multiplier: c, of its widths.
        seed: of its start and the minibatches.
        probe: training points on which kernels are compared.
        few: of them, those of C'.
        others: unseen points of kernel regression.
        batch: of a minibatch.
        share: η as a share of 2N/λ_1(Θ_0).
        epochs: at most.
        level: of the first loss, at which training ends.
    """
    network = build(name, multiplier, task.x, task.y.shape[1], seed)
    watch = Watch(network, task, probe, few, others)
    descent = Descent(share * stable_rate(mean_kernel(network, task.x[:probe])), batch, epochs, level)
    found = compared(network, task, descent, seed)
    size = sum(parameter.numel() for parameter in network.parameters())
    return {
        "multiplier": multiplier,
        "seed": seed,
        "parameters": size,
        "rate": descent.rate,
        **found,
        **watch.ended(network),
    }
