"""One start, three ways down: the network, its linear model, and the linear model of the kernel that training made.

Kopitkov and Indelman (arXiv 1910.08720) say that alignment of the kernel to the target speeds learning up. If that is the
cause, descent in the fixed kernel Θ_{t0} of a trained network is faster than in Θ_0, from the same f_0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from linear_descent import updates_to
from portrait import mirrored, mlp
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack.analysis.commands.demo import scattered_pixels


@dataclass(frozen=True)
class Spectrum:
    """A fixed kernel, and the first residual in its modes.

    Attributes:
        values: (N,) λ_i.
        squares: (N,) ⟨v_i, f_0 − y⟩².
    """

    values: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, residual: np.ndarray) -> Spectrum:
        pairs = kt.eigensystem(kt.empirical_ntk(model, x)[:, :, 0, 0])
        return cls(pairs.values, (pairs.vectors.T @ residual) ** 2)

    @property
    def rate(self) -> float:
        """η/N = 1/λ_1, half of what is stable."""
        return 1 / float(self.values[0])

    def updates(self, levels: Sequence[float], rate: float) -> list[int]:
        """Until the loss is down to each share of the first one."""
        return [updates_to(level, self.values, self.squares, rate) for level in levels]


@dataclass(frozen=True)
class Descent:
    """A training of the network.

    Attributes:
        reached: updates to each share of the first loss; None where it was not reached.
        made: updates in all.
        loss: the last one, as a share of the first.
        diverged: whether it rose above 1,000 times the first.
    """

    reached: list[int | None]
    made: int
    loss: float
    diverged: bool


def descend(
    model: nn.Module, x: Tensor, y: Tensor, *, rate: float, updates: int, levels: Sequence[float] = ()
) -> Descent:
    """Full-batch gradient descent, θ ← θ − rate · Jᵀ(f − y): rate is η/N. It ends when all levels are reached, if there are any."""
    parameters, reached, first, share = list(model.parameters()), dict.fromkeys(levels), 0.0, 1.0
    for k in range(updates + 1):
        outputs = model(x)[:, 0]
        residual = (outputs - y[:, 0]).detach()
        first = first or float(residual.square().sum())
        share = float(residual.square().sum()) / first
        if not share < 1e3:
            return Descent(list(reached.values()), k, 1e3, diverged=True)
        reached |= {level: k for level in levels if reached[level] is None and share <= level}
        if k == updates or (levels and None not in reached.values()):
            break
        for parameter, change in zip(parameters, torch.autograd.grad(outputs, parameters, residual), strict=True):
            parameter.data.sub_(change, alpha=rate)
    return Descent(list(reached.values()), k, share, diverged=False)


def run(
    seed: int, *, samples: int, width: int, depth: int, moment: int, updates: int, levels: Sequence[float]
) -> dict[str, object]:
    """The numbers of one start: updates to each level in each kernel and by the network, at the own rates and at a common one.

    Args:
        seed: of points and initialisation.
        samples: N.
        width: of the hidden layers.
        depth: weight layers.
        moment: t_0, the update after which the trained kernels are taken.
        updates: after which the network is cut off.
        levels: shares of the first loss.
    """
    x, y = scattered_pixels(samples, seed)
    foreign = mirrored(x, y).double()
    x, y = x.double(), y.double()
    torch.manual_seed(seed)
    network = mlp(2, width, depth, 1).double()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        residual = (network(x) - y)[:, 0].numpy()
    kernels = {"start": Spectrum.of(network, x, residual)}
    for name, target in (("own", y), ("foreign", foreign)):
        network.load_state_dict(start)
        if descend(network, x, target, rate=kernels["start"].rate, updates=moment).diverged:
            raise RuntimeError(f"the training that makes the kernel {name!r} diverged; take a smaller rate")
        kernels[name] = Spectrum.of(network, x, residual)
    common = min(kernel.rate for kernel in kernels.values())
    found: dict[str, object] = {"seed": seed, "largest": {name: float(k.values[0]) for name, k in kernels.items()}}
    for rates, network_rate in (("own", kernels["start"].rate), ("common", common)):
        network.load_state_dict(start)
        made = descend(network, x, y, rate=network_rate, updates=updates, levels=levels)
        found[f"network_{rates}"] = {
            "reached": made.reached,
            "made": made.made,
            "loss": made.loss,
            "diverged": made.diverged,
        }
        found[f"kernels_{rates}"] = {
            name: k.updates(levels, k.rate if rates == "own" else common) for name, k in kernels.items()
        }
    return found
