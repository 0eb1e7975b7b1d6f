"""Supplies: how each need of an observable is measured, one function per field of State.

A supplier looks at the :class:`Context`, and returns the field's value or raises :class:`NotMeasured`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kerneltrack.linear_algebra import trace as matrix_trace
from kerneltrack.measurement.anchored import finest_miss
from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.comparable import is_another_function
from kerneltrack.measurement.context import Context
from kerneltrack.measurement.curvature import stability_ratio, stability_terms
from kerneltrack.measurement.edge_mode import edge_mode
from kerneltrack.measurement.hessian import gradient_curvature
from kerneltrack.measurement.jacobian_motion import jacobian_difference
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.out_of_sample import as_matrix, check_squares, extended, logistic, regressed, spread
from kerneltrack.measurement.parameter_motion import difference
from kerneltrack.measurement.training_outputs import training_outputs
from kerneltrack.measurement.weight_norms import weight_norms
from kerneltrack.observables import NEEDS, EdgeMode, Need, State, grams_tell, missed_by_rounding, project
from kerneltrack.regression import Laplace
from kerneltrack.spectrum import KernelEstimates, kernel_estimates

Array = NDArray[np.float64]
Supplied = TypeVar("Supplied")
#: Field of State → what measures it. What every state has is not among them, and the update comes later.
SUPPLIERS: dict[str, Callable[[Context], Any]] = {}


def supplies(field: str) -> Callable[[Callable[[Context], Supplied]], Callable[[Context], Supplied]]:
    """Measure this field of State by the function that follows."""

    def enter(supplier: Callable[[Context], Supplied]) -> Callable[[Context], Supplied]:
        SUPPLIERS[field] = supplier
        return supplier

    return enter


def supply(context: Context, wanted: Iterable[Need]) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure what is wanted, and nothing else.

    Returns:
        Field of State → value; need → why it was not measured.
    """
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for need in wanted:
        try:
            _refuse(need, context)
            for field in need.fields:
                if field in SUPPLIERS and field not in values:
                    values[field] = SUPPLIERS[field](context)
        except NotMeasured as reason:
            reasons[need.name] = str(reason)
    return values, reasons


def _refuse(need: Need, context: Context) -> None:
    """Raise NotMeasured where it follows from the table that there can be no such thing here; the context says why."""
    if need.since_start:
        _ = context.start
    if need.of_the_kernel:
        _ = context.formed
    if need.every_mode and not context.spectrum.complete:
        raise NotMeasured("only the leading eigenpairs were computed")
    if need.instead and getattr(context, need.field) is None:
        _refuse(NEEDS[need.instead], context)
    if need.from_source:
        _ = context.first
    if need.by_layer and not need.of_the_kernel and context.new_layers:
        raise NotMeasured(context.new_layers)


@supplies("lagged")
def lagged(context: Context) -> State:
    """The state Δ updates before."""
    lag, found = context.references.lag, context.references.lagged
    if lag is None:
        raise NotMeasured("no snapshot before this one")
    if found is None:
        raise NotMeasured(f"no snapshot {lag} update{'s' * (lag != 1)} earlier")
    return found


@supplies("estimates")
def estimates(context: Context) -> KernelEstimates:
    """Sizes of Θ from its products with random vectors, the same in every snapshot."""
    spec, targets = context.spec, None if callable(context.spec.output) else context.targets
    columns = None if targets is None else project(spec.read(targets), spec.reduction)
    kernel = None if context.kernel is None else as_matrix(context.kept(context.kernel))
    if columns is not None and not columns.any():
        columns = None
    return kernel_estimates(context.operator or kernel, context.spectrum, targets=columns)


@supplies("sharpness")
def sharpness(context: Context) -> float:
    """λ_1(S^½ J Jᵀ S^½)."""
    return context.sharpness


@supplies("stability")
def stability(context: Context) -> float:
    """ρ_t."""
    parameters = list(context.network.parameters)
    return stability_ratio(
        context.rule, parameters, lambda metric: context.sharpness if metric == 1.0 else context.curvature(metric)
    )


@supplies("stability_halves")
def stability_halves(context: Context) -> float:
    """The mean of ρ_t over two disjoint halves of the probe."""
    if context.spec.scope == "exact":
        raise NotMeasured("the probe is the whole training set, which λ₁ is of")
    return stability_ratio(context.rule, list(context.network.parameters), context.curvature_of_halves)


