"""The function-space ledger: who learned what in one update.

The real change of the outputs is split, mode by mode and layer by layer, into what the kernel's own gradient flow would
have done, what the optimizer or the minibatch made of it, and what the curvature of the network added:

    Δf = Σ_l (−g J_l P J_lᵀ m/N)  +  Σ_l (J_l Δθ_l + g J_l P J_lᵀ m/N)  +  (Δf − J Δθ)
         kernel flow                 remainder                            curvature

g is the gain of momentum (:mod:`kerneltrack.conventions`): what it makes of a gradient that stands still.
Curvature couples layers and has no share of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.dynamics import check_miss, checked_change
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State


@dataclass(frozen=True)
class Ledger:
    """The parts of one update along the modes; they add up to ``total``.

    Attributes:
        layers: names, in the order of the layer axis.
        kernel_flow: (mode, layer, C) what kernel gradient flow on the probe's loss would do.
        remainder: (mode, layer, C) what the optimizer and the minibatch changed about it.
        curvature: (mode, C) what is left: the network is not linear over the step.
        total: (mode, C) ⟨v_i, f_{t+1} − f_t⟩.
    """

    layers: tuple[str, ...]
    kernel_flow: Array
    remainder: Array
    curvature: Array
    total: Array

    def learned(self, residual: Array) -> Array:
        """−⟨part, m⟩/‖m‖² (3, mode): how much of the residual each part takes off along each mode; negative if it adds.

        Args:
            residual: (mode, C) ⟨v_i, m_t⟩.

        Returns:
            Rows kernel flow, remainder, curvature.
        """
        parts = np.stack([self.kernel_flow.sum(axis=1), self.remainder.sum(axis=1), self.curvature])
        return np.asarray(-(parts * residual).sum(axis=2) / np.vdot(residual, residual))


def update_ledger(
    state: State, output_change: Array, linear_changes: Mapping[str, Array], kernel_changes: Mapping[str, Array]
) -> Ledger:
    """The ledger of one update.

    Args:
        state: before the update; its eigenvectors are the modes.
        output_change: (N, O) f_{t+1} − f_t.
        linear_changes: by layer, (N, O) J_l Δθ_l of the real step.
        kernel_changes: by layer, (N, O) −g J_l P J_lᵀ m/N.

    Raises:
        ObservableError: the two mappings name different layers.
    """
    layers = tuple(linear_changes)
    if set(layers) != set(kernel_changes):
        raise ObservableError("the layers of the two changes differ", expected=layers, got=tuple(kernel_changes))
    linear = np.stack([state.coefficients(linear_changes[name]) for name in layers], axis=1)
    flow = np.stack([state.coefficients(kernel_changes[name]) for name in layers], axis=1)
    total = state.coefficients(output_change)
    return Ledger(layers, flow, linear - flow, total - linear.sum(axis=1), total)


def _ledger(state: State) -> Ledger:
    update = state.update
    if update is None or update.layer_linear_changes is None or update.layer_kernel_changes is None:
        raise ObservableError("the changes of the layers were not measured")
    return update_ledger(state, update.output_change, update.layer_linear_changes, update.layer_kernel_changes)


def _curvature(state: State) -> Array:
    """What is left of Δf: nothing that has a meaning where Δf itself, or what is left, is rounding."""
    ledger = _ledger(state)
    check_miss(state, checked_change(state).linear_change)
    return ledger.curvature


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "ledger_kernel_flow",
        lambda s: _ledger(s).kernel_flow,
        "⟨v_i, −g J_l P J_lᵀ m/N⟩, g the gain of momentum",
        "update",
        "layer_changes",
        dims=("mode", "layer", "coefficient"),
        default=False,
        definition=2,
        long_name="update by kernel gradient flow, by mode and layer",
    ),
    observable(
        "ledger_remainder",
        lambda s: _ledger(s).remainder,
        "⟨v_i, J_l Δθ_l + g J_l P J_lᵀ m/N⟩",
        "update",
        "layer_changes",
        dims=("mode", "layer", "coefficient"),
        default=False,
        definition=2,
        long_name="update by optimizer and minibatch, by mode and layer",
    ),
    observable(
        "ledger_curvature",
        _curvature,
        "⟨v_i, f_{t+1} − f_t − J Δθ⟩",
        "update",
        "layer_changes",
        dims=("mode", "coefficient"),
        default=False,
        definition=2,
        long_name="update by the network's curvature, by mode",
    ),
)
