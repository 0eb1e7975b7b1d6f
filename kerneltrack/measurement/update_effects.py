"""What one update did on the probe, in total and by layer.

With Δθ = θ_{t+1} − θ_t, P the preconditioner that the update used and m the residual, everything linear is taken at θ_t:

    J_t Δθ = Σ_l J_t^l Δθ^l        −J_t P J_tᵀ m/N = Σ_l −J_t^l P (J_t^l)ᵀ m/N

and compared with the change f_{t+1} − f_t of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.parameter_motion import Tensors, difference
from kerneltrack.ntk import Network, layer_of
from kerneltrack.observables import Update
from kerneltrack.snapshot import Array
from kerneltrack.training import UpdateRule


def update_effects(
    before: Network,
    after: Network,
    moved: Tensors,
    inputs: Any,
    *,
    outputs: Array,
    residual: Tensor | None,
    rule: UpdateRule,
    layers: Sequence[str] | None = None,
    read: Callable[[Tensor], Array] = to_float64,
) -> Update:
    """The changes of the outputs that one update made and would have made.

    Args:
        before: the network at θ_t, over every parameter that trained then.
        after: the same at θ_{t+1}, over whatever trains now.
        moved: θ_{t+1} by the names of ``before``.
        inputs: the probe's inputs, N samples.
        outputs: f_t, what ``before`` gives on them, read.
        residual: m_t (N, O), or None where no loss is known.
        rule: the update with the rates and the preconditioner that it used.
        layers: by which layers to split the two linear changes, or None: their totals only.
        read: a linear map, outputs (N, O) → float64 as the kernel meets them.
    """
    step = difference(before.parameters, moved)
    flow = None if residual is None else _gradient_flow(before, inputs, residual, rule)
    change = read(after.outputs(inputs)) - outputs
    if layers is None:
        linear = read(before.jvp(inputs, step))
        kernel = None if flow is None else read(before.jvp(inputs, flow))
        return Update(output_change=change, linear_change=linear, kernel_change=kernel)
    linears = _by_layer(before, inputs, step, layers, read)
    kernels = None if flow is None else _by_layer(before, inputs, flow, layers, read)
    return Update(
        output_change=change,
        linear_change=sum(linears.values(), start=0 * next(iter(linears.values()))),
        kernel_change=None if kernels is None else sum(kernels.values(), start=0 * next(iter(kernels.values()))),
        layer_linear_changes=linears,
        layer_kernel_changes=kernels,
    )


def _gradient_flow(network: Network, inputs: Any, residual: Tensor, rule: UpdateRule) -> dict[str, Tensor] | None:
    """−P Jᵀ m/N, or None where P is not known."""
    metric = rule.metric(list(network.parameters))
    if metric is None:
        return None
    gradient = network.vjp(inputs, residual / len(residual))
    return {name: -(metric if isinstance(metric, float) else metric[name]) * g for name, g in gradient.items()}


def _by_layer(
    network: Network, inputs: Any, direction: Tensors, layers: Sequence[str], read: Callable[[Tensor], Array]
) -> dict[str, Array]:
    """J^l v^l for each layer; zero for one of which nothing trained."""
    own = {layer: {n: v for n, v in direction.items() if layer_of(n) == layer} for layer in layers}
    moved = {layer: read(network.jvp(inputs, v)) for layer, v in own.items() if v}
    nothing = 0 * next(iter(moved.values()))
    return {layer: moved.get(layer, nothing) for layer in layers}
