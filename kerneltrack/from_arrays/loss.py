"""The named losses in NumPy: value, residual and curvature in the outputs, written out.

    half_mse        ℓ = ½ Σ_o (f_o − y_o)²              m = f − y                   S = I/N
    mse             ℓ = (1/O) Σ_o (f_o − y_o)²          m = (2/O)(f − y)            S = 2I/(NO)
    cross_entropy   ℓ = −Σ_o y_o log softmax(f)_o       m = w softmax(f) − y        S = w (diag p − p pᵀ)/N

with w = Σ_o y_o and p = softmax(f), sample by sample; L is the mean of ℓ, m = N ∂L/∂f and S = ∇²_f L. The tracker derives the
same from ℓ by differentiation (:mod:`kerneltrack.training.loss`), which NumPy has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from kerneltrack.errors import ObservableError

Array = NDArray[np.float64]
ArrayLossName = Literal["half_mse", "mse", "cross_entropy"]


@dataclass(frozen=True)
class ArrayLoss:
    """A mean loss by its name, at outputs f and targets y, both (N, O).

    Raises:
        ObservableError: a name that is none of the three, a cross-entropy of one output, or targets of it with a negative sum.
    """

    name: ArrayLossName
    outputs: Array
    targets: Array

    def __post_init__(self) -> None:
        if self.name not in get_args(ArrayLossName):
            raise ObservableError(
                "loss",
                expected=f"None, or one of {', '.join(get_args(ArrayLossName))}",
                got=repr(self.name),
                remedy="A callable is for kt.Tracker, which differentiates it. With loss=None the residual is f − y.",
            )
        if self.name == "cross_entropy" and (self.outputs.shape[1] < 2 or self.targets.sum(1).min() < 0):
            raise ObservableError(
                "cross_entropy",
                expected="at least two outputs, and targets that are classes or probabilities",
                got=f"{self.outputs.shape[1]} output(s), targets that add up to {self.targets.sum(1).min():.3g} at a point",
            )

    @property
    def value(self) -> float:
        """L."""
        if self.name == "cross_entropy":
            return float(-(self.targets * log_softmax(self.outputs, axis=1)).sum(1).mean())
        return float(self.scale * ((self.outputs - self.targets) ** 2).sum(1).mean() / 2)

    @property
    def residual(self) -> Array:
        """m (N, O)."""
        if self.name == "cross_entropy":
            weights = self.targets.sum(1, keepdims=True)
            return np.asarray(weights * softmax(self.outputs, axis=1) - self.targets)
        return self.scale * (self.outputs - self.targets)

    @property
    def scale(self) -> float:
        """c of a loss of squares, whose S is c I/N."""
        return 2.0 / self.outputs.shape[1] if self.name == "mse" else 1.0

    def largest_curvature(self, kernel: Array, points: NDArray[np.intp]) -> float:
        """λ_1(S^½ Θ S^½) of the mean loss over some of the points.

        Args:
            kernel: Θ (N, N, O, O) of all of them.
            points: which.
        """
        count, width = len(points), self.outputs.shape[1]
        block = kernel[np.ix_(points, points)]
        root = self._root(points)
        if root is not None:
            block = np.einsum("noa,nmop,mpb->nmab", root, block, root, optimize=True)
        matrix = block.transpose(0, 2, 1, 3).reshape(count * width, -1)
        return float(np.linalg.eigvalsh(matrix)[-1]) * (self.scale if root is None else 1.0) / count

    def _root(self, points: NDArray[np.intp]) -> Array | None:
        """R (N, O, O) = √w (diag √p − p √pᵀ) with R Rᵀ = N S; None where S is a number."""
        if self.name != "cross_entropy":
            return None
        p = softmax(self.outputs[points], axis=1)
        weights = np.sqrt(self.targets[points].sum(1))[:, None, None]
        root = np.sqrt(p)
        return np.asarray(weights * (root[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * root[:, None, :]))
