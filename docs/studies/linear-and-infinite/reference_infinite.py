"""Ensembles of finite networks beside the infinitely wide one, trained alike: full-batch descent, as many updates.

Infinite width knows the mean over initialisations, Θ_∞(x, X) Σ_i w(λ_i) v_i ⟨v_i, y⟩, and their covariance (Lee et al. 2019, arXiv
1902.06720). Networks learn in three ways: *plain*, f; *centred*, f(x; θ) − f(x; θ_0), whose limit is the mean itself; and
*decayed*, f with θ ← (1 − s)θ after every update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from digit_images import CLASSES, Images
from linear_descent import updates_to
from squares_by_sgd import Learner, Sgd, stable_rate
from torch import Tensor
from wide_networks import mlp

import kerneltrack as kt
from kerneltrack import regression

Variant = Literal["plain", "centred", "decayed"]
VARIANTS: tuple[Variant, ...] = ("plain", "centred", "decayed")
#: weight layers of the networks; and those of the control's limit
DEPTH, FOREIGN = 3, 2
#: one choice of images: networks differ by their start alone
_SEED = 0
#: moments at which a ridge takes the place of time, in units of the networks' own
MOMENTS = (1 / 16, 1 / 4, 1, 4, 16)


@dataclass(frozen=True)
class Task:
    """Digits on a sphere (:class:`squares_by_sgd.Points`), and others.

    Attributes:
        x: (N, D).
        y: (N, 10).
        new: (M, D).
        labels: (M,).
    """

    x: Tensor
    y: Tensor
    new: Tensor
    labels: np.ndarray

    @classmethod
    def of(cls, train: int, held_out: int) -> Task:
        images = Images.load("digits", _SEED)[: train + held_out]
        x = images.on_sphere(images[:train].pixels.mean(axis=0)).flatten(1)
        return cls(x[:train], images.targets[:train], x[train:], images.labels[train:])

    @property
    def points(self) -> Tensor:
        """(N + M, D) in float64."""
        return torch.cat([self.x, self.new]).double()

    def accuracy(self, outputs: np.ndarray) -> float:
        """Of outputs (M, 10) at the others."""
        return float(np.mean(outputs.argmax(axis=1) == self.labels))


@dataclass(frozen=True)
class Limit:
    """Descent on the mean of ½‖f − y‖² in the infinitely wide network.

    Attributes:
        cross: (M, N) Θ_∞(x', X).
        pairs: the eigensystem of Θ_∞(X, X).
        rate: η/N.
        updates: after which the loss of the function 0 is down to a share of its start.
    """

    cross: np.ndarray
    pairs: kt.EigenSystem
    rate: float
    updates: int

    @classmethod
    def of(cls, task: Task, level: float, depth: int = DEPTH) -> Limit:
        theta, n = kt.analytic.relu_ntk(task.points, depth=depth), len(task.x)
        pairs, rate = kt.eigensystem(theta[:n, :n]), 0.25 * stable_rate(theta[:n, :n]) / n
        squares = ((pairs.vectors.T @ task.y.double().numpy()) ** 2).sum(axis=1)
        return cls(theta[n:, :n].numpy(), pairs, rate, updates_to(level, pairs.values, squares, rate))

    def mean(self, task: Task, updates: float | None = None) -> np.ndarray:
        """(M, 10) after its own number of updates, or after so many; ∞ is the end."""
        updates = self.updates if updates is None else updates
        y = task.y.double().numpy()
        if np.isinf(updates):
            return regression.kernel_regression(self.cross, self.pairs, y, ridge=0.0)
        filters = regression.descent_filter(self.pairs.values, self.rate, round(updates))
        return regression.trained(self.cross, self.pairs, y, filters)

    def ridge(self, task: Task, updates: float) -> np.ndarray:
        """(M, 10) of ridge regression with γ = N/(ηk)."""
        y = task.y.double().numpy()
        return regression.kernel_regression(self.cross, self.pairs, y, ridge=1 / (self.rate * updates))

    def variance(self, task: Task) -> float:
        """Of one output of plain networks over initialisations, the mean over points."""
        nngp, n = kt.analytic.relu_nngp(task.points, depth=DEPTH).numpy(), len(task.x)
        filters = regression.descent_filter(self.pairs.values, self.rate, self.updates)
        priors = nngp[n:, n:], nngp[:n, n:], nngp[:n, :n]
        return float(np.diag(regression.ensemble_covariance(self.cross, self.pairs, filters, priors)).mean())


def limit_numbers(train: int, held_out: int, level: float) -> dict[str, Any]:
    """Those of infinite width."""
    task = Task.of(train, held_out)
    limit = Limit.of(task, level)
    nngp = kt.analytic.relu_nngp(task.points, depth=DEPTH).numpy()
    pairs, y = kt.eigensystem(nngp[:train, :train]), task.y.double().numpy()
    end, own = limit.mean(task, np.inf), limit.mean(task)
    moments = [max(1, round(moment * limit.updates)) for moment in MOMENTS]
    return {
        "kind": "limit",
        "updates": limit.updates,
        "size": float(np.sqrt(np.mean(own**2))),
        "variance": limit.variance(task),
        "accuracies": {
            "Θ_∞, as long": task.accuracy(own),
            "Θ_∞, to the end": task.accuracy(end),
            "NNGP": task.accuracy(regression.kernel_regression(nngp[train:, :train], pairs, y, ridge=0.0)),
        },
        "moments": moments,
        "ridge": [apart(limit.ridge(task, k), limit.mean(task, k)) for k in moments],
        "end": [apart(end, limit.mean(task, k)) for k in moments],
    }


def apart(told: np.ndarray, real: np.ndarray) -> float:
    """‖told − real‖/‖real‖."""
    return float(np.linalg.norm(told - real) / np.linalg.norm(real))


def outputs(task: Task, limit: Limit, variant: Variant, width: int, seed: int, decay: float) -> np.ndarray:
    """(M, 10) of one network at the others, trained for as long as the limit.

    Args:
        task: what it learns.
        limit: with the rate and the number of updates.
        variant: how.
        width: of both hidden layers.
        seed: of its start.
        decay: Σ s over all updates, where they decay.
    """
    torch.manual_seed(seed)
    network = mlp("ntk", "relu", width, task.x.shape[1], CLASSES)
    learner = Learner(network)
    predict = learner if variant == "centred" else network
    parameters, generator = list(network.parameters()), torch.Generator()
    sgd = Sgd(limit.rate * len(task.x), len(task.x))
    for _ in range(limit.updates):
        sgd.epoch(predict, parameters, task, generator)
        if variant == "decayed":
            for parameter in parameters:
                parameter.data.mul_(1 - decay / limit.updates)
    with torch.no_grad():
        return np.asarray(predict(task.new).double())


def ensemble(train: int, held_out: int, level: float, width: int, seeds: Sequence[int], decay: float) -> dict[str, Any]:
    """The numbers of the ensembles of all variants; arguments as :func:`limit_numbers` and :func:`outputs`."""
    task = Task.of(train, held_out)
    limit, foreign = Limit.of(task, level), Limit.of(task, level, FOREIGN)
    wanted, other = limit.mean(task), foreign.mean(task)
    found: dict[str, Any] = {"kind": "ensemble", "width": width, "seeds": list(seeds)}
    for variant in VARIANTS:
        members = np.stack([outputs(task, limit, variant, width, seed, decay) for seed in seeds])
        mean = members.mean(axis=0)
        found[variant] = {
            "departure": apart(mean, wanted),
            "foreign": apart(mean, other),
            "single": [apart(member, wanted) for member in members],
            "variance": float(members.var(axis=0, ddof=1).mean()),
            "accuracy": task.accuracy(mean),
            "accuracies": [task.accuracy(member) for member in members],
        }
    return found
