"""Numbers over modes that figures need beyond what is stored row by row: profiles, scaled eigenvalues, chosen modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from kerneltrack.observables import relative_energy
from kerneltrack.spectrum import cluster_ends

from ..trajectory import Floats, Run
from .mode_factors import residual_curvature

Function = Literal["target", "output", "residual", "displacement"]
#: Eigenvalues that are followed over time, counted from 1: the 1-2-5 grid of decades, as far as there are modes.
FOLLOWED = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def followed(run: Run, limit: int = 8) -> tuple[int, ...]:
    """Which eigenvalues (counted from 1) stand for the whole spectrum, at most ``limit`` of them."""
    modes = run.values("eigenvalues", why="the spectrum").shape[1]
    return tuple(i for i in FOLLOWED if i <= modes)[:limit]


def energy_profile(run: Run, function: Function, row: int) -> Floats:
    """E(φ, k) for every k = 1, …, modes at one row, from the stored coefficients and ‖φ‖²; (modes,).

    Raises:
        AnalysisError: the coefficients are not stored, or the solver was iterative and ‖φ‖² is not known.
    """
    coefficients = run.values(f"{function}_coefficients", why=f"the {function}'s energy profile")[row]
    coefficients = coefficients.reshape(len(coefficients), -1)
    every = range(1, len(coefficients) + 1)
    ends = cluster_ends(
        run.values("eigenvalues", why="the energy profile")[row][: len(coefficients)], rounding(run, row)
    )
    return np.asarray(relative_energy(coefficients, squared_norm(run, function, row), every, ends))


def rounding(run: Run, row: int) -> float:
    """What separates rounding from a gap between eigenvalues, as far as it is stored."""
    named = {"noise_floor": 1.0, "eigen_residual": 2.0}
    stored = [factor * float(run.values(name)[row]) for name, factor in named.items() if name in run.dataset]
    return float(np.nansum(stored))


def squared_norm(run: Run, function: Function, row: int) -> float:
    """‖φ‖² of a function as the kernel's reduction sees it."""
    coefficients = run.values(f"{function}_coefficients", why=f"the {function}'s norm")[row]
    if len(coefficients) == run.dimension:  # every mode is there, and the eigenvectors are a basis
        return float(np.sum(coefficients**2))
    stored = {"target": "targets", "output": "outputs", "residual": "residual"}.get(function)
    values = run.values(stored or "displacement_coefficients", why=f"the {function}'s norm")
    phi = values if stored == "targets" else values[row]
    if run.settings.get("output") == "sum":
        return float(np.sum(phi.sum(axis=-1) ** 2))
    return float(np.sum((run.seen(phi) if stored else phi) ** 2))


def mode_energy(run: Run, function: Function, row: int) -> Floats:
    """⟨v_i, φ⟩²/‖φ‖² for every mode at one row, summed over a trace kernel's outputs; (modes,)."""
    coefficients = run.values(f"{function}_coefficients", why=f"the {function}'s spectrum")[row]
    norm = squared_norm(run, function, row)
    squares = np.sum(coefficients.reshape(len(coefficients), -1) ** 2, axis=1)
    return np.asarray(squares / norm if norm > 0 else np.full(len(squares), np.nan))


def binned(values: Floats, per_decade: int = 12) -> Floats:
    """Means over bins of a mode index that are equally wide in log i, the first ten modes each by itself.

    Single modes scatter over decades as a squared Gaussian does; a line through all of them shows that scatter only.
    """
    edges = np.unique(np.round(10 ** np.arange(0, np.log10(len(values)) + 1, 1 / per_decade)).astype(int))
    starts = np.unique(np.concatenate([np.arange(11), edges[edges > 11] - 1]))
    starts = starts[starts < len(values)]
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))))


def speeds(run: Run, modes: Sequence[int]) -> Floats:
    """H η_t λ_i / N for the chosen modes, (S, len(modes)): one update's share of each mode, 2 at the edge of stability.

    Raises:
        AnalysisError: the modes do not decay one by one under this loss, optimizer or reduction.
    """
    rates = run.learning_rates
    curvature = residual_curvature(run, *[tuple(r) for r in rates])
    eigenvalues = run.values("eigenvalues", why="scaled eigenvalues")[:, np.asarray(modes) - 1]
    return np.asarray(curvature * rates[:, :1] * eigenvalues / run.count)


def nearest_k(run: Run, wanted: Sequence[int]) -> list[int]:
    """Positions in the archive's energy_k of the values nearest to ``wanted`` (in log k), each once, ascending."""
    grid = run.values("energy_k", why="relative energies")
    return sorted({int(np.argmin(np.abs(np.log(grid) - np.log(k)))) for k in wanted})


def representative_rows(run: Run, count: int) -> list[int]:
    """At most ``count`` measured rows: the first, the last, and between them evenly spread in rank."""
    rows = np.flatnonzero(run.measured)
    if not rows.size:
        return []
    picks = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [int(rows[i]) for i in picks]
