"""Kernel logistic regression: what the network linearised at θ_t would predict, trained to the end on cross-entropy.

A network that is trained on cross-entropy and linearised at θ_t does not fit y − f_t by least squares. It minimises

    L(f_t(X) + Θα) + (γ/2) tr αᵀΘα,   and predicts   f_t(X') + Θ(X', X)α,

which for the mean of ½(f − y)² in the place of L is kernel ridge regression from the offset f_t. The problem is convex, and
Newton's method finds its minimum from α = 0. In b = Λ^½Vᵀα, the coordinates in which the penalty is (γ/2)‖b‖², the Hessian
is Λ^½VᵀSVΛ^½ + γI with S = ∇²L: conjugate gradients solve it, preconditioned by what it is for a constant curvature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse.linalg
from scipy.special import log_softmax, softmax

from kerneltrack.errors import RegressionError
from kerneltrack.linear_algebra import beside, to_numpy
from kerneltrack.regression.ridge import Array, check_complete
from kerneltrack.spectrum import EigenSystem

#: The gradient's norm over its first one at which Newton's method stops: float64 leaves some 1e-15.
_TOLERANCE = 1e-12
#: Newton steps on a convex function with a line search: a few tens at most, where the classes are separated and γ is small.
_STEPS = 100
_HALVINGS = 40


class MeanLoss(Protocol):
    """A loss L of functions z (N, C), a mean over samples."""

    def value(self, z: Array) -> float:
        """L."""
        ...

    def gradient(self, z: Array) -> Array:
        """∂L/∂z (N, C)."""
        ...

    def curvature(self, z: Array, v: Array) -> Array:
        """∇²L v (N, C)."""
        ...

    def mean_curvature(self, z: Array) -> float:
        """tr ∇²L/(N·C)."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """L = −(1/N) Σ_n Σ_o y_o log softmax(z)_o.

    Attributes:
        targets: (N, O) y.
    """

    targets: Array

    def value(self, z: Array) -> float:
        """L."""
        return float(-np.sum(self.targets * log_softmax(z, axis=1)) / len(z))

    def gradient(self, z: Array) -> Array:
        """(s p − y)/N, s = Σ_o y_o."""
        return np.asarray((self._mass * softmax(z, axis=1) - self.targets) / len(z))

    def curvature(self, z: Array, v: Array) -> Array:
        """s (p∘v − p(pᵀv))/N."""
        p = softmax(z, axis=1)
        return np.asarray(self._mass * (p * v - p * np.sum(p * v, axis=1, keepdims=True)) / len(z))

    def mean_curvature(self, z: Array) -> float:
        """Mean of s (1 − Σ_o p_o²)/(N·O)."""
        return float(np.sum(self._mass[:, 0] * (1 - np.sum(softmax(z, axis=1) ** 2, axis=1))) / (len(z) * z.size))

    @property
    def _mass(self) -> Array:
        return np.asarray(self.targets.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Through:
    """A loss of functions that lie in a gauge: L of z Eᵀ.

    Attributes:
        loss: of functions (N, O).
        columns: E (O, C), orthonormal columns.
    """

    loss: MeanLoss
    columns: Array

    def value(self, z: Array) -> float:
        """L."""
        return self.loss.value(z @ self.columns.T)

    def gradient(self, z: Array) -> Array:
        """∂L/∂z."""
        return np.asarray(self.loss.gradient(z @ self.columns.T) @ self.columns)

    def curvature(self, z: Array, v: Array) -> Array:
        """∇²L v."""
        return np.asarray(self.loss.curvature(z @ self.columns.T, v @ self.columns.T) @ self.columns)

    def mean_curvature(self, z: Array) -> float:
        """Of the loss, which is what it is for a loss that does not see what E leaves out."""
        return self.loss.mean_curvature(z @ self.columns.T)


def kernel_newton(pairs: EigenSystem, start: Array, loss: MeanLoss, *, ridge: float) -> Array:
    """α (M, C) that minimises L(start + Θα) + (γ/2) tr αᵀΘα.

    Args:
        pairs: the complete eigensystem of Θ(X, X).
        start: (N, K) f_t(X); one column of α for all of it where M = N·K, and K columns where M = N.
        loss: L.
        ridge: γ > 0.

    Raises:
        RegressionError: an incomplete eigensystem, γ that is not positive, or no convergence.
    """
    check_complete(pairs)
    if not ridge > 0:
        raise RegressionError("kernel logistic regression needs a ridge", expected="γ > 0", got=ridge)
    root = np.sqrt(np.maximum(pairs.values, 0.0))[:, None]
    vectors = pairs.vectors
    problem = _Problem(vectors * beside(root.T, vectors), start, loss, ridge, pairs.values[:, None])
    b = problem.minimum()
    return to_numpy(vectors @ beside(np.divide(b, root, out=np.zeros_like(b), where=root > 0), vectors))


@dataclass(frozen=True)
class _Problem:
    """F(b) = L(start + Φb) + (γ/2)‖b‖², ΦΦᵀ = Θ. Φ stays where the eigenvectors live, all else is NumPy."""

    features: Any
    start: Array
    loss: MeanLoss
    ridge: float
    values: Array

    def minimum(self) -> Array:
        b = np.zeros((self.features.shape[1], self.start.size // len(self.features)))
        first = gradient = self.gradient(b)
        for _ in range(_STEPS):
            share = np.linalg.norm(gradient) / max(float(np.linalg.norm(first)), np.finfo(float).tiny)
            if share <= _TOLERANCE:
                return b
            # Steps are as exact as the gradient is small: then they converge as Newton's do.
            b = self.descended(b, gradient, self.step(b, gradient, float(np.clip(share, _TOLERANCE, 0.01))))
            gradient = self.gradient(b)
        raise RegressionError("Newton's method did not converge", expected=f"{_STEPS} steps at most")

    def at(self, b: Array) -> Array:
        return np.asarray(self.start + self.forth(b).reshape(self.start.shape))

    def forth(self, b: Array) -> Array:
        return to_numpy(self.features @ beside(b, self.features))

    def back(self, phi: Array) -> Array:
        return to_numpy(self.features.T @ beside(phi.reshape(len(self.features), -1), self.features))

    def objective(self, b: Array) -> float:
        return self.loss.value(self.at(b)) + self.ridge / 2 * float(np.vdot(b, b))

    def gradient(self, b: Array) -> Array:
        return self.back(self.loss.gradient(self.at(b))) + self.ridge * b

    def step(self, b: Array, gradient: Array, tolerance: float) -> Array:
        """−H⁻¹ gradient."""
        z, size = self.at(b), b.size
        scale = 1 / (self.loss.mean_curvature(z) * np.maximum(self.values, 0.0) + self.ridge)

        def hessian(v: Array) -> Array:
            v = v.reshape(b.shape)
            moved = self.loss.curvature(z, self.forth(v).reshape(z.shape))
            return np.ravel(self.back(moved) + self.ridge * v)

        def preconditioner(v: Array) -> Array:
            return np.ravel(scale * v.reshape(b.shape))

        operators = [
            scipy.sparse.linalg.LinearOperator((size, size), matvec=f, dtype=np.float64)
            for f in (hessian, preconditioner)
        ]
        solved, _ = scipy.sparse.linalg.cg(operators[0], -gradient.ravel(), rtol=tolerance, M=operators[1])
        return np.asarray(solved.reshape(b.shape))

    def descended(self, b: Array, gradient: Array, step: Array) -> Array:
        """b + t·step with the first t of 1, ½, ¼, … that descends enough (Armijo)."""
        slope, before = float(np.vdot(gradient, step)), self.objective(b)
        # Near the minimum F moves by less than its own rounding, and a whole step is right. A loss is the difference of numbers
        # as large as the functions, which of separated classes are large where F is small.
        rounding = 8 * np.finfo(float).eps * (abs(before) + float(np.max(np.abs(self.at(b)))))
        t = 1.0
        for _ in range(_HALVINGS):
            if self.objective(b + t * step) <= before + 1e-4 * t * slope + rounding:
                break
            t /= 2
        return np.asarray(b + t * step)
