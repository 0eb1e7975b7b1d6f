"""What is kept of an archive: the named quantities of every snapshot, and the numbers that need its vectors.

An archive of this study is up to 44 MB, and results.json at most one; the claims and the page are made of this alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerneltrack.analysis import Run, load
from kerneltrack.analysis.derived.eigenfunctions import mean_frequencies
from kerneltrack.analysis.derived.quantities import quantity
from kerneltrack.analysis.figures.canvas import planar_inputs
from kerneltrack.errors import AnalysisError

Floats = NDArray[np.float64]
#: of every run, where it has them
SERIES = (
    "eigenvalue_1", "eigenvalue_10", "eigenvalue_100", "stability_ratio", "hessian_stability_ratio", "probe_loss",
    "kernel_flow_error", "linearization_cosine", "linearization_error", "relative_kernel_change",
    "kernel_distance_from_initial", "optimizer_target_alignment", "kernel_target_alignment",
)  # fmt: skip
#: of every run, at k of few, some and many modes
ENERGIES = ("target_energy", "target_energy_centred", "target_energy_null", "output_energy", "residual_energy")
#: The share of energy that is called "almost completely".
ALMOST = 0.98


def track(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """What is kept of the archive of one run.

    Args:
        path: of the archive.
        whole: of a main run or its control: E(y, k) at every k, and of a run on the picture what its modes look like.
    """
    run = load(path).only
    grid, k = [int(v) for v in run.values("energy_k")], energy_modes(run)
    names = [*SERIES, *(f"{name}_{at}" for name in ENERGIES for at in k)]
    names += [f"target_energy_{at}" for at in grid if whole and 1 < at < run.count]
    found = {name: values for name in dict.fromkeys(names) if (values := _values(run, name)) is not None}
    return {
        "name": path.stem,
        "count": run.count,
        "outputs": run.outputs,
        "kernel": run.settings["output"],
        "mb": round(path.stat().st_size / 1e6, 1),
        "measuring": round(float(np.nansum(run.values("snapshot_seconds"))), 1),
        "parameters": sum(int(np.prod(p["shape"])) for p in run.provenance["parameters"]),
        "modes": k,
        "grid": [at for at in grid if 1 < at < run.count],
        "steps": [int(step) for step in run.steps],
        "measured": [bool(value) for value in run.measured],
        "rates": [_short(value) for value in run.learning_rates[:, 0]],
        "series": found,
    }


def looks(path: Path, decays: Sequence[int]) -> dict[str, Any]:
    """Of a main run: what its modes and coefficients are like at the start and at the end, and what a decay should do."""
    run = load(path).only
    k, first = energy_modes(run), run.at("eigenvectors", 0)[:, 0, 0]
    squares = (run.values("output_coefficients")[-1] ** 2).ravel()
    return {
        "missing": missing_by_modes(run, k),
        "rays": [_rays(run, row) for row in (0, -1)],
        "constant": float(abs(first.sum()) / len(first) ** 0.5),
        "frequencies": [_frequencies(run, row) for row in (0, -1)],
        "vectors": int(run.dataset.sizes["vector"]),
        "held_by": int(np.searchsorted(np.cumsum(squares) / squares.sum(), ALMOST) + 1),
        "predicted": {str(decay): predicted_energy_after(run, decay, k[0]) for decay in decays},
    }


def pictures(own: Path, mirror: Path, step: int) -> dict[str, Any]:
    """E(y, few) of both pictures in the kernels of both runs and in the one they start from, means of the pair (t − 1, t)."""
    runs = [load(path).only for path in (own, mirror)]
    targets, k = [run.values("targets").reshape(-1) for run in runs], energy_modes(runs[0])[0]

    def energy(run: Run, target: Floats) -> float:
        return float(np.mean([energy_of(run, t, target, k) for t in (step - 1, step)]))

    return {
        "step": step,
        "own": [energy(run, y) for run, y in zip(runs, targets, strict=True)],
        "foreign": [energy(run, y) for run, y in zip(runs[::-1], targets, strict=True)],
        "start": [energy_of(run, 0, y, k) for run, y in zip(runs, targets, strict=True)],
    }


def energy_of(run: Run, step: int, target: Floats, k: int) -> float:
    """E(φ, k) of any function on the probe in the run's first k eigenvectors at a step."""
    row = run.row(step)
    assert row is not None
    vectors = run.at("eigenvectors", row).reshape(run.count, -1)[:, :k]
    return float(np.sum((vectors.T @ target) ** 2) / np.sum(target**2))


def predicted_energy_after(run: Run, step: int, k: int) -> float:
    """E(m, k) one update later if the kernel stood still: every coefficient of the residual times 1 − ηλ_i/N.

    η is the rate of the update that leaves the state: at a decay, the new one.
    """
    row = run.row(step)
    assert row is not None
    factors = 1 - run.learning_rates[row, 0] * run.values("eigenvalues")[row] / run.count
    squares = (run.values("residual_coefficients")[row].reshape(len(factors), -1) ** 2).sum(axis=1) * factors**2
    return float(squares[:k].sum() / squares.sum())


def missing_by_modes(run: Run, edges: Sequence[int]) -> list[float]:
    """‖residual‖²/‖target‖² at the end, in the modes up to each edge and after the one before."""
    residual, target = (run.values(f"{name}_coefficients")[-1] ** 2 for name in ("residual", "target"))
    groups = zip([0, *edges], [*edges, len(target)], strict=True)
    return [float(residual[a:b].sum() / target[a:b].sum()) for a, b in groups]


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


def _rays(run: Run, row: int) -> float:
    return float(np.mean(ray_share(planar_inputs(run), run.at("eigenvectors", row)[:, 0, 1:6])))


def _frequencies(run: Run, row: int) -> float:
    found = mean_frequencies(planar_inputs(run), run.at("eigenvectors", row)[:, 0])
    return rank_correlation(np.arange(len(found), dtype=np.float64), found)


def _values(run: Run, name: str) -> list[float | None] | None:
    """A named quantity at every snapshot; nothing where the run does not have it."""
    try:
        values = quantity(run, name)
    except AnalysisError:
        return None
    return [_short(value) if np.isfinite(value) else None for value in values]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
