"""Oscillation at the edge of stability: what of the outputs goes to and fro, and what it adds to the loss.

From the outputs at three states in a row δ = (2f_t − f_{t−1} − f_{t+1})/4 is what has period 2, and d = (f_{t+1} − f_{t−1})/2 what
drifts. Over both phases the mean loss is larger than the loss of the mean outputs f̄ = (f_{t−1} + 2f_t + f_{t+1})/4:

    (L(f_{t−1}) + 2L(f_t) + L(f_{t+1}))/4 − L(f̄) = ½ δᵀSδ + ¼ dᵀSd,    S = ∇²_f L at f̄

exactly for squares, to second order for cross-entropy. What is *seen* is the left side less what the drift puts in; what is
*predicted* is ½ tr(SΣ), Σ = δδᵀ. After the central flows of Cohen et al. 2024, where the loss is at the mean and Σ beside it.
The numbers stand in the row of the third state, for only then all three are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import to_numpy
from kerneltrack.observables.dynamics import change_is_rounding
from kerneltrack.observables.functions import project
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, EdgeMode, State
from kerneltrack.spectrum import across_clusters

_SOURCE = "Cohen et al. 2024 (arXiv 2410.24206)"
#: How many leading modes the oscillation is told in.
LEADING = 5
#: Losses whose curvature is known by their name.
NAMED = ("half_mse", "mse", "cross_entropy")


@dataclass(frozen=True)
class Triple:
    """The outputs (N, O) of three states in a row.

    Attributes:
        before: f_{t−1}.
        now: f_t.
        after: f_{t+1}.
    """

    before: Array
    now: Array
    after: Array

    @property
    def delta(self) -> Array:
        """δ, half of what the phases differ by."""
        return np.asarray((2 * self.now - self.before - self.after) / 4)

    @property
    def drift(self) -> Array:
        """d, per update."""
        return np.asarray((self.after - self.before) / 2)

    @property
    def mean(self) -> Array:
        """f̄, over both phases."""
        return np.asarray((self.before + 2 * self.now + self.after) / 4)

    def is_rounding(self, dtype: object) -> bool:
        """Whether δ is nothing but the rounding of the outputs."""
        return change_is_rounding(float(np.linalg.norm(self.delta)), float(np.linalg.norm(self.now)), dtype)


def curvature_form(loss: object, outputs: Array, direction: Array, targets: Array | None = None) -> float:
    """Σ_n u_nᵀ S_n u_n of a direction u (N, O), S_n the curvature of the mean loss at point n.

    Args:
        loss: its name.
        outputs: (N, O), at which the curvature is taken.
        direction: (N, O).
        targets: (N, O); a cross-entropy's weigh its points by their sums. None: these are 1.

    Raises:
        ObservableError: a loss whose curvature is not known by its name.
    """
    count, width = direction.shape
    _check(loss, width)
    if loss == "half_mse":
        return float(np.sum(direction**2) / count)
    if loss == "mse":
        return float(2 * np.sum(direction**2) / (count * width))
    p = np.exp(_log_softmax(outputs))
    spread = np.sum(p * direction**2, axis=1) - np.sum(p * direction, axis=1) ** 2
    weights = np.ones(count) if targets is None else targets.sum(axis=1)
    return float(weights @ spread / count)


def mean_loss(loss: object, outputs: Array, targets: Array) -> float:
    """L of outputs and targets (N, O), in float64.

    Raises:
        ObservableError: a loss that is not known by its name.
    """
    _check(loss, outputs.shape[1])
    if loss == "cross_entropy":
        return float(-np.sum(targets * _log_softmax(outputs)) / len(outputs))
    squares = float(np.sum((outputs - targets) ** 2))
    return squares / (2 * len(outputs)) if loss == "half_mse" else squares / outputs.size


def predicted_excess(loss: object, triple: Triple, targets: Array | None = None) -> float:
    """½ tr(SΣ).

    Raises:
        ObservableError: as of :func:`curvature_form`.
    """
    return curvature_form(loss, triple.mean, triple.delta, targets) / 2


def seen_excess(loss: object, triple: Triple, targets: Array) -> float:
    """The mean loss over both phases less that of the mean outputs, and less what the drift puts in.

    Raises:
        ObservableError: as of :func:`mean_loss`.
    """
    before, now, after = (mean_loss(loss, f, targets) for f in (triple.before, triple.now, triple.after))
    whole = (before + 2 * now + after) / 4 - mean_loss(loss, triple.mean, targets)
    return whole - curvature_form(loss, triple.mean, triple.drift, targets) / 4


def mode_shares(vectors: Array, columns: Array, ends: NDArray[np.int64] | None = None) -> Array:
    """⟨v_i, δ⟩²/‖δ‖² of the first ``LEADING`` modes, or of as many as there are; NaN where δ is zero.

    Args:
        vectors: (M, k) leading eigenvectors.
        columns: (M, C) δ as what they act on.
        ends: the numbers of modes that cut no cluster of equal eigenvalues, inside of which a share is the mean over its bases;
            None: every one.
    """
    held = vectors.shape[1]
    ends = np.arange(1, held + 1, dtype=np.int64) if ends is None else np.unique(np.minimum(ends, held))
    upto = int(ends[np.searchsorted(ends, min(LEADING, held))])  # whole clusters decide a part of one
    squares = np.sum((vectors[:, :upto].T @ columns) ** 2, axis=1)
    sums = across_clusters(np.cumsum(squares), ends[ends <= upto])[:LEADING]
    return np.asarray(np.diff(sums, prepend=0.0) / (float(np.sum(columns**2)) or np.nan))


def _check(loss: object, width: int) -> None:
    if loss not in NAMED or (loss == "cross_entropy" and width < 2):
        raise ObservableError(
            "the curvature of this loss is not known by its name",
            expected="half_mse, mse, or cross_entropy of several outputs",
            got=repr(loss),
        )


def _log_softmax(outputs: Array) -> Array:
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True)))


def _triple(state: State) -> Triple:
    """The outputs of this state and of the two updates before it, as the kernel meets them.

    Raises:
        ObservableError: it is not the third of a triple, or what oscillates is rounding.
    """
    first, second, step = state.previous, state.lagged, state.settings.get("step")
    steps = [None if s is None else s.settings.get("step") for s in (first, second)]
    if step is None or first is None or second is None or steps != [step - 2, step - 1]:
        raise ObservableError(
            "not the third state of a triple", remedy="Measure triples: kt.schedule.Every(n, window=3)."
        )
    if state.reduction == "callable":
        raise ObservableError("the outputs are a callable's, which the loss is not of")
    triple = Triple(first.outputs, second.outputs, state.outputs)
    if triple.is_rounding(state.settings.get("computed_in", state.settings.get("dtype"))):
        raise ObservableError("what oscillates is rounding")
    return triple


def _by_output(state: State) -> Triple:
    """The same with one column for each of the network's outputs."""
    triple = _triple(state)
    return Triple(*(state.by_output(f) for f in (triple.before, triple.now, triple.after)))


