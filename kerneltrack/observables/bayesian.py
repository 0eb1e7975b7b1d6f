"""The network as a Gaussian process: linearised Laplace at θ_t, judged on points that it has not seen; evidence, information.

Of a probe that another one is carried over to. The network linearised at θ_t has parameters θ ~ N(0, I/δ) and noise σ², both from
the largest evidence of the other probe's data, y − f_t + J_tθ_t; the variance is that of J_tθ at this probe's points, about the
network's own output f_t. Immer et al. 2021 (arXiv 2008.08400).
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.dynamics import check_squares
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.readings import reading
from kerneltrack.observables.regression import ridge_of
from kerneltrack.observables.seen import require_unseen
from kerneltrack.observables.state import Array, State
from kerneltrack.regression import Evidence, Laplace, information_gain, most_evident

_SOURCE = "Immer et al. 2021"
_UNSEEN = "`probe_in_training`: it is told of points that were not trained on"


def _laplace(state: State) -> Laplace:
    check_squares(state)
    require_unseen(state, doubted=False)
    assert state.laplace is not None  # the need has been looked at
    _check_bounded(state.laplace.evidence)
    return state.laplace


def _variance(state: State) -> Array:
    """(N, O) of f; a trace kernel has one for all outputs."""
    found = _laplace(state).posterior.variance.reshape(state.samples, -1)
    return np.broadcast_to(found, state.outputs.shape)


def _errors(state: State) -> tuple[Array, Array]:
    """Squared errors of the network, and the variance of an observation, (N, O)."""
    if state.targets is None:
        raise ObservableError("there are no targets")
    variance = _variance(state) + _laplace(state).evidence.noise
    return (state.targets - state.outputs) ** 2, variance


def _calibration(state: State) -> float:
    errors, variance = _errors(state)
    return float(np.mean(errors / variance))


def _likelihood(state: State) -> float:
    errors, variance = _errors(state)
    return float(np.mean(np.log(2 * np.pi * variance) + errors / variance) / 2)


def _log_evidence(state: State) -> float:
    check_squares(state)
    require_unseen(state)
    if state.targets is None or not state.targets.any():
        raise ObservableError("there are no targets, or they are zero")
    columns = state.project(state.targets)
    found = most_evident(state.eigensystem, columns)
    _check_bounded(found)
    return found.log_evidence / columns.size


def _check_bounded(evidence: Evidence) -> None:
    if evidence.unbounded:
        raise ObservableError(
            "the kernel explains the targets to rounding, so the evidence grows without end as noise vanishes"
        )


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "posterior_variance", lambda s: _variance(s).mean(axis=1),
        "var f(x_n) = [Θ(x, x) − Θ(x, X)(Θ + δσ²I)⁻¹Θ(X, x)]/δ, δ and σ² of the largest evidence of y − f_t + J_tθ_t; mean over "
        "outputs",
        "laplace", "outputs", source=_SOURCE, units="squared output", dims=("sample",), default=False,
        long_name="posterior variance of each point's output",
        reading=reading(
            "the other probe's data say less of this point", "0 to the prior's Θ(x, x)/δ",
            "`posterior_calibration`: whether errors are as large as it says",
        ),
    ),
    observable(
        "posterior_calibration", _calibration, "mean of (y − f_t)²/(var f + σ²) over points and outputs",
        "laplace", "outputs", "targets", source=_SOURCE, default=False,
        long_name="squared errors over the variance that linearised Laplace predicts",
        reading=reading(
            "the network errs more than its kernel says", "1 where it is calibrated; 0.3 to 10", f"`ntk_gp_nll`, {_UNSEEN}",
        ),
    ),
    observable(
        "ntk_gp_nll", _likelihood, "mean of −ln N(y; f_t, var f + σ²) over points and outputs",
        "laplace", "outputs", "targets", source=_SOURCE, units="nat", default=False,
        long_name="negative log likelihood of linearised Laplace",
        reading=reading(
            "errors are larger, or the variance does not tell which are", "below 1.42 + ln sd(y), that of a constant guess",
            f"`posterior_calibration`, {_UNSEEN}",
        ),
    ),
    observable(
        "log_evidence", _log_evidence, "max over δ, σ² of ln N(y; 0, Θ/δ + σ²I), over the number of targets",
        "spectrum", "targets", source="Rasmussen and Williams 2006, section 5.4", units="nat", default=False,
        long_name="log evidence of the targets, for each",
        reading=reading(
            "the targets look more like a draw from the kernel's process", "−1.42 − ln sd(y), that of noise alone, and above",
            f"its value at step 0, {_UNSEEN}",
        ),
    ),
    observable(
        "information_gain", lambda s: information_gain(s.eigensystem.values, ridge_of(s)),
        "½ Σ_i ln(1 + λ_i/γ), γ = 0.001 tr Θ/M",
        "spectrum", source="Srinivas et al. 2010", units="nat", default=False,
        long_name="information that the points give of the kernel's process",
        reading=reading(
            "more modes stand above the noise γ", "between ½ ln(1 + 1000M) of one mode and 3.5M of equal ones",
            "`effective_dimension` and M",
        ),
    ),
)  # fmt: skip
