"""Numbers about eigenfunctions as functions: projections of the output, frequencies, how far their span has turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import subspace_overlap

from ..trajectory import Floats, Ints, Run

#: Largest frequency, in periods over the width of the inputs: what a picture of a few hundred points can show.
_MAX_FREQUENCY = 15


def output_in_top_modes(run: Run, row: int, k: int) -> Floats:
    """P_k f of the first output, (N,): the part of the network's output in the span of the first k stored eigenvectors.

    Raises:
        AnalysisError: fewer than k eigenvectors or no outputs are stored, or the reduction has no such projection.
    """
    run.require("eigenvectors", "outputs", why="the output in the top modes")
    stored, outputs = run.at("eigenvectors", row), run.seen(run.at("outputs", row))
    samples, kept, held = stored.shape
    if k > held:
        raise AnalysisError("projecting on the top modes", expected=f"k ≤ {held}, the stored eigenvectors", got=k)
    if kept not in (1, outputs.shape[1]) or run.settings.get("output") in ("sum", "callable"):
        raise AnalysisError(
            f"outputs have no projection on a {run.settings.get('output')!r} kernel", where=run.path or None
        )
    vectors = stored[:, :, :k].reshape(samples * kept, k)
    columns = outputs.reshape(samples * kept, -1)
    return np.asarray((vectors @ (vectors.T @ columns)).reshape(samples, -1)[:, 0])


def mean_frequencies(points: Floats, vectors: Floats) -> Floats:
    """Mean radial frequency of functions on scattered points, (M,), in periods over the width of the inputs.

    φ̂(ξ) = (1/N) Σ_j (φ(x_j) − φ̄) exp(−2πi ξ·x_j), x scaled to the unit square, integers |ξ_1|, |ξ_2| ≤ min(15, √N/2);
    p(ξ) = |φ̂(ξ)|² − (1/N²) Σ_j (φ(x_j) − φ̄)², and ⟨|ξ|⟩ = Σ_ξ |ξ| p(ξ) / Σ_ξ p(ξ) without ξ = 0. The subtracted
    term is what scattered points give at every ξ whatever the function; it would draw all means to that of the grid.
    What is left of the scatter is noise: NaN where the power is below three of its standard errors.

    Args:
        points: (N, 2).
        vectors: (N, M) functions on them.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / np.where(high > low, high - low, 1.0)
    limit = min(_MAX_FREQUENCY, int(np.sqrt(len(points)) / 2))
    side = range(-limit, limit + 1)
    # A real function's transform is symmetric: half of the plane suffices.
    grid = np.array([(a, b) for a in side for b in side if (a, b) > (0, 0)])
    centred = vectors - vectors.mean(axis=0)
    transform = np.exp(-2j * np.pi * (grid @ unit.T)) @ centred / len(points)
    floor = np.sum(centred**2, axis=0) / len(points) ** 2
    power = np.abs(transform) ** 2 - floor
    total = power.sum(axis=0)
    # |φ̂|² of pure scatter is exponential: its standard deviation is its mean, the floor.
    means = np.hypot(*grid.T) @ power / np.where(total == 0, 1.0, total)
    return np.where(total > 3 * np.sqrt(len(grid)) * floor, means, np.nan)


def span_overlaps(run: Run, rows: Sequence[int], k: int) -> Floats:
    """‖V_sᵀ V_t‖_F² / k for every pair of rows, (R, R): 1 for the same span of k eigenvectors, k/M for unrelated ones.

    It does not depend on signs, nor on rotations inside the span; it jumps where λ_k and λ_{k+1} swap places.
    """
    run.require("eigenvectors", why="the overlap of eigenspaces")
    spans = []
    for row in rows:
        vectors = run.at("eigenvectors", row)
        spans.append(vectors.reshape(-1, vectors.shape[-1])[:, :k])
    return np.array([[float(subspace_overlap(a, b, [k])[0]) for b in spans] for a in spans])


def spread_points(points: Floats, count: int) -> Ints:
    """Indices of ``count`` points far from each other: first the most central, then always the farthest."""
    centre = points.mean(axis=0)
    chosen = [int(np.argmin(np.sum((points - centre) ** 2, axis=1)))]
    for _ in range(count - 1):
        gaps = np.min([np.sum((points - points[i]) ** 2, axis=1) for i in chosen], axis=0)
        chosen.append(int(np.argmax(gaps)))
    return np.array(chosen, dtype=np.int64)