def _seen(state: State) -> float:
    if state.raw_targets is None:
        raise ObservableError("the probe has no targets")
    return seen_excess(state.settings.get("loss"), _by_output(state), state.raw_targets)


def _edge_mode(state: State) -> EdgeMode:
    if state.edge_mode is None:
        raise ObservableError("the mode at the edge was not measured")
    return state.edge_mode


def _leading(state: State) -> float:
    columns = project(_triple(state).delta, state.reduction)
    assert state.previous is not None  # of a triple it is there
    pairs = state.previous.eigensystem
    return float(np.sum(mode_shares(to_numpy(pairs.vectors), columns, pairs.cluster_ends)))


OBSERVABLES = (
    observable(
        "oscillation_loss",
        lambda s: predicted_excess(s.settings.get("loss"), _by_output(s), s.raw_targets),
        "½ tr(SΣ), Σ = δδᵀ, δ = (2f_{t−1} − f_t − f_{t−2})/4, in the third state of a triple",
        "outputs",
        "previous",
        "lagged",
        "loss",
        source=_SOURCE,
        default=False,
        long_name="part of the loss that oscillates with period 2, predicted",
    ),
    observable(
        "oscillation_loss_seen",
        _seen,
        "(L(f_{t−2}) + 2L(f_{t−1}) + L(f_t))/4 − L(f̄) − ¼ dᵀSd, d = (f_t − f_{t−2})/2, in the third state of a triple",
        "outputs",
        "targets",
        "previous",
        "lagged",
        "loss",
        source=_SOURCE,
        default=False,
        long_name="part of the loss that oscillates with period 2, seen",
    ),
    observable(
        "oscillation_leading_share",
        _leading,
        "Σ_{i≤5} ⟨v_i, δ⟩²/‖δ‖², v_i of the triple's first state",
        "outputs",
        "previous",
        "lagged",
        source=_SOURCE,
        default=False,
        long_name="share of the oscillation in the first five modes",
    ),
    observable(
        "edge_swing",
        lambda s: _edge_mode(s).seen,
        "⟨u, δ⟩², δ = (2θ_{t−1} − θ_t − θ_{t−2})/4, u top eigenvector of ∇²L at their mean, in the third state of a triple",
        "edge_mode",
        source=_SOURCE,
        default=False,
        long_name="square of the parameters' swing along the one mode at the edge of stability",
    ),
    observable(
        "edge_swing_predicted",
        lambda s: _edge_mode(s).balance,
        "2⟨−∇L, ∇λ_1⟩/‖∇λ_1‖², ∇λ_1 = ∇_θ(uᵀ∇²L u), at the mean of a triple's states; at least 0",
        "edge_mode",
        source=f"Damian, Nichani and Lee 2022; {_SOURCE}",
        default=False,
        long_name="square of the swing at which the sharpness would stand still",
    ),
)
