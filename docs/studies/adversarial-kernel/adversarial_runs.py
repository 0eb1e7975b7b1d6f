"""Adversarial examples that a kernel makes before any training, its features, and its motion in adversarial training.

What a network f(x; θ) − f(x; θ_0) learns while it is lazy is a sum over the modes of Θ_0, and so is its gradient by x:

    f_t(x) = Θ_0(x, X) α,   α = Σ_i w_t(λ_i) v_i ⟨v_i, y⟩,   ∇_x f_t = ∇_x ⟨J_0(x), J_0(X)ᵀα⟩

With ‖δ‖_∞ ≤ ε the attack that is best to first order is δ = −ε y sign ∇_x f.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from digit_images import Images, Source
from squares_by_sgd import Learner, Sgd, stable_rate
from torch import Tensor, nn
from wide_networks import mlp

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.regression import flow_filter

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Points:
    """Images of 3 (+1) and of 8 (−1), pixels from 0 to 1 less their means.

    Attributes:
        x: (N, D).
        y: (N, 1).
    """

    x: Tensor
    y: Tensor

    def __getitem__(self, part: slice | Tensor) -> Points:
        return Points(self.x[part], self.y[part])

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def load(cls, source: Source, counts: tuple[int, int], seed: int) -> Points:
        """So many, and so many others; the mean image is that of the first.

        Raises:
            ValueError: there are fewer.
        """
        count = sum(counts)
        images = Images.load(source, seed).only(3, 8)[:count]
        if len(images) < count:
            raise ValueError(f"{count} images of 3 and 8 are more than the {len(images)} there are")
        centred = images.pixels - images.pixels[: counts[0]].mean(axis=0)
        return cls(torch.tensor(centred, dtype=torch.float32).flatten(1), images.signs(3))


@dataclass(frozen=True)
class Kernel:
    """Θ_0 on training points, and what linear combinations of its columns are.

    Attributes:
        start: the network at θ_0.
        x: (N, D) X.
        pairs: the eigensystem of Θ_0(X, X).
    """

    start: nn.Module
    x: Tensor
    pairs: kt.EigenSystem

    @classmethod
    def of(cls, network: nn.Module, x: Tensor) -> Kernel:
        return cls(copy.deepcopy(network), x, kt.eigensystem(kt.empirical_ntk(network, x)[:, :, 0, 0]))

    def function(self, alpha: np.ndarray) -> Function:
        """x ↦ Θ_0(x, X) α = ⟨J_0(x), J_0(X)ᵀα⟩, α (N,); differentiable by x."""
        parameters = dict(self.start.named_parameters())
        outputs = self.start(self.x)[:, 0]
        along = torch.autograd.grad(outputs, list(parameters.values()), torch.tensor(alpha, dtype=outputs.dtype))
        there = {name: p.detach() + step for (name, p), step in zip(parameters.items(), along, strict=True)}
        linear = kt.linearize(self.start)
        return lambda x: linear(x, there) - self.start(x)

    def flow(self, y: np.ndarray, time: float) -> Function:
        """f_t after a time η·updates/N of gradient flow on y (N,)."""
        vectors = self.pairs.vectors
        return self.function(vectors @ (flow_filter(self.pairs.values, time) * (vectors.T @ y)))

    def feature(self, y: np.ndarray, mode: int) -> Function:
        """f^(i)(x) = λ_i⁻¹ Θ_0(x, X) v_i ⟨v_i, y⟩, i from 1: on X it is y's part along v_i, and all of them sum to y."""
        vector = self.pairs.vectors[:, mode - 1]
        return self.function(vector * (vector @ y) / self.pairs.values[mode - 1])


