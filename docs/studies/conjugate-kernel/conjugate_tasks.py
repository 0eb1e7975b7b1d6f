"""Functions on an interval, two moons, and a pair of digits: what kernels and networks learn from a few hundred points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from digit_images import Images, Source
from sklearn.datasets import make_moons
from torch import Tensor

Loss = Literal["squares", "logistic"]
#: standard deviation of the moons' noise
NOISE = 0.2


@dataclass(frozen=True)
class Task:
    """Points in float64: the first are trained on, the next choose the ridge, the rest are held out.

    Attributes:
        x: (N + N' + M, d).
        y: (N + N' + M, 1); ±1 where the loss is logistic.
        sizes: N and N'.
        loss: "squares", the mean of ½(f − y)²; "logistic", the mean of ln(1 + e^{−yf}).
    """

    x: Tensor
    y: Tensor
    sizes: tuple[int, int]
    loss: Loss

    @property
    def train(self) -> slice:
        return slice(self.sizes[0])

    @property
    def choosing(self) -> slice:
        return slice(self.sizes[0], sum(self.sizes))

    @property
    def held_out(self) -> slice:
        return slice(sum(self.sizes), None)


def power(exponent: int) -> Callable[[int, int, int, Source], Task]:
    """y = sin 2πx + |x|^s on [−1, 1], without noise: the s-th derivative jumps at 0."""

    def task(train: int, held_out: int, seed: int, source: Source) -> Task:
        x = np.random.default_rng(seed).uniform(-1, 1, (2 * train + held_out, 1))
        return _task(x, np.sin(2 * np.pi * x) + np.abs(x) ** exponent, train, "squares")

    return task


def moons(train: int, held_out: int, seed: int, source: Source) -> Task:
    """Two half circles, with noise."""
    x, labels = make_moons(2 * train + held_out, noise=NOISE, random_state=seed)
    return _task(x - x.mean(axis=0), 2.0 * labels[:, None] - 1, train, "logistic")


def digits(train: int, held_out: int, seed: int, source: Source) -> Task:
    """Is it a 3 (and not an 8)? Images less their mean, on a sphere.

    Raises:
        ValueError: fewer images than asked for.
    """
    images = Images.load(source, seed).only(3, 8)
    if len(images) < 2 * train + held_out:
        raise ValueError(f"2 × {train} and {held_out} held out are more than the {len(images)} images of 3 and 8")
    images = images[: 2 * train + held_out]
    x = images.on_sphere(images[:train].pixels.mean(axis=0)).flatten(1)
    return _task(x.numpy(), images.signs(3).numpy(), train, "logistic")


TASKS = {"|x|": power(1), "|x|³": power(3), "|x|⁵": power(5), "moons": moons, "3 or 8": digits}


def _task(x: np.ndarray, y: np.ndarray, train: int, loss: Loss) -> Task:
    return Task(torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64), (train, train), loss)
