"""The infinitely wide ReLU network as it gets deep, from the closed form: its kernel, its predictor, and which scaling is left.

On the unit sphere and without biases the kernel is a function of the angle alone, so it is computed on a grid of angles
(by ``kerneltrack.analytic`` on points of a circle) and interpolated; depth 90,000 on 2000² pairs then costs seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from digit_images import Images, Source
from scipy.interpolate import CubicSpline
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from kerneltrack import analytic

#: rows of a kernel that are evaluated at a time
ROWS = 500
#: points of the circle on which the recursion is run; dense towards zero, where the deep kernel has its structure
GRID = 1000


@functools.lru_cache(maxsize=64)
def kernel_of_angle(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(θ, Θ^(L)(θ)/L) on a grid of angles, with σ_w² = 2 and Σ^1(x, x) = 1, so that Θ^(L)(0) = L."""
    angles = np.concatenate([[0.0], np.pi * np.linspace(0, 1, GRID)[1:] ** 3])
    circle = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return angles, analytic.relu_ntk(circle[:1], circle, depth=depth)[0].numpy() / depth


def interpolated(depth: int) -> Callable[[np.ndarray], np.ndarray]:
    """Θ^(L)(θ)/L for any θ in [0, π]: a cubic spline in θ^⅓, in which the grid is even."""
    angles, values = kernel_of_angle(depth)
    spline = CubicSpline(angles ** (1 / 3), values)
    return lambda theta: spline(np.asarray(theta) ** (1 / 3))


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles of unit vectors (N, d) and (M, d), from chords: 2 asin(‖a − b‖/2) does not cancel near 0."""
    chords = torch.cdist(torch.from_numpy(a), torch.from_numpy(b), compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return 2 * np.arcsin(np.clip(chords / 2, 0, 1))


def scaling_form(u: np.ndarray) -> np.ndarray:
    """F(u) = (1 + u)/(4u) · (1 − (1 + u)^−4), the limit of Θ^(L)(θ)/L at fixed u = Lθ/(3π); F(0) = 1, F(∞) = ¼."""
    return (1 + u) / (4 * u) * -np.expm1(-4 * np.log1p(u))


@dataclass(frozen=True)
class Task:
    """A function on a sphere: nested training sets, one test set.

    Attributes:
        train: (n_max, d) unit vectors; the first n of them are the training set of size n.
        targets: (n_max,).
        test: (M, d).
        truth: (M,).
    """

    train: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    truth: np.ndarray


def task(largest: int, test: int = 400, dimension: int = 5, seed: int = 0) -> Task:
    """Uniform points; y(x) = 1 + sin(2 x₁) + x₂ x₃, which has a mean that a constant predictor gets right."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((largest + test, dimension))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = 1 + np.sin(2 * points[:, 0]) + points[:, 1] * points[:, 2]
    return Task(points[:largest], values[:largest], points[largest:], values[largest:])


