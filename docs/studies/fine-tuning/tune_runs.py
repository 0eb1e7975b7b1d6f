"""A network from the start of tuning to one training loss: how far does its own tangent kernel of that start describe it?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from squares_by_sgd import stable_rate
from torch import Tensor, nn
from tune_models import (
    BAD,
    GOOD,
    LEFT,
    RIGHT,
    Data,
    WordDifference,
    digits,
    language_model,
    perceptron,
    pretrain_images,
    pretrain_words,
    texts,
    tuned,
)

import kerneltrack as kt
from kerneltrack import observables
from kerneltrack.regression import descent_filter, trained

Maker = Callable[[], nn.Module]


@dataclass(frozen=True)
class Descent:
    """Full-batch descent on the mean of ½(f − y)², until that is a share of its value for f = 0.

    Attributes:
        share: η as a share of 2N/λ_1 of the kernel at the start.
        level: ‖f − y‖²/‖y‖² at which it ends.
        updates: at most.
    """

    share: float
    level: float
    updates: int

    def run(self, network: nn.Module, data: Data, rate: float) -> int:
        """The number of updates made.

        Raises:
            RuntimeError: the loss is not finite.
        """
        leaves, k = [p for p in network.parameters() if p.requires_grad], 0
        while True:
            outputs = network(data.x)
            residual = (outputs - data.y).detach()
            loss = float(residual.square().mean())
            if not np.isfinite(loss):
                raise RuntimeError(f"descent at η = {rate:g} diverged; take a smaller share")
            if loss <= self.level or k == self.updates:
                return k
            for leaf, change in zip(leaves, torch.autograd.grad(outputs, leaves, residual / len(data.x)), strict=True):
                leaf.data.sub_(change, alpha=rate)
            k += 1


def kernels(network: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """(N, N) of every layer that is trained, in float64; they sum to the network's."""
    found = kt.empirical_ntk(network, x, by_layer=True)
    return {name: kernel[:, :, 0, 0].double().numpy() for name, kernel in found.items()}


@torch.no_grad()
def outputs_of(network: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """(N, 1) in float64."""
    return np.asarray(network(x).double())


def follow(network: nn.Module, data: Data, descent: Descent) -> dict[str, Any]:
    """Tune a network in place, and compare.

    Returns:
        ``updates``, ``loss`` at the end over that of f = 0, ``right`` on unseen points at the start, at the end, and by the
        kernel; ``anchored`` ‖f_lin(θ_T) − f_T‖²/‖f_T − f_0‖² on unseen points; ``foretold``: the same with descent by the
        kernel of the start in place of f_lin(θ_T); ``distance`` S and ``change`` ‖ΔΘ‖/‖Θ‖ of the kernel on the training
        points, and the latter by ``layers``.
    """
    points, n = torch.cat([data.x, data.unseen]), len(data.x)
    before, start = kernels(network, data.x), outputs_of(network, points)
    theta = sum(before.values())
    cross = kt.empirical_ntk(network, data.unseen, data.x)[:, :, 0, 0].double().numpy()
    rate = descent.share * stable_rate(torch.tensor(theta))
    linear = kt.linearize(network)
    updates = descent.run(network, data, rate)
    end, after = outputs_of(network, points), kernels(network, data.x)
    pairs = kt.eigensystem(theta)
    filters, y = descent_filter(pairs.values, rate / n, updates), data.y.double().numpy()
    told = trained(cross, pairs, y, filters, offset=(start[n:], start[:n]))
    moved = end[n:] - start[n:]
    return {
        "rate": rate,
        "updates": updates,
        "loss": float(np.mean((end[:n] - y) ** 2)),
        "right": [_right(values, data.truth) for values in (start[n:], end[n:], told)],
        "anchored": observables.relative_squared_error(outputs_of(linear, data.unseen) - start[n:], moved),
        "foretold": observables.relative_squared_error(told - start[n:], moved),
        "distance": observables.kernel_distance(sum(after.values()), theta),
        "change": observables.relative_kernel_change(sum(after.values()), theta),
        "layers": {name: observables.relative_kernel_change(after[name], kernel) for name, kernel in before.items()},
    }


def _right(outputs: np.ndarray, truth: Tensor) -> float:
    return float(np.mean(np.sign(outputs) == truth.numpy()))


def rank_cosine(make: Maker, data: Data, rank: int) -> float:
    """Cosine of the adapters' kernel at the start with that of the matrices beside which they stand."""
    kernel = [sum(kernels(tuned(make(), way), data.x).values()) for way in (f"rank {rank}", "matrices")]
    return observables.cosine(*kernel)


def images(seed: int, width: int, updates: int, train: int, test: int) -> tuple[dict[str, Maker], Data]:
    """The MLP at its start and after pre-training, and what it is tuned on."""
    raw = perceptron(seed, width)
    known = copy.deepcopy(raw)
    pretrain_images(known, updates, seed)
    x, y = digits(new=True, seed=seed)
    data = Data(x[:train], y[:train], x[train : train + test], y[train : train + test])
    return {"scratch": lambda: copy.deepcopy(raw), "tuned": lambda: copy.deepcopy(known)}, data


def words(seed: int, width: int, updates: int, train: int, test: int) -> tuple[dict[str, Maker], Data]:
    """The language model likewise; "other words": pre-trained, with a read-out that does not fit."""
    raw = language_model(seed, width)
    known = copy.deepcopy(raw)
    pretrain_words(known, updates, batch=64, seed=seed)
    generator = torch.Generator().manual_seed(10_000 + seed)
    (x, moods), (unseen, truth) = (texts(count, 1, generator) for count in (train, test))
    data = Data(x, (2.0 * moods - 1)[:, None], unseen, (2.0 * truth - 1)[:, None])

    def maker(model: nn.Module, first: int, second: int) -> Maker:
        return lambda: WordDifference(copy.deepcopy(model), first, second)

    return {
        "scratch": maker(raw, GOOD, BAD), "tuned": maker(known, GOOD, BAD), "other words": maker(known, LEFT, RIGHT)
    }, data  # fmt: skip


def parts(makers: dict[str, Maker], ranks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Start and way: from scratch in full, tuned in every way, other words in full."""
    yield "scratch", "full"
    yield from (("tuned", way) for way in ("full", "head", *(f"rank {rank}" for rank in ranks)))
    if "other words" in makers:
        yield "other words", "full"


def run(
    kind: str, share: float, seed: int, *, width: int, updates: int, train: int, test: int, ranks: tuple[int, ...],
    level: float, longest: int,
) -> dict[str, Any]:  # fmt: skip
    """The numbers of one pre-trained network, tuned in all ways at one rate.

    Args:
        kind: "images" or "words".
        share: η as a share of 2N/λ_1 at the start.
        seed: of the start, the pre-training and the points.
        width: of the network.
        updates: of the pre-training.
        train: points to tune on.
        test: unseen ones.
        ranks: of adapters.
        level: of the training loss, at which tuning ends.
        longest: updates of tuning at most.
    """
    makers, data = {"images": images, "words": words}[kind](seed, width, updates, train, test)
    found = []
    for start, way in parts(makers, ranks):
        torch.manual_seed(seed)  # of the adapters
        numbers = follow(tuned(makers[start](), way), data, Descent(share, level, longest))
        found.append({"start": start, "way": way, **numbers})
    torch.manual_seed(seed)
    cosines = {str(rank): rank_cosine(makers["tuned"], data, rank) for rank in ranks}
    return {"kind": kind, "share": share, "seed": seed, "parts": found, "cosines": cosines}