@supplies("hessian_sharpness")
def hessian_sharpness(context: Context) -> float:
    """λ_1(∇²L)."""
    return context.hessian_sharpness


@supplies("hessian_ratio")
def hessian_ratio(context: Context) -> float:
    """λ_1(P^½ ∇²L P^½)/c."""
    largest = context.hessian.largest
    return stability_ratio(
        context.rule, list(context.network.parameters), lambda m: context.hessian_sharpness if m == 1.0 else largest(m)
    )


@supplies("batch_curvatures")
def batch_curvatures(context: Context) -> Array:
    """gᵀHg/‖g‖² of each training batch."""
    return np.array([gradient_curvature(hessian, 1.0) for hessian in context.batch_hessians()])


@supplies("batch_ratios")
def batch_ratios(context: Context) -> Array:
    """(Pg)ᵀH(Pg)/(c gᵀPg) of the same."""
    threshold, metric = stability_terms(context.rule, list(context.network.parameters))
    return np.array([gradient_curvature(hessian, metric) / threshold for hessian in context.batch_hessians()])


@supplies("edge_mode")
def mode_at_the_edge(context: Context) -> EdgeMode:
    """The swing along the one mode at the edge, and what would hold it there."""
    return edge_mode(context.spec, context.module, context.references.path, context.step, context.rule, context.outputs)


@supplies("layer_traces")
def layer_traces(context: Context) -> Mapping[str, float]:
    """tr Θ_l."""
    return context.layer_traces


@supplies("layer_kernels")
def layer_kernels(context: Context) -> Mapping[str, Array]:
    """Θ_l."""
    arrays = {id(kernel): context.kept(kernel) for kernel in context.by_layer.values()}
    return {layer: arrays[id(kernel)] for layer, kernel in context.by_layer.items()}


@supplies("parameter_distance")
def parameter_distance(context: Context) -> float:
    """‖θ_t − θ_0‖₂ over every parameter that trained at step 0."""
    return float(sum(distance**2 for distance in context.distances.values()) ** 0.5)


@supplies("layer_distances")
def layer_distances(context: Context) -> Mapping[str, float]:
    """The same of each layer."""
    return context.layers.placed(context.distances, 0.0, math.hypot)


@supplies("layer_weights")
def layer_weights(context: Context) -> Mapping[str, Array]:
    """‖W_0‖₂, ‖W_t‖₂, ‖W_t − W_0‖₂ and √(n_out/n_in) of each layer's matrix."""
    start = context.start
    found = weight_norms(context.module, start.parameters, start.now(context.module))
    return context.layers.placed(found, np.full(4, np.nan), lambda a, b: np.full(4, np.nan))


@supplies("cross_time")
def cross_time(context: Context) -> Array:
    """J_t J_0ᵀ."""
    return context.cross_time


@supplies("jacobian_difference")
def difference_of_jacobians(context: Context) -> float:
    """‖J_t − J_0‖₂ by products, where Gram matrices may not tell it; NaN where they do, or where it is not defined."""
    initial, spec = context.initial, context.spec
    if context.step == 0:
        return 0.0
    one_output = context.outputs.shape[1] == 1 and not callable(spec.output)
    if initial is None or not (spec.output in ("full", "trace") or one_output):
        return math.nan
    kernel, cross = as_matrix(context.kept(context.formed)), as_matrix(context.cross_time)
    squares = matrix_trace(kernel) + matrix_trace(initial.kernel_matrix()) - 2 * matrix_trace(cross)
    largest = max(float(pairs.values[0]) for pairs in (context.spectrum, initial.eigensystem))
    # ‖ΔJ‖₂² is at least its mean over the rows of the kernel.
    least = float(np.sqrt(max(0.0, squares) / len(kernel)))
    if grams_tell(least, largest, context.settings["computed_in"]):
        return math.nan
    return jacobian_difference(
        spec.network(context.module),
        spec.network(context.module, anchor=context.start),
        context.inputs,
        context.outputs,
        by_output=spec.output == "trace",
    )