def odd_images(source: Source, largest: int, test: int) -> Task:
    """Is the digit on an image odd, ±1: shuffled images less the mean image, each of norm 1."""
    images = Images.load(source)[: largest + test]
    if len(images) < largest + test:
        raise ValueError(
            f"{source} has {len(images):,} images; {largest:,} to train on and {test:,} to test were asked for"
        )
    points = images.pixels.reshape(len(images), -1)
    points = points - points[:largest].mean(axis=0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = 2.0 * (images.labels % 2) - 1
    return Task(points[:largest], values[:largest], points[largest:], values[largest:])


@dataclass(frozen=True)
class Scaling:
    """A depth L(n) and a stopping time t̄(n) = ηLt; ``time`` of None is t = ∞."""

    name: str
    depth: Callable[[int], int]
    time: Callable[[int], float] | None = None


SCALINGS = (
    Scaling("L = 5, t = ∞", lambda n: 5),
    Scaling("L = n/10, t = ∞", lambda n: max(n // 10, 1)),
    Scaling("L = n, t = ∞", lambda n: n),
    Scaling("L = n, ηLt = 1", lambda n: n, lambda n: 1.0),
    Scaling("L = n, ηLt = 4/n", lambda n: n, lambda n: 4 / n),
    Scaling("L = 4n, t = ∞", lambda n: 4 * n),
    Scaling("L = n^1.5, t = ∞", lambda n: round(n**1.5)),
)


@dataclass(frozen=True)
class Outcome:
    """What a scaling predicts at one n.

    Attributes:
        prediction: (M,) on the test points.
        spread: its standard deviation over them: zero for an output that ignores its input.
        correlation: with the truth.
        condition: λ_1/λ_n of the training kernel.
        smallest: λ_n of Θ/L.
        off_diagonal: max |Θ(x, x')/L − ¼| over pairs of training points.
        constant: (1/(n + 3)) Σ y, what the limit L → ∞ predicts everywhere.
    """

    prediction: np.ndarray
    spread: float
    correlation: float
    condition: float
    smallest: float
    off_diagonal: float
    constant: float


def outcome(problem: Task, n: int, scaling: Scaling) -> Outcome:
    """Gradient flow on ½‖u − y‖² from u_0 = 0 with the kernel of depth L(n), stopped at t̄(n)."""
    profile = interpolated(scaling.depth(n))
    x, y = problem.train[:n], problem.targets[:n]
    kernel = profile(angles_between(x, x))
    time = float("inf") if scaling.time is None else scaling.time(n)
    prediction = _flow(kernel, y, time, profile(angles_between(problem.test, x)))
    values = np.linalg.eigvalsh(kernel)
    off = kernel[~np.eye(n, dtype=bool)]
    return Outcome(
        prediction,
        float(prediction.std()),
        float(np.corrcoef(prediction, problem.truth)[0, 1]),
        float(values[-1] / values[0]),
        float(values[0]),
        float(np.abs(off - 0.25).max()),
        float(y.sum() / (n + 3)),
    )


def regression(problem: Task, n: int, scaling: Scaling) -> Outcome:
    """The same at t = ∞ by one Cholesky factor, with λ_1 and λ_n by Lanczos: 10⁴ points are 0.8 GB and a minute."""
    profile = interpolated(scaling.depth(n))
    x, y = problem.train[:n], problem.targets[:n]
    kernel = np.empty((n, n))
    off = 0.0
    for rows in (slice(i, i + ROWS) for i in range(0, n, ROWS)):
        kernel[rows] = profile(angles_between(x[rows], x))
        away = np.abs(kernel[rows] - 0.25)
        away[np.arange(len(away)), np.arange(n)[rows]] = 0.0
        off = max(off, float(away.max()))
    begin = np.random.default_rng(0).standard_normal(n)
    largest = eigsh(kernel, k=1, which="LA", v0=begin, tol=1e-6, return_eigenvectors=False)[0]
    factor = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)

    def solve(b: np.ndarray) -> np.ndarray:
        return cho_solve(factor, b, check_finite=False)

    inverse = LinearOperator((n, n), matvec=solve, dtype=np.float64)
    smallest = 1 / eigsh(inverse, k=1, which="LA", v0=begin, tol=1e-6, return_eigenvectors=False)[0]
    prediction = profile(angles_between(problem.test, x)) @ solve(y)
    return Outcome(
        prediction,
        float(prediction.std()),
        float(np.corrcoef(prediction, problem.truth)[0, 1]),
        float(largest / smallest),
        float(smallest),
        off,
        float(y.sum() / (n + 3)),
    )


def _flow(kernel: np.ndarray, y: np.ndarray, time: float, cross: np.ndarray) -> np.ndarray:
    as_tensor: Callable[[np.ndarray], Tensor] = torch.from_numpy
    targets = as_tensor(y)
    flowed = analytic.gradient_flow(
        as_tensor(kernel), targets, torch.zeros_like(targets), time, test_kernel=as_tensor(cross)
    )
    return flowed.numpy()


def instability(smaller: Outcome, larger: Outcome) -> float:
    """‖f^(2n) − f^(n)‖/‖f^(2n)‖ on the test points, both less their means: does the non-constant part settle?"""
    f, g = (o.prediction - o.prediction.mean() for o in (smaller, larger))
    return float(np.linalg.norm(g - f) / np.linalg.norm(g))
