"""What one update did on the probe, in total and by layer.

With Δθ = θ_{t+1} − θ_t, P the preconditioner that the update used and m the residual, everything linear is taken at θ_t:

    J_t Δθ = Σ_l J_t^l Δθ^l        −g J_t P J_tᵀ m/N = Σ_l −g J_t^l P (J_t^l)ᵀ m/N

(g the gain of the optimizer's momentum, see :mod:`kerneltrack.conventions`)
and compared with the change f_{t+1} − f_t of the outputs. That is a difference of two nearly equal numbers: where their
rounding decides what is said of it, everything is evaluated once more in float64, at the same θ_t and θ_{t+1}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.kept_jacobian import KeptJacobian
from kerneltrack.measurement.layers import Layers
from kerneltrack.measurement.metric import Metric
from kerneltrack.measurement.parameter_motion import Tensors, difference
from kerneltrack.ntk import Network, fineness, layer_of
from kerneltrack.observables import Update
from kerneltrack.snapshot import Array
from kerneltrack.training import UpdateRule


def update_effects(
    before: Network,
    after: Network,
    moved: Tensors,
    inputs: Any,
    *,
    outputs: Array | None = None,
    residual: Tensor | None,
    rule: UpdateRule,
    updates: int,
    layers: Layers | None = None,
    read: Callable[[Tensor], Array] = to_float64,
    kept: KeptJacobian | None = None,
) -> Update:
    """The changes of the outputs that one update made and would have made.

    Args:
        before: the network at θ_t, over every parameter that trained then.
        after: the same at θ_{t+1}, over whatever trains now.
        moved: θ_{t+1} by the names of ``before``.
        inputs: the probe's inputs, N samples.
        outputs: f_t, what ``before`` gives on them, read; None where that is not there already.
        residual: m_t (N, O), or None where no loss is known.
        rule: the update with the rates and the preconditioner that it used.
        updates: its number, from 1: momentum begins at the first.
        layers: by which layers to split the two linear changes, or None: their totals only.
        read: a linear map, outputs (N, O) → float64 as the kernel meets them.
        kept: what is at hand of J_t, and spares the passes of the totals.
    """
    step, kept = difference(before.parameters, moved), kept or KeptJacobian()
    start = read(before.outputs(inputs)) if outputs is None else outputs
    change = read(after.outputs(inputs)) - start
    epsilon = before.sight(before.inputs(inputs)).eps
    metric = None if residual is None else rule.flow_metric(list(before.parameters), updates)
    if layers is None:
        linear, kernel = kept.along(step, read), None
        if metric is not None and residual is not None:
            kernel = kept.flow(-residual / len(residual), metric, read)
            if kernel is None:
                kernel = read(before.jvp(inputs, _gradient_flow(before, inputs, residual, metric)))
        linear = read(before.jvp(inputs, step)) if linear is None else linear
        return Update(output_change=change, linear_change=linear, kernel_change=kernel, epsilon=epsilon)
    flow = None if residual is None or metric is None else _gradient_flow(before, inputs, residual, metric)
    linears = _by_layer(before, inputs, step, layers, read)
    kernels = None if flow is None else _by_layer(before, inputs, flow, layers, read)
    return Update(
        output_change=change,
        linear_change=sum(linears.values(), start=0 * next(iter(linears.values()))),
        kernel_change=None if kernels is None else sum(kernels.values(), start=0 * next(iter(kernels.values()))),
        layer_linear_changes=linears,
        layer_kernel_changes=kernels,
        epsilon=epsilon,
    )


def finest(update: Update, network: Network, inputs: Any, effects: Callable[[torch.dtype], Update]) -> Update:
    """The same update in float64; as it is, and why, where the network has no finer arithmetic.

    Args:
        update: as the network itself computes it.
        network: in float64.
        inputs: the probe's inputs, N samples.
        effects: the update evaluated in a dtype.
    """
    fine = fineness(network, inputs)
    found = effects(torch.float64) if fine.epsilon < (update.epsilon or 0) else update
    return replace(found, unresolved=fine.lacking)


def _gradient_flow(network: Network, inputs: Any, residual: Tensor, metric: Metric) -> dict[str, Tensor]:
    """−g P Jᵀ m/N for g P."""
    gradient = network.vjp(inputs, residual / len(residual))
    return {name: -(metric if isinstance(metric, float) else metric[name]) * g for name, g in gradient.items()}


def _by_layer(
    network: Network, inputs: Any, direction: Tensors, layers: Layers, read: Callable[[Tensor], Array]
) -> dict[str, Array]:
    """J^l v^l for each layer; one and the same zero for all of which nothing trained."""
    own: dict[str, dict[str, Tensor]] = {}
    for name, v in direction.items():
        own.setdefault(layers.place(layer_of(name)), {})[name] = v
    moved = {place: read(network.jvp(inputs, v)) for place, v in own.items()}
    nothing = 0 * next(iter(moved.values()))
    return {name: moved.get(name, nothing) for name in layers.names}
