"""The runs of the deep limit in closed form: what its kernel tends to, and what each scaling of depth and time predicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from deep_limit import Outcome, Scaling, Task, instability, interpolated, kernel_of_angle, scaling_form
from erf_limit import Critical

from kerneltrack import analytic

#: σ_b² of erf
BIASES = 0.01, 0.1
#: correlations of inputs to erf without biases
INPUTS = 0.3, 0.7
#: points of each curve Θ/L over Lθ/3π that the figure shows
SHOWN = 100


def limits(depths: Sequence[int]) -> dict[str, Any]:
    """Off-diagonals of Θ/L at orthogonal inputs and beside F(Lθ/3π), of the NNGP, and of erf, at every depth."""
    lines, free = [Critical.of(bias) for bias in BIASES], Critical.of(0.0)
    return {
        "kind": "limits",
        "depths": list(depths),
        "off": [float(interpolated(depth)(np.pi / 2)) for depth in depths],
        "nngp": [depth**2 * (1 - _nngp_correlation(depth)) * 2 / (9 * np.pi**2) for depth in depths],
        "errors": [_scaling_error(depth) for depth in depths],
        "curves": [_curve(depth) for depth in depths],
        "erf": [[line.ratio(0.0, depth) for depth in depths] for line in lines],
        "free": [free.ratio(correlation, depths[-1]) for correlation in INPUTS],
    }


def scaled(
    kind: str, problem: Callable[[], Task], counts: Sequence[int], scaling: Scaling,
    solve: Callable[[Task, int, Scaling], Outcome],
) -> dict[str, Any]:  # fmt: skip
    """What a scaling predicts at every n, and how much that changes from one n to the next."""
    task = problem()
    found = [solve(task, n, scaling) for n in counts]
    return {
        "kind": kind,
        "name": scaling.name,
        "truth": float(task.truth.std()),
        "outcomes": [_numbers(task, n, outcome) for n, outcome in zip(counts, found, strict=True)],
        "changes": [instability(a, b) for a, b in itertools.pairwise(found)],
    }


def _numbers(task: Task, n: int, outcome: Outcome) -> dict[str, float]:
    f, constant = outcome.prediction, outcome.constant
    return {
        "n": n,
        "spread": outcome.spread,
        "correlation": outcome.correlation,
        "condition": outcome.condition,
        "off_diagonal": outcome.off_diagonal,
        "constant": constant,
        "miss": float(np.abs(f - constant).max()),
        "signs": float(np.mean((f > constant) == (task.truth > 0))),
    }


def _nngp_correlation(depth: int) -> float:
    pair = torch.eye(2, dtype=torch.float64)
    covariance = analytic.relu_nngp(pair, depth=depth)
    return float(covariance[0, 1] / covariance[0, 0])


def _scaling_error(depth: int) -> float:
    angles, values = kernel_of_angle(depth)
    form = scaling_form(depth * angles[1:] / (3 * np.pi))
    return float(np.max(np.abs(values[1:] / form - 1)))


def _curve(depth: int) -> list[list[float]]:
    """[u], [Θ/L]."""
    angles, values = kernel_of_angle(depth)
    chosen = np.linspace(1, len(angles) - 1, SHOWN).astype(int)
    u = depth * angles[chosen] / (3 * np.pi)
    return [[float(f"{v:.5g}") for v in row] for row in (u, values[chosen])]
