"""What a network's tangent kernel says of its uncertainty, before and after training; and what infinite width says of ensembles.

A network linearised at θ has outputs f + J(θ' − θ). With a prior θ' ~ N(θ_p, I/δ) and noise σ² they are a Gaussian process with
covariance Θ/δ and mean f + J(θ_p − θ):

- **at the start**, θ_p = θ = θ_0: the NTK-GP; δ = 1 is what the initialisation prescribes;
- **trained**, θ = θ_T and θ_p = 0: the Laplace approximation at θ_T.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from linear_descent import updates_to
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr
from torch import Tensor, nn
from uncertain_tasks import Task
from wide_networks import mlp

import kerneltrack as kt
from kerneltrack import regression
from kerneltrack.regression import Posterior

#: weight layers of the networks
DEPTH = 3
#: σ² is looked for between these multiples of the mean square of the targets
_NOISE = (1e-8, 1e2)
#: of the mean of Θ_0(x, x): the noise of the targets that are drawn from the prior
_DRAWN_NOISE = 0.1


@dataclass(frozen=True)
class Process:
    """A Gaussian process on a task's points.

    Attributes:
        covariance: (N + M, N + M) Θ, of training and held-out points.
        mean: (N + M, 1) f + J(θ_p − θ).
        samples: N.
    """

    covariance: np.ndarray
    mean: np.ndarray
    samples: int

    @classmethod
    def of(cls, model: nn.Module, task: Task, *, prior: dict[str, Tensor]) -> Process:
        """Of the network linearised at its present parameters, whose prior is centred at ``prior``, θ_p by name."""
        theta = kt.empirical_ntk(model, task.points)[:, :, 0, 0].numpy()
        return cls(theta, linearised_mean(model, task.points, prior), len(task.x))

    def posterior(self, y: np.ndarray, *, noise: float, precision: float) -> Posterior:
        """At the held-out points, of y (N, 1)."""
        n, theta = self.samples, self.covariance
        priors = self.mean[n:], self.mean[:n]
        new = theta[n:, :n], np.diag(theta)[n:]
        return regression.posterior(*new, self.pairs, y, noise=noise, precision=precision, offset=priors)

    def evident(self, y: np.ndarray) -> tuple[float, float]:
        """δ and σ² of the largest evidence."""
        found = regression.most_evident(self.pairs, y - self.mean[: self.samples])
        return found.precision, found.noise

    def evident_noise(self, y: np.ndarray) -> float:
        """σ² of the largest evidence where δ = 1."""
        residual = y - self.mean[: self.samples]
        logs = np.log(np.array(_NOISE) * np.mean(residual**2))
        grid = np.linspace(*logs, 81)

        def missing(log_noise: float) -> float:
            return -regression.log_evidence(self.pairs, residual, noise=float(np.exp(log_noise)))

        place = int(np.argmin([missing(log_noise) for log_noise in grid]))
        between = grid[max(place - 1, 0)], grid[min(place + 1, 80)]
        return float(np.exp(minimize_scalar(missing, bounds=between, method="bounded").x))

    @cached_property
    def pairs(self) -> kt.EigenSystem:
        return kt.eigensystem(self.covariance[: self.samples, : self.samples])


def linearised_mean(model: nn.Module, x: Tensor, prior: dict[str, Tensor]) -> np.ndarray:
    """f(x) + J(x)(θ_p − θ) (N, 1), θ the model's present parameters."""
    here = {name: value.detach() for name, value in model.named_parameters()}
    step = {name: prior[name] - value for name, value in here.items()}
    outputs, change = torch.func.jvp(lambda theta: torch.func.functional_call(model, theta, x), (here,), (step,))
    return np.asarray((outputs + change).detach().numpy())


def scores(
    process: Process, y: np.ndarray, targets: np.ndarray, gap: np.ndarray, *, prescribed: bool
) -> dict[str, Any]:
    """How well a process foretells held-out points, with δ = 1 or with δ by evidence; σ² is by evidence either way.

    Returns:
        ``nll``, ``rmse``, ``calibration`` (z̄², the mean of (y − mean)²/(variance + σ²): 1 where it is calibrated), ``rank``
        (Spearman's, of variance and squared error), ``gap`` (variance in the gap over that at other held-out points; None
        without one), ``precision`` δ, ``noise`` σ², ``log_evidence`` with both.
    """
    precision, noise = (1.0, process.evident_noise(y)) if prescribed else process.evident(y)
    found = process.posterior(y, noise=noise, precision=precision)
    evidence = regression.log_evidence(
        process.pairs, y - process.mean[: process.samples], noise=noise, precision=precision
    )
    error = (targets - found.mean)[:, 0] ** 2
    return {
        "nll": found.negative_log_likelihood(targets, noise=noise),
        "rmse": float(np.sqrt(error.mean())),
        "calibration": float(np.mean(error / (found.variance + noise))),
        "rank": float(spearmanr(found.variance, error).statistic),
        "gap": float(found.variance[gap].mean() / found.variance[~gap].mean()) if gap.any() else None,
        "precision": precision,
        "noise": noise,
        "log_evidence": evidence,
    }


