"""What is printed of a plan: which rule does what, what it costs, and why plain autodiff does the rest."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kerneltrack.ntk.methods import KernelRequest, StructuredPlan, jacobian_bytes, least_jacobian_bytes
from kerneltrack.ntk.network import forward_flops, layer_of, listed
from kerneltrack.ntk.plan import Plan, PlanLine


def receipt(request: KernelRequest, plan: StructuredPlan | None, reason: str) -> Plan:
    """The printed plan: structure where there is ``plan``, plain autodiff of the rest."""
    uncovered = dict.fromkeys(request.network.parameters, "") if plan is None else plan.uncovered
    method: str = request.method
    if plan is not None or method == "auto":
        method = "jacobian" if plan is None else "structured"
    return Plan(
        method=method,
        output=request.reduction.name,
        gauge=request.reduction.gauge,
        shape=request.reduction.shape(len(request.x1), request.columns, request.outputs),
        dtype=_name(request.dtype),
        uses=(*(plan.lines if plan is not None else ()), *(_plain_line(request, *item) for item in uncovered.items())),
        frozen=tuple(request.network.frozen),
        forward_flops=_passes(request, plan) * forward_flops(request.network, request.x1),
        result_bytes=request.result_bytes,
        working_bytes=_working_bytes(request, plan),
        budget_bytes=request.budget,
        notes=tuple(_notes(request, reason, plan)),
    )


def _working_bytes(request: KernelRequest, plan: StructuredPlan | None) -> int:
    """What is held beside the result: what the method takes, and never more than the budget leaves."""
    covered = 0 if plan is None else plan.working_bytes
    names = list(request.network.parameters if plan is None else plan.uncovered)
    if not names:
        return covered
    if request.method == "products":
        network, dtype = request.network, request.dtype
        least = least_jacobian_bytes(network, names, request.x1, 1, dtype)
        chunk = network.chunk_rows(request.x1) * network.activation_bytes(request.x1)
        return min(request.free_bytes, least + 2 * chunk)
    plain = jacobian_bytes(request.network, names, request.x1, request.samples, request.outputs, request.dtype)
    return max(covered, min(request.free_bytes, plain))


def _unseen(request: KernelRequest, plan: StructuredPlan | None) -> list[str]:
    """Parameters that no use of the forward pass touches; unknown, and none, where the uses are not."""
    if plan is None:
        return []
    seen = {name for line in plan.lines for name in line.parameters} | set(plan.uncovered)
    return [name for name in request.network.parameters if name not in seen]


def _passes(request: KernelRequest, plan: StructuredPlan | None) -> int:
    """What forward and backward passes cost, in forward passes of one sample: a backward pass of one output is another."""
    if request.method == "products":
        return 3 * request.outputs * request.columns * (1 + len(request.x1))
    of_one = 0 if plan is None else 1 + request.outputs
    if plan is None or plan.uncovered:
        of_one += 1 + 2 * request.outputs
    return request.samples * of_one


def _of_vmap(reason: str) -> str:
    """Why torch.func.vmap does not go through a forward pass; its own words where they are not the usual ones."""
    if "data-dependent control flow" in reason:
        return "the forward pass asks for values (as for an attention mask: is anything masked?), which torch.func.vmap refuses"
    return reason


def _notes(request: KernelRequest, reason: str, plan: StructuredPlan | None) -> Iterator[str]:
    if plan is not None and plan.batched:
        yield f"captured in ordinary batches, whose uses were compared with plain autodiff: {_of_vmap(plan.batched)}"
    if plan is not None and request.machine.counts_launches:
        yield str(plan.passes)
    if reason.startswith("faster: "):
        yield f"every parameter by its plain Jacobian, which is as exact: {reason.removeprefix('faster: ')}"
    elif reason.startswith("vmap:"):
        yield f"every parameter by plain autodiff, sample by sample, which is as exact: {_of_vmap(reason)}"
    elif reason:
        yield f"every parameter by plain autodiff: {reason}"
    if unseen := _unseen(request, plan):
        yield f"the outputs do not depend on {listed(unseen)}: zero in the kernel; does forward= leave out a part of the model?"
    if request.network_dtype != request.dtype:
        yield f"the network is evaluated in {_name(request.network_dtype)}, sums over parameters are {_name(request.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _plain_line(request: KernelRequest, name: str, why: str) -> PlanLine:
    """The line of a parameter that plain autodiff does; of a block with itself, too, the whole product runs."""
    count = request.network.parameters[name].numel()
    rule, flops = "products", 0
    if request.method != "products":
        summed = request.outputs if request.reduction.kind == "trace" else 1
        rule, pairs = "jacobian", len(request.x1) * request.columns * request.paired**2 * request.planes
        flops = 2 * pairs * count * summed
    traffic = 2 * request.outputs * (len(request.x1) + request.columns) * count * request.dtype.itemsize
    return PlanLine(parameters=(name,), layer=layer_of(name), rule=rule, flops=flops, bytes=traffic, reason=why)
