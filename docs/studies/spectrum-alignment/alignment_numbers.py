"""What the checks are made of: runs beside their controls, and numbers that no archive stores under a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from alignment_runs import Recipe
from claims import spread
from numpy.typing import NDArray
from portrait import SLOPE, mlp

from kerneltrack.analysis import Run
from kerneltrack.analysis.derived.quantities import quantity

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Forked:
    """A run and its controls.

    Attributes:
        run: takes all of its decays.
        controls: by the decay, as its update, that each leaves out.
    """

    run: Run
    controls: dict[int, Run] = field(default_factory=dict)

    def common(self, decay: int) -> list[int]:
        """t of the pairs (t − 1, t) after the decay that run and control both measured."""
        control = self.controls[decay]
        return [t for t in paired(control) if t > decay + 1 and t in paired(self.run)]

    def late(self, name: str, decay: int, stretch: int = 1) -> tuple[float, float]:
        """Median of a quantity over the pairs in the later half of the control's steps: of the run, and of the control.

        The later half, because an effect needs time; pairs, because at the edge of stability single states oscillate.

        Args:
            name: of the quantity.
            decay: which one.
            stretch: the run is taken this many times as long after the decay as the control; 2 compares at equal Ση.
        """
        steps = self.common(decay)
        chosen = [t for t in steps if t >= (decay + steps[-1]) / 2]
        control = np.median([pair(self.controls[decay], name, t) for t in chosen])
        return float(np.median([pair(self.run, name, decay + stretch * (t - decay)) for t in chosen])), float(control)


@dataclass(frozen=True)
class Runs:
    """Every run of the study.

    Attributes:
        recipe: of the main run.
        main: the picture by gradient descent, one per seed, with controls.
        mirror: the mirrored picture, one per seed.
        sweep: (width, depth) → one per seed; the main runs stand for their own shape.
        others: "momentum" and "adam", one per seed, with controls.
        digits: cross-entropy, one per seed, with controls.
        sweep_step: at which the sweep is compared.
    """

    recipe: Recipe
    main: list[Forked]
    mirror: list[Run]
    sweep: dict[tuple[int, int], list[Run]]
    others: dict[str, list[Forked]]
    digits: list[Forked]
    sweep_step: int

    @property
    def decays(self) -> tuple[int, ...]:
        return self.recipe.decays

    @property
    def k(self) -> tuple[int, int, int]:
        return energy_modes(self.main[0].run)

    def each(self, number: Callable[[Run], float], digits: int = 3) -> str:
        """A number of every main run: median and range over seeds."""
        return spread([number(f.run) for f in self.main], digits)

    def every(self, condition: Callable[[Run], bool]) -> bool:
        """Whether something is true of every main run."""
        return all(condition(f.run) for f in self.main)


def at(run: Run, name: str, step: int) -> float:
    """A named quantity at one step."""
    row = run.row(step)
    if row is None:
        raise LookupError(f"{run.name} was not measured at step {step}")
    return float(quantity(run, name)[row])


def paired(run: Run) -> list[int]:
    """t of every pair of states (t − 1, t) that were both measured with their modes."""
    steps = {int(step) for step in run.steps[run.measured]}
    return sorted(step for step in steps if step - 1 in steps)


def pair(run: Run, name: str, step: int) -> float:
    """A named quantity's mean over the states (t − 1, t): both phases of an orbit of period 2."""
    return (at(run, name, step - 1) + at(run, name, step)) / 2


def between(run: Run, name: str, first: int, last: int) -> Floats:
    """A named quantity at the snapshots in [first, last] that have it, for light states of pairs have no spectrum; else NaN."""
    values = quantity(run, name)[(run.steps >= first) & (run.steps <= last)]
    finite = np.isfinite(values)
    return values[finite] if finite.any() else values


def smallest(run: Run, name: str) -> tuple[float, int]:
    """The smallest value of a quantity over the run, and its step."""
    values = quantity(run, name)
    row = int(np.nanargmin(values))
    return float(values[row]), int(run.steps[row])


def last_step(run: Run) -> int:
    return int(run.steps[-1])


