"""Mode by mode: what one update does to the residual along each eigenvector, and what gradient descent would do.

Where the loss is a mean of squares the residual is m = s (f − y) with a constant s, so gradient descent with one
learning rate η changes its coefficient along v_i by the factor 1 − s η λ_i/N; s = 1 for the mean of ½‖f − y‖², and 2/O
for ``torch.nn.MSELoss``. Other losses have no such factor, and momentum, weight decay or another optimizer another one.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.conventions import measured, no_plain_descent
from kerneltrack.errors import ObservableError
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.dynamics import checked_change
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State
from kerneltrack.spectrum import across_clusters

_SOURCE = "Kopitkov and Indelman 2020"


def predicted_factor(values: Array, learning_rate: float, samples: int, curvature: float = 1.0) -> Array:
    """|1 − s η λ_i/N| (k,): what a step of gradient descent leaves of the residual. Kopitkov and Indelman 2020.

    Args:
        values: (k,) eigenvalues of J Jᵀ.
        learning_rate: η, the same for every parameter.
        samples: N.
        curvature: s = ∂m/∂f; 1 for the mean of ½‖f − y‖², 2/O for the mean over samples and outputs of (f − y)².
    """
    return np.asarray(np.abs(1 - curvature * learning_rate * values / samples))


def loss_curvature(loss: object, outputs: int) -> float:
    """Slope s = ∂m/∂f of a loss that is a mean of squares: "half_mse" or "mse".

    Raises:
        ObservableError: any other loss, whose residual is not linear in the outputs.
    """
    if loss == "half_mse":
        return 1.0
    if loss == "mse":
        return 2.0 / outputs
    raise ObservableError("the residual is not linear in the outputs", expected="loss half_mse or mse", got=loss)


def _predicted(state: State) -> Array:
    rates = set(state.learning_rates)
    if len(rates) != 1:
        raise ObservableError("the prediction needs one learning rate", got=sorted(rates))
    if reason := no_plain_descent(state.settings.get("optimizers", ())):
        raise ObservableError(f"the update is not plain gradient descent: {reason}")
    return predicted_factor(state.eigensystem.values, rates.pop(), state.samples, mode_curvature(state))


def mode_curvature(state: State) -> float:
    """s of the residual along a mode of the kernel.

    Raises:
        ObservableError: the residual is not linear in the outputs, or the modes do not evolve one by one: the kernel is a
            reduction of several outputs, which the dynamics mix, or of some of the parameters that train.
    """
    outputs = state.outputs.shape[1]
    curvature = loss_curvature(state.settings.get("loss"), outputs)
    if state.reduction != "full" and outputs > 1:
        raise ObservableError(
            f"the kernel is the {state.reduction!r} reduction of {outputs} outputs, which the dynamics mix"
        )
    if not state.settings.get("of_every_parameter", True):
        raise ObservableError("the kernel is not of every parameter that trains")
    return curvature


def _measured(state: State) -> Array:
    if state.update is None or state.residual is None:
        raise ObservableError("the update that leaves this state was not seen")
    slope = loss_curvature(state.settings.get("loss"), state.outputs.shape[1])
    change = slope * checked_change(state).output_change
    before, after = (state.coefficients(phi) for phi in (state.residual, state.residual + change))
    sizes = np.linalg.norm(before, axis=1)
    # A coefficient that is rounding of the outputs has no ratio.
    floor = state.rounding(state.outputs, state.residual)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sizes > floor, np.linalg.norm(after, axis=1) / sizes, np.nan))


def _energy_by_output(state: State, phi: Array | None) -> Array:
    """E(φ_o, k) of each output alone (energy_k, output); in a gauge of (φC)_o, and of what the kernel sees of it."""
    if phi is None:
        raise ObservableError("the function was not measured")
    if state.reduction == "sum":
        raise ObservableError("the kernel of Σ_o f_o does not tell outputs apart")
    columns = state.by_output(phi)
    if state.reduction == "trace":
        squares, norms = state.coefficients(columns) ** 2, (columns**2).sum(axis=0)
    else:
        single = [_alone(state, columns, o) for o in range(columns.shape[1])]
        squares = np.hstack([state.coefficients(alone) ** 2 for alone in single])
        norms = np.array([float(np.vdot(alone, alone)) for alone in single])
    floor = state.rounding(phi) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = across_clusters(np.cumsum(squares, axis=0), state.eigensystem.cluster_ends)
        energies = np.where(norms > floor, sums / norms, np.nan)
    return np.asarray(energies[np.asarray(energy_k(len(energies))) - 1])


def _alone(state: State, columns: Array, o: int) -> Array:
    """φ_o by itself as the kernel meets it: a diagonal kernel keeps outputs apart, a full one in a gauge sees it less its mean."""
    alone = np.where(np.arange(columns.shape[1]) == o, columns, 0.0)
    return alone if state.reduction == "diagonal" else measured(alone, state.gauge, state.reduction)


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "target_energy_by_output", lambda s: _energy_by_output(s, s.targets),
        "E(y_o, k), y_o the targets of output o alone (of class o, if one-hot)", "eigenvectors", "targets",
        source=_SOURCE, dims=("energy_k", "output"), default=False, definition=2, long_name="target energy of each output or class",
    ),
    observable(
        "residual_energy_by_output", lambda s: _energy_by_output(s, s.residual), "E(m_o, k)", "eigenvectors",
        "residual", source=_SOURCE, dims=("energy_k", "output"), default=False, definition=2,
        long_name="residual energy of each output or class",
    ),
    observable(
        "output_energy_by_output", lambda s: _energy_by_output(s, s.outputs), "E(f_o, k)", "eigenvectors", "outputs",
        source=_SOURCE, dims=("energy_k", "output"), default=False, definition=2,
        long_name="output energy of each output or class",
    ),
    observable(
        "displacement_energy_by_output", lambda s: _energy_by_output(s, s.displacement), "E((f_t − f_0)_o, k)",
        "eigenvectors", "initial", "outputs", dims=("energy_k", "output"), default=False, definition=2,
        long_name="energy of f_t − f_0 of each output or class",
    ),
    observable(
        "predicted_factor", _predicted, "|1 − s η λ_i/N|, s = ∂m/∂f; plain gradient descent only", "eigenvalues",
        "loss", source=_SOURCE, dims=("mode",), definition=2,
        long_name="factor of gradient descent on the residual along each mode",
    ),
    observable(
        "measured_factor", _measured, "‖⟨v_i, m_t + s (f_{t+1} − f_t)⟩‖/‖⟨v_i, m_t⟩‖", "eigenvectors", "residual",
        "update", dims=("mode",), definition=2, long_name="factor of the real update on the residual along each mode",
    ),
)  # fmt: skip
