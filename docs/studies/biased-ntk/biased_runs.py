"""One hidden layer whose biases start at one constant: how many gates are open while it trains, and how fast it learns.

    f(x) = m^−½ Σ_r a_r relu(w_r·x − b_r),   w ~ N(0, I), b = B, a = ±1 and fixed

On the unit sphere a gate is open with probability Φ(−B) at the start, and the tangent kernel of infinite width is
``kt.analytic.biased_relu_ntk``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from digit_images import Images, Source
from linear_descent import updates_to
from scipy.special import ndtr
from torch import Tensor, nn

import kerneltrack as kt
from kerneltrack import observables

#: one choice of images: networks differ by their start alone
_SEED = 0
#: snapshots of a training
_SNAPSHOTS = 40


class Biased(nn.Module):
    """f above.

    Args:
        inputs: d.
        width: m.
        bias: B.
    """

    def __init__(self, inputs: int, width: int, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, inputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.full((width,), bias, dtype=torch.float64))
        signs = torch.randint(2, (width,)).double() * 2 - 1
        self.register_buffer("readout", signs / width**0.5)

    def gates(self, x: Tensor) -> Tensor:
        """(N, m) w·x − b, above 0 where a gate is open."""
        return nn.functional.linear(x, self.weight) - self.bias

    def forward(self, x: Tensor) -> Tensor:
        return (torch.relu(self.gates(x)) @ self.readout)[:, None]


@cache
def points(source: Source, count: int) -> tuple[Tensor, Tensor]:
    """(x, y): images of 0 and 1 less their mean, on the unit sphere; +1 for a 1, −1 for a 0.

    In coordinates of their own span (N, N), which a network with Gaussian weights cannot tell from pixels: it sees inner
    products alone, at the start and, as its weights move within the span, ever after.

    Raises:
        ValueError: fewer images than asked for.
    """
    images = Images.load(source, _SEED).only(0, 1)[:count]
    if len(images) < count:
        raise ValueError(f"{count} images of 0 and 1 are more than the {len(images)} there are")
    pixels = images.on_sphere(images.pixels.mean(axis=0)).flatten(1).double()
    left, roots, _ = torch.linalg.svd(pixels / pixels.norm(dim=1, keepdim=True), full_matrices=False)
    return left * roots, images.signs(1).double()


@dataclass(frozen=True)
class Fixed:
    """Descent on the mean of ½(f − y)² with a kernel that stays what it is, at η = N/λ_1: a share λ_i/λ_1 off mode i.

    Attributes:
        values: (N,) λ_i.
        squares: (N,) ⟨v_i, f_0 − y⟩².
    """

    values: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, kernel: Tensor, residual: Tensor) -> Fixed:
        pairs = kt.eigensystem(kernel)
        return cls(pairs.values, (pairs.vectors.T @ residual.numpy()[:, 0]) ** 2)

    def losses(self, updates: Sequence[int]) -> np.ndarray:
        """As shares of the first."""
        kept = 1 - np.clip(self.values / self.values[0], 0.0, 1.0)  # rounding of a zero eigenvalue must not grow
        return np.array([np.sum(self.squares * kept ** (2.0 * k)) for k in updates]) / np.sum(self.squares)

    def updates_to(self, level: float) -> int | None:
        """None where it is never reached: a point without an open gate has no entry in the kernel."""
        try:
            return updates_to(level, self.values, self.squares, 1 / float(self.values[0]))
        except ValueError:
            return None

    @property
    def slowest(self) -> float:
        """By what ln loss falls in an update at the very end: −2 ln(1 − λ_min/λ_1)."""
        return float(-2 * np.log1p(-self.values[-1] / self.values[0]))


@dataclass
class Watch:
    """What is seen of a network at its snapshots."""

    network: Biased
    x: Tensor

    def __post_init__(self) -> None:
        self._first = self._open()
        self.updates: list[int] = []
        self.losses: list[float] = []
        self.open: list[float] = []
        self.flipped: list[float] = []
        self.dark: list[int] = []

    @torch.no_grad()
    def _open(self) -> Tensor:
        return self.network.gates(self.x) > 0

    def look(self, updates: int, loss: float) -> None:
        now = self._open()
        self.updates.append(updates)
        self.losses.append(loss)
        self.open.append(float(now.double().mean()))
        self.dark.append(int((~now.any(dim=1)).sum()))
        self.flipped.append(float((now ^ self._first).double().mean()))


def descend(network: Biased, x: Tensor, y: Tensor, rate: float, *, level: float, most: int) -> Watch:
    """θ ← θ − rate · Jᵀ(f − y), rate = η/N, until the loss is down to a share of its first, or for so many updates.

    Snapshots are taken at log-spaced updates, and at the end.
    """
    parameters, watch, first = list(network.parameters()), Watch(network, x), 0.0
    due = set(np.unique(np.round(np.geomspace(1, most, _SNAPSHOTS))).astype(int)) | {0}
    for k in range(most + 1):
        outputs = network(x)
        residual = (outputs - y).detach()
        loss = float(residual.square().sum())
        first = first or loss
        ended = loss <= level * first or k == most
        if ended or k in due:
            watch.look(k, loss / first)
        if ended:
            break
        for parameter, change in zip(parameters, torch.autograd.grad(outputs, parameters, residual), strict=True):
            parameter.data.sub_(change, alpha=rate)
    return watch


def run(source: Source, count: int, width: int, bias: float, seed: int, *, level: float, most: int) -> dict[str, Any]:
    """The numbers of one network.

    Args:
        source: of the images.
        count: N.
        width: m.
        bias: B.
        seed: of its start.
        level: of the first loss, at which training ends.
        most: updates.
    """
    x, y = points(source, count)
    torch.manual_seed(seed)
    network = Biased(x.shape[1], width, bias)
    theta = kt.empirical_ntk(network, x)[:, :, 0, 0]
    limit, dense = (kt.analytic.biased_relu_ntk(x, bias=b) for b in (bias, 0.0))
    with torch.no_grad():
        residual = network(x) - y
    start, infinite, foreign = (Fixed.of(kernel, residual) for kernel in (theta, limit, dense))
    watch = descend(network, x, y, 1 / float(start.values[0]), level=level, most=most)
    half = [watch.updates[-1] // 2, watch.updates[-1]]
    return {
        "width": width,
        "bias": bias,
        "seed": seed,
        "chance": float(ndtr(-bias)),
        "updates": watch.updates[-1],
        "reached": watch.losses[-1] <= level,
        "foretold": start.updates_to(level),
        "departure": observables.relative_squared_error(theta.numpy(), limit.numpy()) ** 0.5,
        "least": [float(fixed.values[-1]) for fixed in (start, infinite, foreign)],
        "largest": [float(fixed.values[0]) for fixed in (start, infinite, foreign)],
        "falls": [_fall(fixed, half) for fixed in (start, infinite, foreign)],
        "slowest": start.slowest,
        "fall": float(np.log(_between(watch, half[0]) / watch.losses[-1])),
        "snapshots": watch.updates,
        "losses": [float(f"{loss:.6g}") for loss in watch.losses],
        "open": [float(f"{share:.6g}") for share in watch.open],
        "flipped": [float(f"{share:.6g}") for share in watch.flipped],
        "dark": watch.dark,
    }


def _fall(fixed: Fixed, updates: Sequence[int]) -> float:
    """By what ln loss falls from the first to the second number of updates."""
    first, last = fixed.losses(updates)
    return float(np.log(first / last))


def _between(watch: Watch, updates: int) -> float:
    """The loss between snapshots, by a straight line of ln loss over updates."""
    return float(np.exp(np.interp(updates, watch.updates, np.log(watch.losses))))
