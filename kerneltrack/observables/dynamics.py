"""Stability, and how well three linear models predict the outputs: three names, all squared and relative.

``linearization_error`` asks whether one update is a straight step in function space, ``kernel_flow_error`` whether it
is the step that gradient flow on the probe's own loss would take, ``anchored_linearization_error`` whether the whole
way from initialisation is straight: only the last one says that a run is lazy.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State, Update, epsilon_of

#: Losses that are a mean of squares, by name. Any other, a callable's too, is not known to be one.
MEAN_OF_SQUARES = ("half_mse", "mse")
#: A change of the outputs is called rounding where rounding may be more than this share of its square.
ROUNDING_SHARE = 0.01


def check_squares(state: State) -> None:
    """Raise ObservableError where the loss is not known to be a mean of squares."""
    if state.settings.get("loss") not in MEAN_OF_SQUARES:
        raise ObservableError(
            "the loss is not a mean of squares",
            expected="loss half_mse or mse",
            got=state.settings.get("loss") or "no loss",
        )


def relative_squared_error(predicted: Array, actual: Array) -> float:
    """‖actual − predicted‖²/‖actual‖²; NaN where nothing changed."""
    scale = float(np.vdot(actual, actual))
    return float(np.sum((actual - predicted) ** 2) / scale) if scale > 0 else float("nan")


def cosine(a: Array, b: Array) -> float:
    """⟨a, b⟩/(‖a‖ ‖b‖), in [−1, 1]; NaN where either is zero."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(np.vdot(a, b) / scale, -1.0, 1.0)) if scale > 0 else float("nan")


def rounding_share(change: float, size: float, epsilon: float) -> float:
    """(4ε max(‖f_t‖, ‖f_{t+1}‖)/‖f_{t+1} − f_t‖)²: how much of ‖Δf‖² rounding of the outputs may be; ∞ without a change.

    Each output carries a few roundings of ε times its size; their difference carries as many, whatever is left of it.

    Args:
        change: ‖f_{t+1} − f_t‖.
        size: max(‖f_t‖, ‖f_{t+1}‖).
        epsilon: spacing around 1 of the arithmetic that the outputs were computed in.
    """
    with np.errstate(over="ignore"):
        return float(np.square(4 * epsilon * size / change)) if change else float("inf")


def change_is_rounding(change: float, size: float, dtype: object) -> bool:
    """Whether more than a hundredth of ‖Δf‖² may be rounding: what is then compared with Δf is compared with that.

    Args:
        change: ‖f_{t+1} − f_t‖.
        size: max(‖f_t‖, ‖f_{t+1}‖).
        dtype: in which the outputs were computed, by name.
    """
    return rounding_share(change, size, epsilon_of(dtype)) > ROUNDING_SHARE


def update_share(update: Update, outputs: Array, dtype: object) -> float:
    """How much of ‖Δf‖² of an update rounding may be.

    Args:
        update: with Δf, and perhaps the arithmetic that it was computed in.
        outputs: (N, O) f_t.
        dtype: of the arithmetic where the update does not say it, by name.
    """
    change = update.output_change
    size = max(float(np.linalg.norm(outputs)), float(np.linalg.norm(outputs + change)))
    epsilon = epsilon_of(dtype) if update.epsilon is None else update.epsilon
    return rounding_share(float(np.linalg.norm(change)), size, epsilon)


def missed_by_rounding(change: Array, predicted: Array, outputs: Array, epsilon: float) -> bool:
    """Whether rounding may be more than a hundredth of what a model misses of a change of the outputs.

    Args:
        change: (N, O), a difference of outputs.
        predicted: (N, O), what the model makes of it.
        outputs: (N, O), the later ones.
        epsilon: spacing of the arithmetic that they were computed in.
    """
    size = max(float(np.linalg.norm(outputs)), float(np.linalg.norm(outputs - change)))
    missed = float(np.nan_to_num(relative_squared_error(predicted, change)))
    return rounding_share(float(np.linalg.norm(change)), size, epsilon) > ROUNDING_SHARE * missed


def decided_by_rounding(update: Update, outputs: Array, dtype: object) -> bool:
    """Whether rounding may be more than a hundredth of what a linear model misses of Δf: see :func:`update_share`.

    Then Δf is to be had in a finer arithmetic, if there is one.
    """
    models = [model for model in (update.linear_change, update.kernel_change) if model is not None]
    return any(_miss_is_rounding(update, model, outputs, dtype) for model in models)


def _miss_is_rounding(update: Update, model: Array, outputs: Array, dtype: object) -> bool:
    change, epsilon = update.output_change, epsilon_of(dtype) if update.epsilon is None else update.epsilon
    return missed_by_rounding(change, model, outputs + change, epsilon)


def checked_change(state: State) -> Update:
    """The update of a state whose outputs it changed by more than their rounding.

    Raises:
        ObservableError: the update was not seen, or its change is rounding.
    """
    update = _update(state)
    if update_share(update, state.outputs, _dtype(state)) > ROUNDING_SHARE:
        raise ObservableError("change of the outputs is rounding")
    return update