def both(process: Process, y: np.ndarray, targets: np.ndarray, gap: np.ndarray) -> dict[str, dict[str, Any]]:
    """The scores with δ = 1 and with δ by evidence."""
    return {
        name: scores(process, y, targets, gap, prescribed=name == "prescribed") for name in ("prescribed", "evidence")
    }


def drawn(process: Process, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N, 1) and (M, 1) that are a draw of the process with δ = 1, and noise."""
    rng, pairs = np.random.default_rng(seed), kt.eigensystem(process.covariance)
    roots = np.sqrt(np.maximum(pairs.values, 0.0) + _DRAWN_NOISE * np.diag(process.covariance).mean())
    y = process.mean + pairs.vectors @ (roots * rng.standard_normal(pairs.size))[:, None]
    return y[: process.samples], y[process.samples :]


@dataclass(frozen=True)
class Limit:
    """Gradient descent on the infinitely wide network, from all its initialisations.

    Attributes:
        rate: η/N = ½/λ_1(Θ_∞).
        updates: after which the loss of the function 0 is down to a share of its start.
        mean: (M,) over initialisations, at the held-out points.
        covariance: (M, M).
    """

    rate: float
    updates: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, task: Task, level: float) -> Limit:
        theta, nngp = (kind(task.points, depth=DEPTH).numpy() for kind in (kt.analytic.relu_ntk, kt.analytic.relu_nngp))
        n, y = len(task.x), task.y.numpy()
        pairs = kt.eigensystem(theta[:n, :n])
        rate = 0.5 / float(pairs.values[0])
        updates = updates_to(level, pairs.values, (pairs.vectors.T @ y)[:, 0] ** 2, rate)
        filters = regression.descent_filter(pairs.values, rate, updates)
        priors = nngp[n:, n:], nngp[:n, n:], nngp[:n, :n]
        mean = regression.trained(theta[n:, :n], pairs, y, filters)[:, 0]
        return cls(rate, updates, mean, regression.ensemble_covariance(theta[n:, :n], pairs, filters, priors))

    def numbers(self, task: Task, modes: int) -> dict[str, Any]:
        """What the page needs of it: the leading modes of the covariance, (modes, M) orthonormal, and their variances."""
        pairs = kt.eigensystem(self.covariance)
        return {
            "updates": self.updates,
            "targets": _short(task.targets.numpy()[:, 0]),
            "gap": task.gap.tolist(),
            "mean": _short(self.mean),
            "variance": _short(np.diag(self.covariance)),
            "modes": [_short(mode) for mode in pairs.vectors[:, :modes].T],
            "variances": pairs.values[:modes].tolist(),
        }


def train(model: nn.Module, x: Tensor, y: Tensor, *, rate: float, updates: int) -> float:
    """Full-batch gradient descent, θ ← θ − rate · Jᵀ(f − y), rate = η/N; the last loss as a share of the first.

    Raises:
        RuntimeError: the loss did not fall.
    """
    parameters, losses = list(model.parameters()), []
    for k in range(updates + 1):
        outputs = model(x)
        residual = (outputs - y).detach()
        losses.append(float(residual.square().sum()))
        if k == updates:
            break
        for parameter, change in zip(parameters, torch.autograd.grad(outputs, parameters, residual), strict=True):
            parameter.data.sub_(change, alpha=rate)
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"the loss went from {losses[0]:g} to {losses[-1]:g}; take a smaller rate")
    return losses[-1] / losses[0]


def network_numbers(task: Task, width: int, seed: int, level: float) -> dict[str, Any]:
    """The numbers of one network: its processes before and after training, its outputs, and targets drawn from its prior."""
    limit = Limit.of(task, level)
    torch.manual_seed(seed)
    network = mlp("ntk", "relu", width, task.x.shape[1]).double()
    here = {name: value.detach().clone() for name, value in network.named_parameters()}
    y, targets = task.y.numpy(), task.targets.numpy()
    start = Process.of(network, task, prior=here)
    own = drawn(start, seed)
    share = train(network, task.x, task.y, rate=limit.rate, updates=limit.updates)
    trained = Process.of(network, task, prior={name: torch.zeros_like(value) for name, value in here.items()})
    with torch.no_grad():
        outputs = network(task.new)[:, 0].numpy()
    return {
        "loss": share,
        "outputs": _short(outputs),
        "start": both(start, y, targets, task.gap),
        "trained": both(trained, y, targets, task.gap),
        "drawn": both(start, *own, task.gap),
    }


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
