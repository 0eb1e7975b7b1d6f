"""What the checks are made of: runs beside their controls, as results.json holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from alignment_runs import Recipe
from alignment_tracks import Floats
from claims import spread
from portrait import SLOPE, mlp
from results import Results


@dataclass(frozen=True)
class Track:
    """One run: what :func:`alignment_tracks.track` kept of its archive, and of a main run what its modes look like.

    Attributes:
        facts: by name.
    """

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    @property
    def steps(self) -> np.ndarray:
        return np.array(self["steps"])

    @property
    def measured(self) -> np.ndarray:
        """Which snapshots have modes: (S,)."""
        return np.array(self["measured"])

    @property
    def modes(self) -> tuple[int, int, int]:
        """k of few, some and many modes."""
        few, some, many = self["modes"]
        return few, some, many

    def rate(self, step: int) -> float:
        """η of the update that leaves the state after ``step`` updates."""
        return float(self["rates"][self["steps"].index(step)])

    def values(self, name: str) -> Floats:
        """A named quantity at every snapshot, NaN where it is not known."""
        return np.array([np.nan if value is None else value for value in self["series"][name]], dtype=np.float64)


@dataclass(frozen=True)
class Forked:
    """A run and its controls.

    Attributes:
        run: takes all of its decays.
        controls: by the decay, as its update, that each leaves out.
    """

    run: Track
    controls: dict[int, Track] = field(default_factory=dict)

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
        recipe: of the main run of the first seed.
        main: the picture by gradient descent, one per seed, with controls.
        mirror: energies of both pictures in the kernels of both runs, one per seed.
        sweep: (width, depth) → one per seed; the main runs stand for their own shape.
        others: "momentum" and "adam", one per seed, with controls.
        digits: cross-entropy, one per seed, with controls.
        sweep_step: at which the sweep is compared.
        diagonals: of the first kernel, means over points, one per initialisation.
    """

    recipe: Recipe
    main: list[Forked]
    mirror: list[Mapping[str, Any]]
    sweep: dict[tuple[int, int], list[Track]]
    others: dict[str, list[Forked]]
    digits: list[Forked]
    sweep_step: int
    diagonals: list[float]

    @classmethod
    def of(cls, results: Results) -> Runs:
        def some(kind: str) -> list[dict[str, Any]]:
            return [run for run in results.runs if run["kind"] == kind]

        main = [_forked(run) for run in some("main")]
        recipes = [_recipe(run["recipe"]) for run in some("main")]
        sweep = {(recipes[0].width, recipes[0].depth): [forked.run for forked in main]}
        for run in some("sweep"):
            sweep.setdefault((run["recipe"]["width"], run["recipe"]["depth"]), []).append(Track(run["run"]))
        others: dict[str, list[Forked]] = {}
        for run in some("others"):
            others.setdefault(run["recipe"]["optimizer"], []).append(_forked(run))
        return cls(
            recipe=recipes[0],
            main=main,
            mirror=[run["pictures"] for run in some("main")],
            sweep=sweep,
            others=others,
            digits=[_forked(run) for run in some("digits")],
            sweep_step=results.settings["sweep"],
            diagonals=some("start")[0]["diagonals"],
        )

    @property
    def tracks(self) -> list[Track]:
        """Every run, followed by its controls, once."""
        forked = [*self.main, *(f for seeds in self.others.values() for f in seeds), *self.digits]
        swept = [track for shape in list(self.sweep)[1:] for track in self.sweep[shape]]
        return [track for f in forked for track in (f.run, *f.controls.values())] + swept

    @property
    def decays(self) -> tuple[int, ...]:
        return self.recipe.decays

    @property
    def k(self) -> tuple[int, int, int]:
        return self.main[0].run.modes

    def each(self, number: Callable[[Track], float], digits: int = 3) -> str:
        """A number of every main run: median and range over seeds."""
        return spread([number(f.run) for f in self.main], digits)

    def every(self, condition: Callable[[Track], bool]) -> bool:
        """Whether something is true of every main run."""
        return all(condition(f.run) for f in self.main)


def _forked(run: Mapping[str, Any]) -> Forked:
    return Forked(Track(run["run"]), {int(decay): Track(found) for decay, found in run["controls"].items()})


def _recipe(facts: Mapping[str, Any]) -> Recipe:
    return Recipe(**{**facts, "decays": tuple(facts["decays"]), "observables": tuple(facts["observables"])})


def at(run: Track, name: str, step: int) -> float:
    """A named quantity at one step."""
    if step not in run["steps"]:
        raise LookupError(f"{run['name']} was not measured at step {step}")
    return float(run.values(name)[run["steps"].index(step)])


def paired(run: Track) -> list[int]:
    """t of every pair of states (t − 1, t) that were both measured with their modes."""
    steps = {int(step) for step in run.steps[run.measured]}
    return sorted(step for step in steps if step - 1 in steps)


def pair(run: Track, name: str, step: int) -> float:
    """A named quantity's mean over the states (t − 1, t): both phases of an orbit of period 2."""
    return (at(run, name, step - 1) + at(run, name, step)) / 2


def between(run: Track, name: str, first: int, last: int) -> Floats:
    """A named quantity at the snapshots in [first, last] that have it, for light states of pairs have no spectrum; else NaN."""
    values = run.values(name)[(run.steps >= first) & (run.steps <= last)]
    finite = np.isfinite(values)
    return values[finite] if finite.any() else values


def smallest(run: Track, name: str) -> tuple[float, int]:
    """The smallest value of a quantity over the run, and its step."""
    values = run.values(name)
    row = int(np.nanargmin(values))
    return float(values[row]), int(run.steps[row])


def last_step(run: Track) -> int:
    return int(run.steps[-1])


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
