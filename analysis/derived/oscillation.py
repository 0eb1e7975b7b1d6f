"""Oscillation: what of the outputs goes to and fro at the edge of stability, in which modes, and what it costs.

From the outputs at three states in a row δ = (2f_t − f_{t−1} − f_{t+1})/4 is what has period 2, the drift
(f_{t+1} − f_{t−1})/2 aside; a pair alone would mix half of that in. The mean loss over both phases is larger than the loss
of the mean outputs by ½ tr(SΣ), Σ = δδᵀ, S = ∇²_f L: exactly for squares, to second order for other losses. After the
central flows of Cohen et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.observables import change_is_rounding, project
from kerneltrack.snapshot import Reduction

from ..trajectory import Floats, Ints, Run

#: How many leading modes the oscillation is told in.
LEADING = 5


@dataclass(frozen=True)
class Oscillation:
    """What has period 2 in the outputs of each triple; NaN where that is their rounding.

    Attributes:
        steps: (Q,) the middle state t of each triple.
        energy: (Q,) ‖δ‖².
        excess: (Q,) ½ tr(SΣ), the part of the probe's loss that is oscillation.
        share: (Q,) that of the loss at t.
        leading: (Q,) the share of ‖δ‖² in the first ``LEADING`` eigenvectors, those of the triple's first state.
    """

    steps: Ints
    energy: Floats
    excess: Floats
    share: Floats
    leading: Floats


def oscillation(run: Run) -> Oscillation:
    """The oscillation of every triple of a run.

    Raises:
        AnalysisError: no triple, no outputs or eigenvectors, outputs of a callable, or a loss whose curvature is not known.
    """
    run.require("outputs", "eigenvectors", "probe_loss", why="the oscillation at the edge")
    reduction = run.settings.get("output")
    if reduction not in ("full", "diagonal", "trace", "sum"):
        raise AnalysisError("the oscillation of outputs", expected="a kernel of the outputs themselves", got=reduction)
    whole = np.flatnonzero(run.groups.third >= 0)
    if not whole.size:
        raise AnalysisError(
            "the archive holds no triples of snapshots",
            where=run.path or None,
            remedy="Measure triples: NTKTracker(schedule=kt.schedule.Every(n, window=3)).",
        )
    rows = [(int(run.groups.first[i]), int(run.groups.second[i]), int(run.groups.third[i])) for i in whole]
    found = np.array([_of_triple(run, reduction, *three) for three in rows])
    middle = np.array([three[1] for three in rows])
    energy, excess, leading = found.T
    with np.errstate(divide="ignore", invalid="ignore"):
        share = excess / run.values("probe_loss")[middle]
    return Oscillation(run.steps[middle], energy, excess, share, leading)


def _of_triple(run: Run, reduction: Reduction, first: int, middle: int, last: int) -> tuple[float, float, float]:
    """‖δ‖², ½ tr(SΣ), and the share of the leading modes."""
    before, now, after = (run.at("outputs", row) for row in (first, middle, last))
    delta = (2 * now - before - after) / 4
    size = float(np.linalg.norm(now))
    if change_is_rounding(float(np.linalg.norm(delta)), size, run.settings.get("dtype")):
        return np.nan, np.nan, np.nan
    vectors = run.at("eigenvectors", first)
    vectors = vectors.reshape(-1, vectors.shape[-1])[:, :LEADING]
    columns = project(delta, reduction)
    leading = float(np.sum((vectors.T @ columns) ** 2) / np.sum(columns**2)) if columns.any() else np.nan
    return float(np.sum(delta**2)), _excess(run, (before + 2 * now + after) / 4, delta), leading


def _excess(run: Run, outputs: Floats, delta: Floats) -> float:
    """½ Σ_n δ_nᵀ S_n δ_n, S_n the curvature of the mean loss at point n and the mean ``outputs`` (N, O)."""
    count, width = delta.shape
    loss = run.settings.get("loss")
    if loss == "half_mse":
        return float(np.sum(delta**2) / (2 * count))
    if loss == "mse":
        return float(np.sum(delta**2) / (count * width))
    if loss == "cross_entropy" and width > 1:
        odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        p = odds / odds.sum(axis=1, keepdims=True)
        spread = np.sum(p * delta**2) - np.sum(np.sum(p * delta, axis=1) ** 2)
        return float(spread / (2 * count))
    raise AnalysisError("the oscillation's part of the loss", expected="half_mse, mse or cross_entropy", got=repr(loss))
