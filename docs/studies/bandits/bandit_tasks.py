"""Classification as a bandit: which class is a context of? The right arm pays 1, every other one 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from digit_images import Images
from sklearn.datasets import load_breast_cancer


@dataclass(frozen=True)
class Task:
    """Contexts and their classes.

    Attributes:
        x: (N, d) of norm 1; the last entry is the same for all, in the place of biases.
        labels: (N,) the arm that pays.
        arms: K.
    """

    x: np.ndarray
    labels: np.ndarray
    arms: int

    def shuffled(self, seed: int) -> Task:
        """The same contexts in another order."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        return Task(self.x[order], self.labels[order], self.arms)

    def joint(self, count: int) -> np.ndarray:
        """(count · K, Kd) e_k ⊗ x of the first contexts with every arm."""
        return np.stack([np.kron(np.eye(self.arms), x) for x in self.x[:count]]).reshape(
            -1, self.arms * self.x.shape[1]
        )


def digits() -> Task:
    """1,797 images of 8 × 8, less their mean image."""
    images = Images.load("digits")
    return _task(images.on_sphere(images.pixels.mean(axis=0)).flatten(1).double().numpy(), images.labels, 10)


def breast_cancer() -> Task:
    """569 tumours, thirty measurements, standardised: malignant or benign."""
    data = load_breast_cancer()
    return _task((data.data - data.data.mean(axis=0)) / data.data.std(axis=0), data.target, 2)


TASKS = {"digits": digits, "breast_cancer": breast_cancer}


def _task(x: np.ndarray, labels: np.ndarray, arms: int) -> Task:
    x = np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones((len(x), 1))]) / np.sqrt(2)
    return Task(x, labels, arms)
