"""Natural-gradient and gradient descent on squares, full batch, and what the kernel at the start says of both.

Natural gradient (Zhang, Martens and Grosse 2019, arXiv 1905.10961): θ ← θ − η Jᵀ(JJᵀ + γI)⁻¹(f − y). In a linear model and
with γ → 0 it takes the same share η off every mode of the residual; gradient descent at rate N/λ_1 on the mean of
½(f − y)² takes λ_i/λ_1 off mode i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from linear_descent import updates_to
from torch import Tensor, nn
from wide_networks import Moved

import kerneltrack as kt
from kerneltrack import observables

#: γ as a share of tr Θ/N: far below λ_min, far above rounding in float64
DAMPING = 1e-6
#: the residual that ends both, as a share of the first
LEVEL = 1e-3


@dataclass(frozen=True)
class Start:
    """The kernel where training starts.

    Attributes:
        values: (N,) eigenvalues of Θ_0, descending.
        squares: (N,) ⟨v_i, f_0 − y⟩².
        parameters: θ_0 by name.
    """

    values: np.ndarray
    squares: np.ndarray
    parameters: dict[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor) -> Start:
        pairs = kt.eigensystem(kernel(model, x))
        along = pairs.vectors.T @ residual(model, x, y).numpy()
        parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
        return cls(pairs.values, along**2, parameters)

    @property
    def condition(self) -> float:
        return float(self.values[0] / self.values[-1])

    @property
    def radius(self) -> float:
        """R = 3‖f_0 − y‖/√λ_min(Θ_0)."""
        return observables.stability_radius(np.sqrt(self.squares), float(self.values[-1]))

    def stability(self, model: nn.Module, x: Tensor) -> float:
        """C' = 3‖J(θ) − J(θ_0)‖₂/√λ_min(Θ_0) at the model's present θ."""
        here = {name: value.detach().clone() for name, value in model.named_parameters()}
        moved = kernel(Moved(model, self.parameters, here), x)
        return observables.jacobian_stability(float(kt.eigensystem(moved).values[0]) ** 0.5, float(self.values[-1]))

    def distance(self, model: nn.Module) -> float:
        """‖θ − θ_0‖."""
        squares = (float((p.detach() - self.parameters[name]).square().sum()) for name, p in model.named_parameters())
        return sum(squares) ** 0.5


@dataclass(frozen=True)
class Path:
    """A training.

    Attributes:
        norms: (K + 1,) ‖f_k − y‖ before each update, and after the last.
        constants: C' at some of the states.
        distances: ‖θ − θ_0‖ at the same states.
    """

    norms: list[float]
    constants: list[float]
    distances: list[float]

    @property
    def ratios(self) -> np.ndarray:
        """(K,) q_k = ‖r_{k+1}‖/‖r_k‖."""
        return np.array(self.norms[1:]) / np.array(self.norms[:-1])

    def updates_to(self, level: float = LEVEL) -> int | None:
        """The first k with ‖r_k‖ ≤ level ‖r_0‖; None if it was not reached."""
        return next((k for k, norm in enumerate(self.norms) if norm <= level * self.norms[0]), None)


def kernel(model: nn.Module, x: Tensor) -> Tensor:
    """(N, N) Θ of a network with one output."""
    theta = kt.empirical_ntk(model, x)
    return theta[:, :, 0, 0]


def residual(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) f − y."""
    with torch.no_grad():
        return (model(x) - y)[:, 0]


def _take(model: nn.Module, x: Tensor, along: Tensor, rate: float) -> None:
    """θ ← θ − rate · Jᵀ along."""
    parameters = list(model.parameters())
    step = torch.autograd.grad(model(x)[:, 0], parameters, along)
    with torch.no_grad():
        for parameter, change in zip(parameters, step, strict=True):
            parameter -= rate * change


def natural_update(model: nn.Module, x: Tensor, y: Tensor, rate: float, damping: float = DAMPING) -> None:
    """θ ← θ − η Jᵀ(JJᵀ + γI)⁻¹(f − y), γ = damping · tr Θ/N."""
    theta, r = kernel(model, x), residual(model, x, y)
    ridge = damping * torch.trace(theta) / len(theta)
    factor = torch.linalg.cholesky(theta + ridge * torch.eye(len(theta), dtype=theta.dtype))
    _take(model, x, torch.cholesky_solve(r[:, None], factor)[:, 0], rate)


def natural(
    model: nn.Module, x: Tensor, y: Tensor, start: Start, *, rate: float, updates: int, watched: Sequence[int]
) -> Path:
    """Natural-gradient descent; C' and the distance after the watched updates."""
    norms, constants, distances = [float(residual(model, x, y).norm())], [], []
    for k in range(1, updates + 1):
        natural_update(model, x, y, rate)
        norms.append(float(residual(model, x, y).norm()))
        if k in watched:
            constants.append(start.stability(model, x))
            distances.append(start.distance(model))
    return Path(norms, constants, distances)


def plain(model: nn.Module, x: Tensor, y: Tensor, start: Start, *, updates: int) -> Path:
    """Gradient descent at η = N/λ_1(Θ_0) until ‖r‖ is down to :data:`LEVEL`, or so many updates are made; C' at the end."""
    parameters, rate = list(model.parameters()), 1 / float(start.values[0])
    norms: list[float] = []
    for _ in range(updates + 1):
        outputs = model(x)[:, 0]
        r = (outputs - y[:, 0]).detach()
        norms.append(float(r.norm()))
        if norms[-1] <= LEVEL * norms[0] or len(norms) == updates + 1:
            break
        for parameter, change in zip(parameters, torch.autograd.grad(outputs, parameters, r), strict=True):
            parameter.data.sub_(change, alpha=rate)
    return Path(norms, [start.stability(model, x)], [start.distance(model)])


def linear_updates(start: Start, level: float = LEVEL) -> int:
    """How many updates gradient descent at η = N/λ_1 needs in the linear model of the start until ‖r‖ ≤ level ‖r_0‖."""
    return updates_to(level**2, start.values, start.squares, 1 / float(start.values[0]))