@supplies("anchored_outputs")
def anchored_outputs(context: Context) -> Array:
    """f_0 + J_0 (θ_t − θ_0)."""
    start, initial, read = context.start, context.initial, context.spec.read
    network_at = partial(context.spec.network, context.module, every_parameter=True, headed=True)
    now = read(network_at().outputs(context.inputs) if callable(context.spec.output) else context.outputs)
    if context.step == 0:  # nothing has moved
        return now
    network = context.spec.network(context.module, every_parameter=True, anchor=start, headed=True)
    moved = difference(start.parameters, start.now(context.module))
    outputs, linear = map(read, network.linearized(context.inputs, moved))
    if initial is not None and is_another_function(outputs, initial.outputs, context.settings["dtype"]):
        raise NotMeasured("something else than the trained parameters has moved since step 0")
    origin = outputs if initial is None else initial.outputs
    epsilon = network.sight(network.inputs(context.inputs)).eps
    if not missed_by_rounding(now - origin, linear, now, epsilon):
        return origin + linear
    missed = finest_miss(
        network_at, start, context.inputs, moved, read, change=now - origin, outputs=now, epsilon=epsilon
    )
    return now - missed


@supplies("training_outputs")
def outputs_in_training(context: Context) -> Array:
    """f with the flags of training."""
    if callable(context.spec.output):
        raise NotMeasured
    if context.flags is None:
        raise NotMeasured("the flags of training are unknown")
    if not any(context.flags.values()):
        return context.spec.read(context.outputs)
    found = training_outputs(
        context.module, context.inputs, context.flags, forward=context.spec.forward, seed=context.step
    )
    return context.spec.read(found)


@supplies("optimizer_kernel")
def optimizer_kernel(context: Context) -> Array:
    """J P_t Jᵀ; where P is one number it is that times the kernel."""
    metric = context.rule.metric(context.settings["parameters"])
    if metric is None:
        raise NotMeasured(context.rule.unknown or "there is no optimizer")
    if isinstance(metric, float):
        return metric * context.kept(context.formed)
    moved = {name: entry for name, entry in metric.items() if isinstance(entry, Tensor) or entry > 0}
    if not moved:
        return 0 * context.kept(context.formed)
    return context.kept(context.kernels.own(context.module, context.inputs, params=tuple(moved), metric=moved))


@supplies("activations")
def activations(context: Context) -> Mapping[str, Array]:
    """a_l."""
    own = context.hidden.activations.items()
    return {layer: to_float64(rows) for layer, rows in own if context.layers.place(layer) == layer}


@supplies("gates")
def gates(context: Context) -> Mapping[str, Array]:
    """The inputs of the nonlinearities."""
    if not context.hidden.gates:
        raise NotMeasured("no layer's result goes into a nonlinearity")
    return {layer: to_float64(rows) for layer, rows in context.hidden.gates.items()}


@supplies("conjugate")
def conjugate(context: Context) -> Array:
    """φφᵀ."""
    if context.hidden.features is None:
        raise NotMeasured("the network does not end in a linear layer")
    features = context.kept(context.hidden.features)
    return features @ features.T


@supplies("readout_parameters")
def readout_parameters(context: Context) -> tuple[str, ...]:
    """What of the readout the kernel is of."""
    named = {name: f"{context.hidden.readout}.{name}".lstrip(".") for name in ("weight", "bias")}
    return tuple(name for name, full in named.items() if full in context.settings["parameters"])


@supplies("extension")
def extension(context: Context) -> Array:
    """The other probe's eigenvectors, carried over to this one."""
    _, reading = context.first
    return extended(context.cross, reading.state, context.spec.top_k)


@supplies("regression")
def regression(context: Context) -> Array:
    """What the network linearised at θ_t would predict here, trained to the end on the other probe."""
    _, reading = context.first
    return regressed(context.cross, context.spec.read(context.outputs), reading.state)


@supplies("laplace")
def laplace_here(context: Context) -> Laplace:
    """The posterior here of the network linearised at θ_t, given the other probe's data."""
    spec, reading = context.first
    check_squares(context.spec.loss)
    network, inputs = spec.network(context.module), spec.inputs(context.module)
    tangent = spec.read(network.jvp(inputs, network.parameters))
    return spread(context.cross, as_matrix(context.kept(context.formed)), tangent, reading.state)


@supplies("logistic")
def logits(context: Context) -> Array:
    """The same where it is trained on cross-entropy."""
    _, reading = context.first
    loss = context.spec.loss
    if loss is None or loss.name != "cross_entropy" or context.outputs.shape[1] < 2:
        raise NotMeasured("the loss is not a cross-entropy of several outputs")
    return logistic(context.cross, context.spec.read(context.outputs), reading.state)
