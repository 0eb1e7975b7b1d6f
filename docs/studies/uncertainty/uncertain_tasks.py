"""Two tasks of regression: the progress of diabetes, and a wave with a gap in the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor

#: one order of the patients, one draw of the wave: all networks see the same data
_SEED = 0
#: standard deviation of the wave's noise
NOISE = 0.1
_INNER, _OUTER = 0.3, 1.0


@dataclass(frozen=True)
class Task:
    """Data in float64. Inputs are standardised on the training points and have a constant 1 beside them, in the place of biases.

    Attributes:
        x: (N, d).
        y: (N, 1).
        new: (M, d) held-out points.
        targets: (M, 1).
        gap: (M,) whether a point lies where there are no training points.
    """

    x: Tensor
    y: Tensor
    new: Tensor
    targets: Tensor
    gap: np.ndarray

    @property
    def points(self) -> Tensor:
        """(N + M, d) training points, then held-out ones."""
        return torch.cat([self.x, self.new])


def diabetes(samples: int) -> Task:
    """442 patients, ten measurements, the progress of the disease a year later: ``samples`` to train on, 142 held out."""
    data = load_diabetes()
    order = np.random.default_rng(_SEED).permutation(len(data.data))
    old, new = order[:samples], order[-142:]
    x, y = (_standardised(values, old) for values in (data.data, data.target[:, None]))
    return _task((x[old], y[old]), (x[new], y[new]), np.zeros(142, dtype=bool))


def wave(samples: int) -> Task:
    """y = sin 3x + 0.1ξ on [−1, −0.3] ∪ [0.3, 1]; 100 points held out there, and 50 in the gap between."""
    rng = np.random.default_rng(_SEED)
    sides = [rng.uniform(_INNER, _OUTER, n) * rng.choice([-1, 1], n) for n in (samples, 100)]
    x = np.concatenate([*sides, rng.uniform(-_INNER, _INNER, 50)])[:, None]
    y = np.sin(3 * x) + NOISE * rng.standard_normal(x.shape)
    x = _standardised(x, np.arange(samples))
    held_out = x[samples:], y[samples:]
    return _task((x[:samples], y[:samples]), held_out, np.arange(150) >= 100)


TASKS = {"diabetes": diabetes, "wave": wave}


def _standardised(values: np.ndarray, on: np.ndarray) -> np.ndarray:
    return (values - values[on].mean(axis=0)) / values[on].std(axis=0)


def _task(old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray], gap: np.ndarray) -> Task:
    (x, y), (beside, targets) = ([torch.tensor(part, dtype=torch.float64) for part in some] for some in (old, new))
    return Task(_with_one(x), y, _with_one(beside), targets, gap)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
