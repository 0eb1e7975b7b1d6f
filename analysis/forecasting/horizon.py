"""Horizon: how far a kernel that stands still can be believed, by what a linear model missed of this run so far.

The first thing that a linear model misses is of second order in the way: it is a share of the way that grows with the way
itself. So each measured error e, a squared share of a way w in the outputs, gives a share per unit of way,

    κ = max(√e₁/‖f_{t+1} − f_t‖,  √e₀/‖f_t − f_0‖),        e₁ = linearization_error, e₀ = anchored_linearization_error,

and what is forecast to move by w_k may be wrong by the share E_k = κ w_k. The horizon is the last update before E exceeds
``LIMIT``. A wrong way δ, ‖δ‖ ≤ E_k w_k, moves the loss by at most ‖m‖ ‖δ‖/N + s‖δ‖²/(2N). What is held at the edge may as
well be growing: until something holds it, it does so as the linear model has it, and both way and error allow for that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import AnalysisError

from ..statements import Course
from ..trajectory import Ints, Run
from .law import Law

#: A forecast that may be wrong by half of its way is none.
LIMIT = 0.5


def missed_per_way(run: Run, row: int, law: Law, own: float) -> float:
    """κ of a state, by the larger of the two errors; what is not known has no part.

    Args:
        run: the run.
        row: the state.
        law: how its residual goes on.
        own: the learning rate of the update that leaves it, of which e₁ was measured.

    Raises:
        AnalysisError: neither is stored for this state.
    """
    way = float(law.follow(own, np.array([0, 1]), furthest=np.inf).way[1])
    known = [
        np.sqrt(error) / length
        for error, length in (
            (_stored(run, "linearization_error", row), way),
            (_anchored(run, row), _displaced(run, row)),
        )
        if np.isfinite(error + length) and length > 0
    ]
    if not known:
        raise AnalysisError(
            "no forecast: nothing says how far a linear model holds in this state",
            expected="linearization_error or anchored_linearization_error",
            where=f"{run.path}, step {run.steps[row]}",
            remedy="Ask for another step; both are default observables of NTKTracker, the first where the update was seen.",
        )
    return float(max(known))


def course(law: Law, rate: float, updates: Ints, per_way: float, samples: int) -> Course:
    """What follows at one rate, NaN beyond the horizon.

    Args:
        law: how the residual goes on.
        rate: η.
        updates: (K,) ascending from 0.
        per_way: κ.
        samples: N.
    """
    furthest = LIMIT / per_way if per_way else np.inf
    found = law.follow(rate, updates, furthest=furthest)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.where(updates > 0, per_way * found.way, 0.0)
        off = error * found.way
        loss_error = found.pull * off + law.curvature * off**2 / (2 * samples) + found.slack
    beyond = np.cumsum(~(error <= LIMIT)) > 0
    reason = found.reason
    if beyond.any():
        reason = "; ".join(filter(None, (reason, _said(updates, beyond))))
    lost = beyond | np.isnan(found.loss)
    return Course(
        rate,
        np.where(lost, np.nan, found.loss),
        np.where(lost, np.nan, loss_error),
        np.where(beyond[:, None], np.nan, found.residual),
        error,
        int(updates[~beyond][-1]),
        reason,
    )


def _said(updates: Ints, beyond: NDArray[np.bool_]) -> str:
    last = int(updates[~beyond][-1])
    return f"beyond {last:,} update{'s' * (last != 1)} the measured linearisation errors allow more than {LIMIT:.0%} of the way"


def _stored(run: Run, name: str, row: int) -> float:
    return float(run.values(name)[row]) if name in run.dataset else float("nan")


def _anchored(run: Run, row: int) -> float:
    return _stored(run, "anchored_linearization_error", row)


def _displaced(run: Run, row: int) -> float:
    """‖f_t − f_0‖ of what the stored modes hold."""
    if "displacement_coefficients" not in run.dataset:
        return float("nan")
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(run.values("displacement_coefficients")[row]))
