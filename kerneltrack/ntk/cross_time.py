"""The kernel between a network as it is and as it was, J J_aᵀ, by the same structure as the kernel itself.

Both states run the same forward pass, so a weight's uses are the same on both sides, and the orders of contraction need
not know that the gradients of one side were taken elsewhere. Where a structure must look at the weights behind the
gradients (reparametrised ones), plain Jacobians do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import ran_out
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.methods import (
    Execution,
    Jacobian,
    KernelOptions,
    KernelRequest,
    add_jacobian_kernel,
    audit_when_due,
)
from kerneltrack.ntk.network import AnchoredNetwork, Forward, Network, NetworkState, Selection
from kerneltrack.ntk.reduction import MANY, Output
from kerneltrack.undisturbed import plain_arithmetic


@plain_arithmetic()
def cross_time_ntk(
    model: nn.Module,
    x: Any,
    anchor: NetworkState,
    *,
    output: Output = "full",
    params: Selection = None,
    forward: Forward | None = None,
    memory_budget: int | str | None = None,
    gauge: GaugeChoice = "raw",
) -> Tensor:
    """J J_aᵀ: the kernel between a network as it is and as it was at an anchor, on the same samples.

        C[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ (now) · ∂f_p(x_m)/∂θ (at the anchor)

    It is not symmetric.

    Args:
        model: the network; in eval mode if it has BatchNorm or dropout.
        x: N samples.
        anchor: the other state.
        output: as of :func:`kerneltrack.empirical_ntk`.
        params: as there.
        forward: as there.
        memory_budget: as there.
        gauge: as there.

    Returns:
        The shape of ``empirical_ntk(model, x, output=output, gauge=gauge)``.

    Raises:
        UnsupportedModelError, ProbeError, AuditError: as there.
    """
    options = KernelOptions(output=output, gauge=gauge, params=params, forward=forward, memory_budget=memory_budget)
    request = KernelRequest.of(model, x, None, options)
    if request.reduction.kind == "trace" and gauge == "softmax" and request.outputs > MANY:
        rest: dict[str, Any] = {"params": params, "forward": forward, "memory_budget": memory_budget}
        summed = cross_time_ntk(model, x, anchor, output="sum", **rest) / request.outputs
        return cross_time_ntk(model, x, anchor, output="trace", **rest) - summed
    request = replace(request, x2=request.x1)
    head = request.reduction.head
    then = AnchoredNetwork(model, anchor, params=params, forward=forward, head=head)
    result = request.zeros()
    kernel = request.as_kernel(result[""])
    plan_key = _by_structure(request, then, result)
    if plan_key is None:
        _by_jacobians(request, then, kernel)
    audit_when_due(request, result, plan_key, then)
    return kernel[:, :, 0, 0] if request.reduction.name == "sum" else kernel


def _by_structure(request: KernelRequest, then: Network, into: Mapping[str, Tensor]) -> tuple[object, ...] | None:
    """The plan's key if the structure could do it; if not, None, and ``into`` is zero again."""
    try:
        ours, theirs = Execution.of(request), Execution.of(replace(request, network=then))
        plan = ours.plan
        if plan.key != theirs.plan.key or plan.uncovered or not all(term.has_factors for term in plan.terms):
            return None
        if request.budget < request.result_bytes + plan.least_bytes:
            return None
        ours.add_to(into, lambda pairs: None, against=theirs)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        for matrix in into.values():
            matrix.zero_()
        return None
    return plan.key


def _by_jacobians(request: KernelRequest, then: Network, kernel: Tensor) -> None:
    """Adds J J_aᵀ, one parameter's rows at a time."""
    add_jacobian_kernel(
        {"": kernel},
        Jacobian(request.network, dtype=request.dtype),
        list(request.network.parameters),
        request.x1,
        request.x2,
        request.outputs,
        request.reduction.kind,
        max(request.budget - request.result_bytes, 2**20),
        other=Jacobian(then, dtype=request.dtype),
    )