def check_miss(state: State, model: Array) -> None:
    """Refuse what a linear model misses of an update where that is rounding, and no finer arithmetic was to be had.

    Raises:
        ObservableError: as :func:`checked_change`; or it is rounding.
    """
    update = checked_change(state)
    if update.unresolved and _miss_is_rounding(update, model, state.outputs, _dtype(state)):
        raise ObservableError(update.unresolved)


def _dtype(state: State) -> object:
    return state.settings.get("computed_in", state.settings.get("dtype"))


def _update(state: State) -> Update:
    if state.update is None:
        raise ObservableError("the update that leaves this state was not seen")
    return state.update


def _kernel_change(state: State) -> Array:
    change = checked_change(state).kernel_change
    if change is None:
        raise ObservableError("the kernel's prediction of the update was not measured")
    return change


def _missed(state: State, model: Array) -> float:
    check_miss(state, model)
    return relative_squared_error(model, _update(state).output_change)


def _anchored_error(state: State) -> float:
    anchored = state.anchored_outputs
    if anchored is None or state.initial is None:
        raise ObservableError("the network linearised at initialisation was not evaluated")
    start = state.initial.outputs
    if state.is_rounding(state.outputs - start, state.outputs, start):
        raise ObservableError("the outputs have not moved from initialisation")
    return relative_squared_error(anchored - start, state.outputs - start)


def _stability(state: State) -> float:
    if state.stability is None:
        raise ObservableError("the stability ratio was not computed")
    return float(state.stability)


def _stability_bias(state: State) -> float:
    if state.stability_halves is None:
        raise ObservableError("the stability ratio of halves of the probe was not computed")
    return float(state.stability_halves) - _stability(state)


def _sharpness(state: State) -> float:
    if state.sharpness is None:
        raise ObservableError("the sharpness was not computed")
    return float(state.sharpness)


def _stability_bound(state: State) -> float:
    check_squares(state)
    ratio = _stability(state)
    if not ratio > 0:
        raise ObservableError("the stability ratio is not positive, so no eigenvalue is at its bound", got=ratio)
    return float(state.eigensystem.values[0]) / ratio


OBSERVABLES = (
    observable(
        "probe_loss", lambda s: float(s.probe_loss), "L(f_t) on the probe", "loss", long_name="loss on the probe"
    ),
    observable(
        "stability_ratio",
        _stability,
        "ρ_t = λ_1(S^½ J P_t Jᵀ S^½)/c",
        "operator",
        source="Cohen et al. 2021, 2022",
        long_name="stability ratio, the normalised Gauss–Newton sharpness: 1 at the edge",
        definition=2,
    ),
    observable(
        "stability_ratio_bias",
        _stability_bias,
        "b̂ = mean of ρ_t over two disjoint halves of the probe − ρ_t ≥ 0",
        "halves",
        default=False,
        long_name="by about how much the stability ratio is too large because the probe is a sample",
    ),
    observable(
        "gauss_newton_sharpness",
        _sharpness,
        "λ_1(S^½ J Jᵀ S^½), S = ∇²_f L",
        "sharpness",
        source="Cohen et al. 2021 (there of the Hessian)",
        long_name="largest eigenvalue of the Gauss–Newton matrix of the loss on the probe",
    ),
    observable(
        "stability_bound",
        _stability_bound,
        "λ_1/ρ_t, of a mean of squares; 2N/η for gradient descent on the mean of ½(f − y)²",
        "operator",
        "eigenvalues",
        source="Kopitkov and Indelman 2020",
        long_name="value of λ_1 at the edge of stability",
        definition=2,
    ),
    observable(
        "linearization_error",
        lambda s: _missed(s, checked_change(s).linear_change),
        "‖f_{t+1} − f_t − J_tΔθ‖²/‖f_{t+1} − f_t‖²",
        "update",
        source="Kopitkov and Indelman 2020",
        long_name="linearisation error of the update",
        definition=2,
    ),
    observable(
        "linearization_cosine",
        lambda s: cosine(checked_change(s).linear_change, _update(s).output_change),
        "⟨f_{t+1} − f_t, J_tΔθ⟩/(‖f_{t+1} − f_t‖ ‖J_tΔθ‖)",
        "update",
        source="Kopitkov and Indelman 2020",
        long_name="cosine of the update with its linearisation",
        definition=2,
    ),
    observable(
        "kernel_flow_error",
        lambda s: _missed(s, _kernel_change(s)),
        "‖f_{t+1} − f_t + g J_tP_tJ_tᵀm_t/N‖²/‖f_{t+1} − f_t‖², g the gain of momentum",
        "update",
        long_name="error of kernel gradient flow for the update",
        definition=2,
    ),
    observable(
        "anchored_linearization_error",
        _anchored_error,
        "‖f_t − f_0 − J_0(θ_t − θ_0)‖²/‖f_t − f_0‖²",
        "anchored",
        "initial",
        "outputs",
        source="Lee et al. 2019",
        long_name="linearisation error since initialisation",
        definition=2,
    ),
)