def gradient(f: Function, x: Tensor) -> Tensor:
    """(M, D) ∇_x f."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


def attack(f: Function, points: Points, size: float) -> Tensor:
    """(M, D) δ = −ε y sign(∇_x f): ε sign ∇_xℓ for every loss that falls with yf, whatever f is.

    (Squares do not: beyond its target they would push f away from 0.)
    """
    return -size * points.y * torch.sign(gradient(f, points.x))


@torch.no_grad()
def right(f: Function, points: Points, shift: Tensor | float = 0.0) -> Tensor:
    """(M,) whether the sign of f(x + δ) is y."""
    return (f(points.x + shift) * points.y)[:, 0] > 0


def fooled(f: Function, points: Points, shift: Tensor) -> float:
    """Of the points that are right, the share that is wrong after a shift."""
    before = right(f, points)
    return float((before & ~right(f, points, shift)).sum() / before.sum())


def train(learner: Learner, points: Points, sgd: Sgd, epochs: int, seed: int, size: float = 0.0) -> Iterator[int]:
    """Minibatch descent, on examples attacked with ε where it is above 0; yields 0 and each epoch that is over."""
    generator = torch.Generator().manual_seed(seed)
    parameters = list(learner.network.parameters())
    yield 0
    for epoch in range(epochs):
        for rows in torch.randperm(len(points), generator=generator).split(sgd.batch):
            seen = points[rows]
            seen = Points(seen.x + attack(learner, seen, size), seen.y) if size else seen
            sgd.epoch(learner, parameters, seen, generator)
        yield epoch + 1


class Motion:
    """The kernel on a few points, epoch by epoch."""

    def __init__(self, x: Tensor) -> None:
        self._x, self._kernels = x, list[np.ndarray]()

    def look(self, network: nn.Module) -> None:
        self._kernels.append(kt.empirical_ntk(network, self._x)[:, :, 0, 0].double().numpy())

    @property
    def numbers(self) -> dict[str, list[float]]:
        """Angles to the kernel of one epoch before, in mrad; cosines to the first one; shares of Σλ² in 10 and 20 modes."""
        values = [np.linalg.eigvalsh(kernel)[::-1] ** 2 for kernel in self._kernels]
        turns = zip(self._kernels[:-1], self._kernels[1:], strict=True)
        return {
            "turns": _short(1e3 * observables.kernel_angle(*pair) for pair in turns),
            "cosines": _short(observables.cosine(kernel, self._kernels[0]) for kernel in self._kernels),
            "top10": _short(squares[:10].sum() / squares.sum() for squares in values),
            "top20": _short(squares[:20].sum() / squares.sum() for squares in values),
        }


def run(
    source: Source, counts: tuple[int, int], width: int, seed: int, *, size: float, epochs: int, batch: int, share: float,
    probe: int, modes: int, small: float,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one network.

    Args:
        source: of the images.
        counts: of those that are trained on, and held out.
        width: of both hidden layers.
        seed: of images, start and minibatches.
        size: ε.
        epochs: of both trainings.
        batch: of a minibatch.
        share: η as a share of 2N/λ_1(Θ_0).
        probe: training points on which the kernel is watched.
        modes: features that are looked at; 0 for none.
        small: ε by which they are misled.
    """
    points = Points.load(source, counts, seed)
    seen, unseen = points[: counts[0]], points[counts[0] :]
    torch.manual_seed(seed)
    start = mlp("ntk", "relu", width, points.x.shape[1])
    kernel = Kernel.of(start, seen.x)
    rate = share * stable_rate(torch.tensor(kernel.pairs.matrix()))
    y, time = seen.y[:, 0].double().numpy(), rate * epochs / batch
    order = np.random.default_rng(seed).permutation(len(y))
    shifts = {
        "kernel": attack(kernel.flow(y, time), unseen, size),
        "foreign": attack(kernel.flow(y[order], time), unseen, size),
        "random": size * torch.sign(torch.randn(unseen.x.shape)),
    }
    found: dict[str, Any] = {"width": width, "seed": seed, "time": time}
    for name, within in (("standard", 0.0), ("adversarial", size)):
        learner, motion = Learner(copy.deepcopy(start)), Motion(seen.x[:probe])
        for _ in train(learner, seen, Sgd(rate, batch), epochs, seed, within):
            motion.look(learner.network)
        own = attack(learner, unseen, size)
        found[name] = {
            "accuracy": float(right(learner, unseen).double().mean()),
            "robust": float(right(learner, unseen, own).double().mean()),
            "fooled": {kind: fooled(learner, unseen, shift) for kind, shift in {**shifts, "own": own}.items()},
            "alike": _cosine(kernel.flow(y, time), learner, unseen.x),
            **motion.numbers,
        }
    found["features"] = [feature_numbers(kernel, y, i + 1, unseen, small) for i in range(modes)]
    return found


def feature_numbers(kernel: Kernel, y: np.ndarray, mode: int, points: Points, size: float) -> list[float]:
    """Usefulness and robustness: the shares of points whose sign is right, as they are and misled."""
    f = kernel.feature(y, mode)
    shares = right(f, points), right(f, points, attack(f, points, size))
    return _short(float(share.double().mean()) for share in shares)


def _cosine(f: Function, g: Function, x: Tensor) -> float:
    """Of the gradients by x, the mean over points."""
    slopes = [gradient(h, x) for h in (f, g)]
    return float(nn.functional.cosine_similarity(*slopes, dim=1).mean())


def _short(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
