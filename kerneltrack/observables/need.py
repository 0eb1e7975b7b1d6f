"""Need: what a measurement can offer, declared once; checks, the tracker's choices and a page follow from the table.

One more need is an entry here, the field of :class:`State` that holds it, and a supplier that measures it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kerneltrack.errors import ObservableError


def _always(_: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that must have been measured for an observable.

    Attributes:
        name: by which an observable asks for it.
        field: of :class:`State`, None where it was not measured.
        what: what must be there; in the words of ``docs/notation.md``.
        cost: what that costs.
        beside: further fields that are measured with it; where one cannot be, neither is it.
        holds: whether a field that is not None holds it.
        of_the_kernel: whether there is none where the kernel matrix is not formed.
        since_start: whether it takes the network's state at step 0.
        every_mode: whether the leading eigenpairs are not enough.
        by_layer: whether it has one value a layer, of the layers of the first measurement.
        from_source: whether it is carried over from another probe.
        instead: the need that holds as much, where the field is None.
        light: the least that a light state of a group must have for it, "outputs" or "kernel"; "": no light state has it.
    """

    name: str
    field: str
    what: str
    cost: str
    beside: tuple[str, ...] = ()
    holds: Callable[[Any], bool] = _always
    of_the_kernel: bool = False
    since_start: bool = False
    every_mode: bool = False
    by_layer: bool = False
    from_source: bool = False
    instead: str = ""
    light: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that is measured for it, its own last."""
        return (*self.beside, self.field)

    def is_met(self, state: object) -> bool:
        """Whether a :class:`State` has it."""
        value = getattr(state, self.field)
        met = value is not None and self.holds(value)
        return met or (self.instead != "" and NEEDS[self.instead].is_met(state))


#: By name, in the order in which they are measured: what several share a computation for stands last, so that none of it
#: lies in memory beside a kernel of another need.
NEEDS = {
    need.name: need
    for need in (
        Need(
            name="eigenvalues",
            field="eigensystem",
            holds=lambda eigensystem: len(eigensystem.values) > 0,
            what="λ_i of the leading modes",
            cost="k products of a Lanczos iteration, or the kernel and a dense solve",
        ),
        Need(
            name="eigenvectors",
            field="eigensystem",
            holds=lambda eigensystem: len(eigensystem.values) > 0,
            what="v_i of the leading modes",
            cost="the same",
        ),
        Need(
            name="spectrum",
            field="eigensystem",
            every_mode=True,
            holds=lambda eigensystem: eigensystem.complete,
            what="every mode",
            cost="the kernel, and O(M³) for the solve",
        ),
        Need(
            name="kernel",
            field="kernel",
            of_the_kernel=True,
            light="kernel",
            what="the kernel as an array",
            cost="N²K² numbers",
        ),
        Need(
            name="matrix",
            field="kernel",
            instead="spectrum",
            light="kernel",
            what="every entry of the kernel, as it was formed or from every mode",
            cost="none beside the kernel",
        ),
        Need(
            name="size",
            field="eigensystem",
            light="kernel",
            what="tr Θ, and ‖Θ‖_F where the kernel was formed",
            cost="none beside the kernel or its products",
        ),
        Need(
            name="estimates",
            field="estimates",
            what="tr Θ, ‖Θ‖_F and what follows from them, estimated",
            cost="32 products of Θ with random vectors and one with each column of y; only the latter where every mode is known",
        ),
        Need(name="outputs", field="outputs", light="outputs", what="f_t", cost="one forward pass"),
        Need(name="targets", field="targets", light="outputs", what="y", cost="none"),
        Need(name="residual", field="residual", light="outputs", what="m_t", cost="the loss on the outputs"),
        Need(
            name="loss",
            field="probe_loss",
            light="outputs",
            holds=lambda loss: not math.isnan(loss),
            what="L on the probe",
            cost="the loss on the outputs",
        ),
        Need(
            name="initial",
            field="initial",
            light="outputs",
            what="the state at step 0 of the same run",
            cost="its memory",
        ),
        Need(
            name="previous",
            field="previous",
            light="outputs",
            what="the state before this one that was measured whole",
            cost="its memory",
        ),
        Need(
            name="lagged",
            field="lagged",
            light="outputs",
            what="the state Δ updates before this one, Δ the gap of the run's first two states",
            cost="its memory, where it is another than the one before",
        ),
        Need(
            name="operator",
            field="stability",
            what="ρ_t",
            cost="five to ten products of a Lanczos iteration, with the kernel where it is J Jᵀ whole and P one number, else "
            "one VJP and one JVP each; none where it follows from λ_1",
        ),
        Need(
            name="sharpness",
            field="sharpness",
            what="λ_1 of the Gauss–Newton matrix",
            cost="as ρ_t, and nothing beside it where P is one number",
        ),
        Need(
            name="halves",
            field="stability_halves",
            beside=("stability",),
            what="ρ_t on two disjoint halves of the probe",
            cost="as ρ_t once more, on half as many points twice",
        ),
        Need(
            name="hessian",
            field="hessian_sharpness",
            what="λ_1 of the Hessian of the loss on the probe",
            cost="ten to fifty products of a Lanczos iteration, two backward passes each, and as many vectors of all parameters",
        ),
        Need(
            name="hessian_ratio",
            field="hessian_ratio",
            what="λ_1(P^½ ∇²L P^½)/c",
            cost="as the Hessian's λ_1 once more; nothing beside it where P is one number",
        ),
        Need(
            name="batches",
            field="batch_curvatures",
            what="the curvature of each of 16 training batches along its own gradient",
            cost="three backward passes a batch; the batches' memory",
        ),
        Need(
            name="batch_ratios",
            field="batch_ratios",
            what="the same in the optimizer's metric, over c",
            cost="three backward passes a batch",
        ),
        Need(
            name="update",
            field="update",
            what="f_{t+1} and J_tΔθ",
            cost="one forward pass, one JVP, one copy of the parameters",
        ),
        Need(
            name="layer_changes",
            field="update",
            holds=lambda update: update.layer_linear_changes is not None,
            by_layer=True,
            what="J_t^l Δθ^l and the gradient flow of each layer",
            cost="two JVPs per layer",
        ),
        Need(
            name="update_curvature",
            field="update",
            holds=lambda update: update.slope is not None and update.bend is not None,
            what="gᵀu and uᵀHu of the update u",
            cost="two backward passes of the probe",
        ),
        Need(
            name="update_batch",
            field="update",
            holds=lambda update: update.batch_slope is not None and update.batch_bend is not None,
            what="the same of the loss on the batch that the update was made from",
            cost="two backward passes of the batch, and its memory until the update has ended",
        ),
        Need(
            name="edge_mode",
            field="edge_mode",
            light="outputs",
            what="the swing of three states along the one mode at the edge, and ∇λ_1 at their mean",
            cost="θ_{t−2} and θ_{t−1}: two copies of the parameters while a triple goes on; in its third state some fifty to a "
            "hundred products of the Hessian and twenty vectors of all parameters",
        ),
        Need(
            name="layers",
            field="layer_traces",
            of_the_kernel=True,
            by_layer=True,
            what="the trace of each layer's kernel",
            cost="memory for one kernel per layer, 2²⁸ numbers in all at most",
        ),
        Need(
            name="layer_kernels",
            field="layer_kernels",
            beside=("layer_traces",),
            of_the_kernel=True,
            by_layer=True,
            what="the kernel of each layer",
            cost="the same, and as much again in float64",
        ),
        Need(
            name="parameters",
            field="parameter_distance",
            beside=("layer_distances",),
            since_start=True,
            what="‖θ_t − θ_0‖, also by layer",
            cost="θ_0: one copy of parameters and buffers, also in every checkpoint",
        ),
        Need(
            name="weights",
            field="layer_weights",
            since_start=True,
            by_layer=True,
            what="‖W_0‖₂, ‖W_t‖₂ and ‖W_t − W_0‖₂ of each layer's matrix",
            cost="θ_0, and three Lanczos iterations of some ten products with each matrix",
        ),
        Need(
            name="cross_time",
            field="cross_time",
            beside=("jacobian_difference",),
            of_the_kernel=True,
            since_start=True,
            what="J_tJ_0ᵀ",
            cost="θ_0, and a second kernel; where the change of the Jacobian may drown in their rounding, five to ten products "
            "of a Lanczos iteration, two VJPs and two JVPs each (for every output of a trace kernel)",
        ),
        Need(
            name="anchored",
            field="anchored_outputs",
            since_start=True,
            what="f_0 + J_0(θ_t − θ_0)",
            cost="θ_0 and one JVP",
        ),
        Need(
            name="training_outputs",
            field="training_outputs",
            what="f with the flags of training",
            cost="one forward pass of the probe as one batch",
        ),
        Need(
            name="optimizer_kernel",
            field="optimizer_kernel",
            of_the_kernel=True,
            what="J P_t Jᵀ",
            cost="none for one learning rate, else a second kernel",
        ),
        Need(
            name="activations",
            field="activations",
            what="hidden activations, now and at initialisation",
            cost="one forward pass, their memory",
        ),
        Need(
            name="gates",
            field="gates",
            what="the inputs of the nonlinearities, now and at initialisation",
            cost="the same forward pass",
        ),
        Need(
            name="conjugate",
            field="conjugate",
            beside=("readout_parameters",),
            what="the inputs φ of the linear readout",
            cost="the same forward pass",
        ),
        Need(
            name="extension",
            field="extension",
            of_the_kernel=True,
            from_source=True,
            what="the first probe's eigenvectors on this one",
            cost="the kernel between the two probes",
        ),
        Need(
            name="regression",
            field="regression",
            beside=("extension",),
            of_the_kernel=True,
            from_source=True,
            what="what the first probe's targets predict on this one",
            cost="the same kernel, and a solve",
        ),
        Need(
            name="laplace",
            field="laplace",
            of_the_kernel=True,
            from_source=True,
            what="what the first probe's data leave open here",
            cost="the same kernel, a search for the largest evidence, and a JVP on the first probe",
        ),
        Need(
            name="logistic",
            field="logistic",
            of_the_kernel=True,
            from_source=True,
            what="what logistic regression on the first probe predicts on this one",
            cost="the same kernel, and Newton's method, some hundred products",
        ),
    )
}


def need(name: str) -> Need:
    """The need of that name.

    Raises:
        ObservableError: there is none; the nearest are named.
    """
    if name not in NEEDS:
        nearest = difflib.get_close_matches(str(name), NEEDS, n=3) or list(NEEDS)
        raise ObservableError("unknown need of an observable", expected=f"one of {', '.join(nearest)}", got=repr(name))
    return NEEDS[name]


def in_order(names: Iterable[str]) -> tuple[Need, ...]:
    """The needs of those names, each once, in the order in which they are measured."""
    chosen = {need(name).name for name in names}
    return tuple(entry for name, entry in NEEDS.items() if name in chosen)


def is_light(names: Iterable[str], extent: str) -> bool:
    """Whether a light state of a group has all of those needs.

    Args:
        names: of needs.
        extent: what was measured of it, "kernel" (and the outputs) or "outputs".
    """
    enough = {"outputs": ("outputs",), "kernel": ("outputs", "kernel")}[extent]
    return all(need(name).light in enough for name in names)
