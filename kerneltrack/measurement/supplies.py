"""Supplies: how each need of an observable is measured, one function per field of State.

A supplier looks at the :class:`Context`, and returns the field's value or raises :class:`NotMeasured`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kerneltrack.measurement.arrays import to_float64
from kerneltrack.measurement.comparable import is_another_function, kernel_changed
from kerneltrack.measurement.context import Context
from kerneltrack.measurement.curvature import stability_ratio
from kerneltrack.measurement.kernels import trace
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.out_of_sample import extended, regressed
from kerneltrack.measurement.parameter_motion import difference
from kerneltrack.measurement.training_outputs import training_outputs
from kerneltrack.observables import Need

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


def supply(context: Context) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure what the chosen observables need, and nothing else.

    Returns:
        Field of State → value; need → why it was not measured.
    """
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for need in context.spec.wanted:
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
    if need.from_source:
        _ = context.first
    if need.by_layer and context.new_layers:
        raise NotMeasured(context.new_layers)


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


@supplies("layer_traces")
def layer_traces(context: Context) -> Mapping[str, float]:
    """tr Θ_l."""
    return {layer: trace(kernel) for layer, kernel in context.by_layer.items()}


@supplies("layer_kernels")
def layer_kernels(context: Context) -> Mapping[str, Array]:
    """Θ_l."""
    return {layer: to_float64(kernel) for layer, kernel in context.by_layer.items()}


@supplies("parameter_distance")
def parameter_distance(context: Context) -> float:
    """‖θ_t − θ_0‖₂ over every parameter that trained at step 0."""
    return float(sum(distance**2 for distance in context.distances.values()) ** 0.5)


@supplies("layer_distances")
def layer_distances(context: Context) -> Mapping[str, float]:
    """The same of each layer."""
    return {layer: context.distances.get(layer, 0.0) for layer in context.layers}


@supplies("cross_time")
def cross_time(context: Context) -> Array:
    """J_t J_0ᵀ."""
    if changed := kernel_changed(context.settings, context.initial, "at step 0"):
        raise NotMeasured(changed)
    if context.step == 0:
        return to_float64(context.formed)
    return to_float64(context.kernels.cross_time(context.module, context.inputs, context.start))


@supplies("anchored_outputs")
def anchored_outputs(context: Context) -> Array:
    """f_0 + J_0 (θ_t − θ_0)."""
    start, initial = context.start, context.initial
    network = context.spec.network(context.module, every_parameter=True, anchor=start, headed=True)
    outputs = to_float64(network.outputs(context.inputs))
    if initial is not None and is_another_function(outputs, initial.outputs, context.settings["dtype"]):
        raise NotMeasured("something else than the trained parameters has moved since step 0")
    moved = difference(start.parameters, start.now(context.module))
    linear = to_float64(network.jvp(context.inputs, moved))
    return linear + (outputs if initial is None else initial.outputs)


@supplies("training_outputs")
def outputs_in_training(context: Context) -> Array:
    """f with the flags of training."""
    if callable(context.spec.output):
        raise NotMeasured
    if context.flags is None:
        raise NotMeasured("the flags of training are unknown")
    if not any(context.flags.values()):
        return to_float64(context.outputs)
    found = training_outputs(
        context.module, context.inputs, context.flags, forward=context.spec.forward, seed=context.step
    )
    return to_float64(found)


@supplies("optimizer_kernel")
def optimizer_kernel(context: Context) -> Array:
    """J P_t Jᵀ; where P is one number it is that times the kernel."""
    metric = context.rule.metric(context.settings["parameters"])
    if metric is None:
        raise NotMeasured(context.rule.unknown or "there is no optimizer")
    if isinstance(metric, float):
        return metric * to_float64(context.formed)
    moved = {name: entry for name, entry in metric.items() if isinstance(entry, Tensor) or entry > 0}
    if not moved:
        return 0 * to_float64(context.formed)
    return to_float64(context.kernels.own(context.module, context.inputs, params=tuple(moved), metric=moved))


@supplies("activations")
def activations(context: Context) -> Mapping[str, Array]:
    """a_l."""
    return {layer: to_float64(rows) for layer, rows in context.hidden.activations.items()}


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
    features = to_float64(context.hidden.features)
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
    return regressed(context.cross, to_float64(context.outputs), reading.state)
