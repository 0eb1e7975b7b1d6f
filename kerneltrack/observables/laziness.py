"""Is the network still where it was initialised? The conditions of Zhang, Martens and Grosse 2019 (arXiv 1905.10961).

They guarantee fast natural-gradient training if, for some C < ½, ‖J(θ) − J(θ_0)‖₂ ≤ (C/3) √λ_min(Θ_0) for every θ
within R = 3‖y − f_0‖/√λ_min(Θ_0) of θ_0. One measured θ gives a lower bound of the constant: C' ≥ ½ refutes the
condition, and C' < ½ never proves it. Wenger, Dangel and Kristiadi 2023 (arXiv 2310.00137) track it against width.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, eigenvalues, permuted, symmetric
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State, epsilon_of

_ZHANG = "Zhang, Martens and Grosse 2019"
#: A change that Gram matrices tell is above so many √ε ‖J‖, one that products tell above so many ε ‖J‖: rounding is then a
#: tenth of it or less.
_BY_GRAMS, _BY_PRODUCTS = 3.0, 20.0


def jacobian_change(kernel: Array, initial: Array, cross: Array) -> float:
    """‖J_t − J_0‖₂ from Gram matrices alone: √λ_1(Θ_t + Θ_0 − J_tJ_0ᵀ − J_0J_tᵀ).

    The four matrices nearly cancel in a lazy run: changes near √ε ‖J‖ are rounding.

    Args:
        kernel: (M, M) Θ_t.
        initial: (M, M) Θ_0.
        cross: (M, M) J_t J_0ᵀ.
    """
    change = kernel + initial - cross - cross.T
    return float(np.sqrt(max(0.0, eigenvalues(symmetric(change))[-1])))


def grams_tell(change: float, largest: float, dtype: object) -> bool:
    """Whether Gram matrices tell a change ‖J_t − J_0‖₂ from their rounding: it is above 3√ε ‖J‖₂.

    Args:
        change: ‖J_t − J_0‖₂, or less.
        largest: ‖J‖₂² = λ_1(Θ), the larger of both.
        dtype: that the kernels were computed in, by name.
    """
    return change > _BY_GRAMS * float(np.sqrt(epsilon_of(dtype) * max(largest, 0.0)))


def jacobian_stability(change: float, smallest_eigenvalue: float) -> float:
    """C' = 3 ‖J_t − J_0‖₂/√λ_min(Θ_0): at least ½ refutes the stability condition; infinite for a singular Θ_0."""
    return 3 * change / float(np.sqrt(smallest_eigenvalue)) if smallest_eigenvalue > 0 else float("inf")


def stability_radius(initial_residual: Array, smallest_eigenvalue: float) -> float:
    """R = 3 ‖y − f_0‖/√λ_min(Θ_0): the ball around θ_0 in which the condition is asked for; infinite if singular."""
    norm = 3 * float(np.linalg.norm(initial_residual))
    return norm / float(np.sqrt(smallest_eigenvalue)) if smallest_eigenvalue > 0 else float("inf")


def _smallest(state: State) -> float:
    """λ_min(Θ_0) of the full kernel, 0 where it is not above its noise floor."""
    if state.initial is None:
        raise ObservableError("the initial state is unknown")
    if state.reduction != "full" and state.outputs.shape[1] > 1:
        raise ObservableError('defined for output="full" only', got=f"output={state.reduction!r}")
    pairs = state.initial.eigensystem
    if not pairs.complete:
        raise ObservableError("the smallest eigenvalue of the initial kernel is unknown")
    smallest = float(pairs.values[-1])
    return smallest if smallest > pairs.noise_floor else 0.0


def _change(state: State) -> float:
    if state.cross_time is None or state.initial is None:
        raise ObservableError("J_t J_0ᵀ was not measured")
    if state.reduction not in ("full", "trace") and state.outputs.shape[1] > 1:
        raise ObservableError("defined for the full kernel or one output", got=f"output={state.reduction!r}")
    cross, kernel = state.cross_time, state.kernel_matrix()
    if cross.ndim == 4:
        cross = permuted(cross, (0, 2, 1, 3))
    size = state.eigensystem.size
    initial, cross = beside(state.initial.kernel_matrix(), kernel), beside(cross, kernel)
    found = jacobian_change(kernel, initial, cross.reshape(size, size))
    largest = max(float(s.eigensystem.values[0]) for s in (state, state.initial))
    dtype = state.settings.get("computed_in", state.settings.get("dtype"))
    if grams_tell(found, largest, dtype):
        return found
    finer = float("nan") if state.jacobian_difference is None else state.jacobian_difference
    if finer == 0 or finer > _BY_PRODUCTS * epsilon_of(dtype) * largest**0.5:
        return finer
    raise ObservableError("the change of the Jacobian is rounding")


def _radius(state: State) -> float:
    if state.targets is None or state.initial is None:
        raise ObservableError("the initial error is unknown")
    return stability_radius(state.targets - state.initial.outputs, _smallest(state))


def _layer_distances(state: State) -> Array:
    if state.layer_distances is None:
        raise ObservableError("the distance of the parameters from initialisation was not measured")
    return np.array(list(state.layer_distances.values()))


def _distance(state: State) -> float:
    if state.parameter_distance is None:
        raise ObservableError("the distance of the parameters from initialisation was not measured")
    return float(state.parameter_distance)


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "parameter_distance", _distance, "‖θ_t − θ_0‖₂", "parameters", default=False,
        long_name="distance of the parameters from initialisation",
    ),
    observable(
        "layer_parameter_distance", _layer_distances, "‖θ_t − θ_0‖₂ over the parameters of layer l", "parameters",
        dims=("layer",), default=False, long_name="distance of each layer's parameters from initialisation",
    ),
    observable(
        "jacobian_change", _change, "‖J_t − J_0‖₂ = √λ_1(Θ_t + Θ_0 − J_tJ_0ᵀ − J_0J_tᵀ)", "spectrum", "initial",
        "cross_time", source=_ZHANG, default=False, definition=2, long_name="change of the Jacobian since initialisation",
    ),
    observable(
        "jacobian_stability", lambda s: jacobian_stability(_change(s), _smallest(s)), "C' = 3‖J_t − J_0‖₂/√λ_min(Θ_0)",
        "spectrum", "initial", "cross_time", source=_ZHANG, default=False, definition=2,
        long_name="Jacobian-stability constant: ½ or more refutes the condition",
    ),
    observable(
        "stability_radius", _radius, "R = 3‖y − f_0‖/√λ_min(Θ_0)", "spectrum", "initial", "targets", source=_ZHANG,
        default=False, long_name="radius of the ball in which the Jacobian must be stable",
    ),
    observable(
        "stability_radius_share", lambda s: _distance(s) / _radius(s), "‖θ_t − θ_0‖₂/R", "spectrum", "initial",
        "targets", "parameters", source=_ZHANG, default=False, long_name="how much of the ball training has crossed",
    ),
)  # fmt: skip