def predicted_energy_after(run: Run, step: int, k: int) -> float:
    """E(m, k) one update later if the kernel stood still: every coefficient of the residual times 1 − ηλ_i/N.

    η is the rate of the update that leaves the state: at a decay, the new one.
    """
    row = run.row(step)
    assert row is not None
    factors = 1 - run.learning_rates[row, 0] * run.values("eigenvalues")[row] / run.count
    squares = (run.values("residual_coefficients")[row].reshape(len(factors), -1) ** 2).sum(axis=1) * factors**2
    return float(squares[:k].sum() / squares.sum())


def energy_of(run: Run, step: int, target: Floats, k: int) -> float:
    """E(φ, k) of any function on the probe in the run's first k eigenvectors at a step."""
    row = run.row(step)
    assert row is not None
    vectors = run.at("eigenvectors", row).reshape(run.count, -1)[:, :k]
    return float(np.sum((vectors.T @ target) ** 2) / np.sum(target**2))


def missing_by_modes(run: Run, edges: Sequence[int]) -> list[float]:
    """‖residual‖²/‖target‖² at the end, in the modes up to each edge and after the one before."""
    residual, target = (run.values(f"{name}_coefficients")[-1] ** 2 for name in ("residual", "target"))
    groups = zip([0, *edges], [*edges, len(target)], strict=True)
    return [float(residual[a:b].sum() / target[a:b].sum()) for a, b in groups]


def expected_diagonal(recipe: Recipe) -> float:
    """Mean of Θ_0(x, x) over points and initialisations, from the second moments alone.

    A symmetric weight matrix of variance v and n inputs makes ‖z‖²/width = v‖h‖² of its inputs h; a leaky ReLU of slope s
    keeps c = (1 + s²)/2 of it; gradients go back by the same rules. Θ(x, x) = Σ_l (‖h_{l−1}‖² + 1)‖∂f/∂z_l‖², and
    standardised inputs have ‖h_0‖² = d on average. Forward it is exact; going back, gradients are taken to be independent
    of the activations, which holds up to 1/width.
    """
    c = (1 + SLOPE**2) / 2
    layers = [m for m in mlp(2, recipe.width, recipe.depth, 1) if hasattr(m, "in_features")]
    shapes = [(layer.in_features, layer.out_features) for layer in layers]
    forward = [2.0]
    for fan_in, fan_out in shapes[:-1]:
        forward.append(forward[-1] * 2 / (fan_in + fan_out) * fan_out * c)
    backward = [1.0]
    for fan_in, fan_out in reversed(shapes[1:]):
        backward.append(backward[-1] * 2 / (fan_in + fan_out) * fan_in * c)
    return sum((h + 1) * d for h, d in zip(forward, reversed(backward), strict=True))


def ray_share(points: Floats, vectors: Floats) -> Floats:
    """Share of each function (N, M) that is r·a(φ) + b(φ) in polar coordinates, a and b sums of a few harmonics, (M,).

    Corrected for the number of coefficients, so that noise has 0.
    """
    radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
    orders = range(1, min(12, len(points) // 40) + 1)
    angular = [np.ones_like(angle), *(f(m * angle) for m in orders for f in (np.cos, np.sin))]
    design = np.stack([r * a for r in (np.ones_like(radius), radius) for a in angular], axis=1)
    left = vectors - design @ np.linalg.lstsq(design, vectors, rcond=None)[0]
    points_left = 1 - design.shape[1] / len(points)
    return 1 - np.sum(left**2, axis=0) / np.sum(vectors**2, axis=0) / points_left


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's, over the entries where both are finite."""
    known = np.isfinite(a) & np.isfinite(b)
    ranks = [np.argsort(np.argsort(v[known])) for v in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if known.sum() > 2 else math.nan


def energy_modes(run: Run) -> tuple[int, int, int]:
    """k of "few", "some" and "many" modes: 20, 100 and 400 from a thousand points on, the same shares below."""
    grid = run.values("energy_k")
    few, some, many = (
        int(grid[grid <= max(1, min(k, share * run.count))].max()) for k, share in ((20, 0.02), (100, 0.1), (400, 0.4))
    )
    return few, some, many
