"""One start, two runs, three kernels: energies in the own kernel, the frozen one and a foreign one, at the same k.

E(φ, k) near 1 says little where k is a large part of N. At small k the kernel that a run has (own) is set against the one that
it started from (frozen) and against that of the run from the same start on the mirrored picture (foreign). At the edge of
stability outputs and λ_1 turn to and fro with period 2, so every number is the mean of a pair of states, t and t + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from portrait import mirrored, mlp
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack.analysis.commands.demo import scattered_pixels
from kerneltrack.observables import relative_energy

#: the kernels in whose modes an output or a target is looked for
KERNELS = "own", "frozen", "foreign"


@dataclass(frozen=True)
class State:
    """A network after some update.

    Attributes:
        outputs: (N,) f_t.
        vectors: (N, k) leading eigenvectors of Θ_t.
        largest: λ_1(Θ_t).
    """

    outputs: np.ndarray
    vectors: np.ndarray
    largest: float

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, k: int) -> State:
        pairs = kt.eigensystem(kt.empirical_ntk(model, x)[:, :, 0, 0])
        with torch.no_grad():
            return cls(model(x)[:, 0].numpy(), pairs.vectors[:, :k].copy(), float(pairs.values[0]))

    def energies(self, phi: np.ndarray, k: Sequence[int]) -> np.ndarray:
        """E(φ, k)."""
        return relative_energy(self.vectors.T @ phi, float(phi @ phi), k)


@dataclass(frozen=True)
class Course:
    """A run, at the states that were watched.

    Attributes:
        target: (N,) y.
        states: by update.
        sharpness: λ_1(∇²L) by update.
    """

    target: np.ndarray
    states: dict[int, State]
    sharpness: dict[int, float]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor, *, rate: float, steps: Sequence[int], k: int) -> Course:
        """Of gradient descent from the model's present parameters."""
        states, sharpness, now = {}, {}, 0
        for step in steps:
            descend(model, x, y, rate=rate, updates=step - now)
            states[step], sharpness[step], now = State.of(model, x, k), hessian(model, x, y), step
        return cls(y[:, 0].numpy(), states, sharpness)


def run(
    seed: int, *, samples: int, width: int, depth: int, rate: float, moments: Sequence[int], k: Sequence[int]
) -> dict[str, Any]:
    """The numbers of one start, at each moment of both runs: energies of output and target, ρ, and the Hessian's.

    Args:
        seed: of points and initialisation.
        samples: N.
        width: of the hidden layers.
        depth: weight layers.
        rate: δ on the mean of ½(f − y)².
        moments: t, the first state of each pair.
        k: numbers of modes.
    """
    x, y = scattered_pixels(samples, seed)
    pictures, x = [part.double() for part in (y, mirrored(x, y))], x.double()
    torch.manual_seed(seed)
    network = mlp(2, width, depth, 1).double()
    start, first = {name: value.clone() for name, value in network.state_dict().items()}, State.of(network, x, max(k))
    courses = []
    for picture in pictures:
        network.load_state_dict(start)
        steps = sorted({step for t in moments for step in (t, t + 1)})
        courses.append(Course.of(network, x, picture, rate=rate, steps=steps, k=max(k)))
    return {"seed": seed, "moments": [_moment(courses, first, t, rate, k) for t in moments]}


def _moment(courses: list[Course], first: State, t: int, rate: float, k: Sequence[int]) -> dict[str, Any]:
    pair, samples = (t, t + 1), len(first.outputs)
    outputs = [[c.states[s].energies(c.states[s].outputs, k) for s in pair] for c in courses]
    return {
        "step": t,
        "output": [_energies(a, first, b, pair, k, of="output") for a, b in (courses, courses[::-1])],
        "target": [_energies(a, first, b, pair, k, of="target") for a, b in (courses, courses[::-1])],
        "phase": float(np.ptp(outputs, axis=1).max()),
        "ratio": [float(np.mean([rate * c.states[s].largest / (2 * samples) for s in pair])) for c in courses],
        "hessian": [float(np.mean([rate * c.sharpness[s] / 2 for s in pair])) for c in courses],
    }


def _energies(
    own: Course, first: State, foreign: Course, pair: Sequence[int], k: Sequence[int], *, of: str
) -> dict[str, list[float]]:
    """Means over a pair, by kernel, of the energies of the own output or the own target."""
    found = []
    for step in pair:
        phi = own.states[step].outputs if of == "output" else own.target
        found.append([kernel.energies(phi, k) for kernel in (own.states[step], first, foreign.states[step])])
    return {name: energies.tolist() for name, energies in zip(KERNELS, np.mean(found, axis=0), strict=True)}


def descend(model: nn.Module, x: Tensor, y: Tensor, *, rate: float, updates: int) -> None:
    """Full-batch gradient descent on the mean of ½(f − y)²."""
    parameters = list(model.parameters())
    for _ in range(updates):
        outputs = model(x)
        along = (outputs - y).detach() / len(x)
        for parameter, change in zip(parameters, torch.autograd.grad(outputs, parameters, along), strict=True):
            parameter.data.sub_(change, alpha=rate)


def hessian(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """λ_1 of ∇²L, L the mean of ½(f − y)², by Lanczos to 1e-3."""
    parameters = list(model.parameters())
    loss = (model(x) - y).square().mean() / 2
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([slope.reshape(-1) for slope in slopes])

    def product(v: np.ndarray) -> np.ndarray:
        along = torch.as_tensor(v.reshape(-1), dtype=gradient.dtype)
        bent = torch.autograd.grad(gradient @ along, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in bent]).numpy()

    size = len(gradient)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    begin = np.random.default_rng(0).standard_normal(size)
    return float(eigsh(operator, k=1, which="LA", tol=1e-3, v0=begin, return_eigenvectors=False)[0])
