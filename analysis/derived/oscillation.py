"""Oscillation: what of the outputs goes to and fro at the edge of stability, in which modes, and what it costs.

Of every triple of states in a row that a run holds, by the definitions of :mod:`kerneltrack.observables.oscillation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError, ObservableError
from kerneltrack.observables import Triple, mode_shares, predicted_excess, project, seen_excess

from ..trajectory import Floats, Ints, Run
from .kernels import stored_modes

#: How many leading modes the oscillation is told in: as many as :func:`kerneltrack.observables.mode_shares` gives.
LEADING = 5


@dataclass(frozen=True)
class Oscillation:
    """What has period 2 in the outputs of each triple; NaN where that is their rounding.

    Attributes:
        steps: (Q,) the middle state t of each triple.
        energy: (Q,) ‖δ‖².
        drift: (Q,) ‖d‖², the square of what the outputs drift in an update.
        excess: (Q,) ½ tr(SΣ), the part of the probe's loss that is oscillation, as the second order predicts it.
        seen: (Q,) the same as the losses at the three states show it; NaN where no targets are stored.
        share: (Q,) the predicted one over the loss at t.
        modes: (Q, k) the share of ‖δ‖² along each of the first ``LEADING`` eigenvectors, those of the triple's first state; in a
            cluster of equal eigenvalues the mean over its bases.
    """

    steps: Ints
    energy: Floats
    drift: Floats
    excess: Floats
    seen: Floats
    share: Floats
    modes: Floats

    @property
    def leading(self) -> Floats:
        """(Q,) the share of ‖δ‖² in the first ``LEADING`` eigenvectors."""
        return np.asarray(self.modes.sum(axis=1))


def oscillation(run: Run) -> Oscillation:
    """The oscillation of every triple of a run.

    Raises:
        AnalysisError: no triple, no outputs or eigenvectors, outputs of a callable, or a loss whose curvature is not known.
    """
    run.require("outputs", "eigenvectors", "eigenvalues", "probe_loss", why="the oscillation at the edge")
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
    found = [_of_triple(run, *three) for three in rows]
    numbers = np.array([one[0] for one in found])
    middle = np.array([three[1] for three in rows])
    energy, drift, excess, seen = numbers.T
    with np.errstate(divide="ignore", invalid="ignore"):
        share = excess / run.values("probe_loss")[middle]
    return Oscillation(run.steps[middle], energy, drift, excess, seen, share, np.array([one[1] for one in found]))


def _of_triple(run: Run, first: int, middle: int, last: int) -> tuple[tuple[float, float, float, float], Floats]:
    """‖δ‖², ‖d‖², both excess losses, and the share of each leading mode."""
    triple, loss = Triple(*(run.at("outputs", row) for row in (first, middle, last))), run.settings.get("loss")
    vectors, ends = stored_modes(run, first)
    if triple.is_rounding(run.settings.get("dtype")):
        return (np.nan,) * 4, np.full(min(vectors.shape[1], LEADING), np.nan)
    targets = run.values("targets") if run.has("targets") else None
    try:
        excess = predicted_excess(loss, triple, targets)
    except ObservableError as error:
        raise AnalysisError(error.problem, expected=error.expected, got=error.got) from error
    seen = np.nan if targets is None else seen_excess(loss, triple, targets)
    shares = mode_shares(vectors, project(run.seen(triple.delta), run.settings["output"]), ends)
    return (float(np.sum(triple.delta**2)), float(np.sum(triple.drift**2)), excess, seen), shares
