"""What the network linearised at θ_t would predict, trained to the end on cross-entropy: kernel logistic regression."""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.classes import class_labels
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.regression import RIDGE
from kerneltrack.observables.seen import require_unseen
from kerneltrack.observables.state import Array, State
from kerneltrack.regression import CrossEntropy


def check_cross_entropy(state: State) -> None:
    """Raise ObservableError where the loss is not known to be a cross-entropy of several outputs."""
    if state.settings.get("loss") != "cross_entropy" or state.network_outputs < 2:
        raise ObservableError(
            "the loss is not a cross-entropy of several outputs",
            expected='loss="cross_entropy"',
            got=state.settings.get("loss") or "no loss",
        )


def _predicted(state: State) -> tuple[Array, Array]:
    """Logits (N, O) of the network linearised here, and targets (N, O)."""
    check_cross_entropy(state)
    require_unseen(state, doubted=False)
    if state.logistic is None or state.raw_targets is None:
        raise ObservableError("the prediction or the targets were not measured")
    return state.by_output(state.logistic), state.raw_targets


def _accuracy(logits: Array, targets: Array) -> float:
    return float(np.mean(logits.argmax(axis=1) == class_labels(targets)))


def _network_accuracy(state: State) -> float:
    if state.raw_targets is None or state.network_outputs < 2 or state.reduction == "callable":
        raise ObservableError("accuracy is of several outputs, one for each class")
    return _accuracy(state.by_output(state.outputs), state.raw_targets)


def _loss(state: State) -> float:
    logits, targets = _predicted(state)
    return CrossEntropy(targets).value(logits)


_MINIMUM = f"α minimises L(f_t(X) + Θα) + (γ/2) tr αᵀΘα, X another probe, γ = {RIDGE:g} tr Θ/(MN)"

OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "kernel_logistic_loss", _loss, f"L(f_t + Θ(·, X)α), {_MINIMUM}", "logistic", "targets",
        source="Fort et al. 2020 (there by squares)", default=False,
        long_name="cross-entropy of the network linearised here and trained to the end",
    ),
    observable(
        "kernel_logistic_accuracy", lambda s: _accuracy(*_predicted(s)),
        f"share of points with argmax_o (f_t + Θ(·, X)α)_o = argmax_o y_o, {_MINIMUM}", "logistic", "targets",
        source="Fort et al. 2020 (there by squares)", default=False,
        long_name="accuracy of the network linearised here and trained to the end",
    ),
    observable(
        "network_accuracy", _network_accuracy, "share of points with argmax_o f_o = argmax_o y_o", "outputs", "targets",
        default=False, long_name="accuracy of the network on the probe",
    ),
)  # fmt: skip
