"""The door: ``empirical_ntk`` and ``ntk_plan``.

From a model and samples to Θ = J P Jᵀ, or to what it would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.conventions import GaugeChoice
from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import ran_out, refuse_budget
from kerneltrack.ntk.capture import REFUSALS, first_line
from kerneltrack.ntk.contraction import mirror
from kerneltrack.ntk.matrix_free import FactoredJacobian
from kerneltrack.ntk.methods import (
    Execution,
    Jacobian,
    KernelOptions,
    KernelRequest,
    Method,
    Outdated,
    StructuredPlan,
    add_jacobian_kernel,
    audit_when_due,
    forget_plan,
    forget_recording,
    jacobian_bytes,
    kept_plan,
    known_to_be_faster,
    least_jacobian_bytes,
    product_kernel,
)
from kerneltrack.ntk.network import (
    Forward,
    Metric,
    Selection,
    explained,
    forward_flops,
    layer_of,
    listed,
    refuse_not_finite,
    validate,
)
from kerneltrack.ntk.plan import Plan, PlanLine
from kerneltrack.ntk.progress import progress_bar
from kerneltrack.ntk.reduction import MANY, Output
from kerneltrack.undisturbed import plain_arithmetic


@plain_arithmetic()
def empirical_ntk(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "full",
    method: Method = "auto",
    params: Selection = None,
    by_layer: bool = False,
    dtype: torch.dtype | None = None,
    memory_budget: int | str | None = None,
    forward: Forward | None = None,
    metric: Metric = None,
    progress: bool | float = False,
    gauge: GaugeChoice = "raw",
) -> Tensor | dict[str, Tensor]:
    """The exact finite-width NTK of a network.

        Θ[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ · ∂f_p(x_m)/∂θ, over the trainable parameters

    Un-normalised (no 1/N, no 1/O), as Novak et al. 2022 (arXiv 2206.08720) define it. The module, its
    gradients, its modes and the random state are left as they were.

    Args:
        model: the network; in eval mode if it has BatchNorm or dropout.
        x1: N1 samples: a tensor, or a pytree of tensors, first axis N1.
        x2: N2 samples; None is x1, and the kernel is symmetric.
        output: ``"full"`` (N1, N2, O, O); ``"diagonal"`` (N1, N2, O); ``"trace"`` Σ_o (N1, N2); ``"sum"``,
            the kernel of Σ_o f_o (N1, N2); or a callable g: (O,) → (K,), the kernel of g(f) (N1, N2, K, K).
        method: ``"structured"`` uses what each layer's derivative looks like and refuses where it does not
            apply; ``"jacobian"`` and ``"products"`` are plain autodiff; ``"auto"`` is structured, with the
            Jacobian of those parameters that no structure explains.
        params: None for every parameter that requires grad, a predicate on names, or an iterable of names.
        by_layer: return one kernel for each layer (a parameter's name without its last part); they sum to Θ.
        dtype: in which everything is computed; None is the parameters' own. In half precision the network is
            evaluated, and sums over parameters are float32.
        memory_budget: bytes, or a text like "2GiB", that the call may add, result included; None is half of
            what is free.
        forward: ``(model, inputs) -> outputs``; by default a tensor goes in as ``model(x)``, a tuple as
            ``model(*x)``, a dict as ``model(**x)``.
        metric: a positive diagonal preconditioner P, a number or {name: number or tensor}: J P Jᵀ.
        progress: show a progress bar; a number: on a terminal, once the call has taken so many seconds.
        gauge: ``"softmax"`` takes off what softmax does not see, one function added to all outputs: with C = I − 11ᵀ/O and
            B (O, O − 1) of :mod:`kerneltrack.conventions`, ``"full"`` is BᵀΘB (N1, N2, O − 1, O − 1), ``"trace"`` Σ_o (CΘC)_oo,
            ``"diagonal"`` (CΘC)_oo (N1, N2, O). ``"raw"`` leaves the outputs as they are, and so does ``"auto"`` here, where
            no loss is known.

    Returns:
        The kernel on the model's device, or layer → kernel.

    Raises:
        UnsupportedModelError: coupled samples, random or non-finite outputs, outputs of another shape, nothing
            trainable.
        ProbeError: empty samples, or samples on another device than the model.
        MemoryBudgetError: the budget cannot work; it carries the number that would.
        KernelError: an argument that is not one of the above, or ``"structured"`` where it does not apply.
        AuditError: the plan disagreed with one VJP followed by one JVP.
    """
    options = KernelOptions(
        output=output,
        gauge=gauge,
        method=method,
        params=params,
        by_layer=by_layer,
        dtype=dtype,
        memory_budget=memory_budget,
        forward=forward,
        metric=metric,
    )
    kernels, _ = _kernels(model, x1, x2, options, progress)
    return kernels if by_layer else kernels[""]


@plain_arithmetic()
def kernel_and_jacobian(
    model: nn.Module, x: Any, options: KernelOptions, *, progress: bool | float = False
) -> tuple[dict[str, Tensor], FactoredJacobian | None]:
    """:func:`empirical_ntk` of samples with themselves, and J over every output, by the factors that it was made from.

    Args:
        model: as there, like all that follow, and its errors.
        x: N samples.
        options: what is asked for.
        progress: as there.

    Returns:
        Layer → kernel, "" where ``by_layer`` is not asked for; J of the outputs less their ``gauge``, or None where the
        kernel was made another way or in pieces. J takes no more memory than making the kernel did.
    """
    kernels, execution = _kernels(model, x, None, options, progress, keeps=True)
    return kernels, None if execution is None else FactoredJacobian.left_by(execution)


@plain_arithmetic()
def ntk_plan(
    model: nn.Module,
    x1: Any,
    x2: Any = None,
    *,
    output: Output = "full",
    method: Method = "auto",
    params: Selection = None,
    by_layer: bool = False,
    dtype: torch.dtype | None = None,
    memory_budget: int | str | None = None,
    forward: Forward | None = None,
    metric: Metric = None,
    gauge: GaugeChoice = "raw",
) -> Plan:
    """How :func:`empirical_ntk` would compute the kernel, and what that costs; ``print`` it.

    Arguments and errors are the same, but for what only samples beyond the first eight would show: the probe is not run.

    FLOPs of forward and backward passes are counted on one sample, the others follow from shapes.
    """
    options = KernelOptions(
        output=output,
        gauge=gauge,
        method=method,
        params=params,
        by_layer=by_layer,
        dtype=dtype,
        memory_budget=memory_budget,
        forward=forward,
        metric=metric,
    )
    request = KernelRequest.planned(model, x1, x2, options)
    execution, reason = _execution(request, only_planned=True)
    return _receipt(request, None if execution is None else execution.plan, reason)


def _receipt(request: KernelRequest, plan: StructuredPlan | None, reason: str) -> Plan:
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


def _kernels(
    model: nn.Module, x1: Any, x2: Any, options: KernelOptions, progress: bool | float, *, keeps: bool = False
) -> tuple[dict[str, Tensor], Execution | None]:
    """Layer → kernel, and what did the structured part of it; None of several kernels.

    Where launches count and an earlier call has asked for the same, its plan is taken, and samples are looked at beside the
    kernel. Where anything of that does not hold, all is asked anew.
    """
    request = KernelRequest.unlooked(model, x1, x2, options)
    with explained(request.network.module):
        if (found := _by_kept_plan(request, progress, keeps=keeps)) is not None:
            return found
    request = request.look()
    with explained(request.network.module):
        if _is_difference(request, request.outputs):
            asked = [replace(options, gauge="raw", output=one) for one in ("trace", "sum")]
            whole, summed = (_kernels(model, x1, x2, one, progress)[0] for one in asked)
            return {layer: kernel - summed[layer] / request.outputs for layer, kernel in whole.items()}, None
        try:
            return _compute(request, progress, keeps=keeps)
        except Outdated:
            forget_plan(request)
            forget_recording(request)
            return _compute(request, progress, keeps=keeps)


def _by_kept_plan(
    request: KernelRequest, progress: bool | float, *, keeps: bool
) -> tuple[dict[str, Tensor], Execution | None] | None:
    """What :func:`_compute` gives, by what an earlier call has found; None where there is nothing, or where it does not hold."""
    if not request.machine.counts_launches:
        return None
    with request.network.evaluating(throughout=True):
        trusted = _trusted(request)
        if trusted is None:
            return None
        try:
            return _compute(trusted, progress, keeps=keeps)
        except Outdated:
            forget_plan(request)
            forget_recording(request)
            return None


def _trusted(request: KernelRequest) -> KernelRequest | None:
    """The request by what an earlier call has found, where all of the kernel is made by its plan."""
    plan = kept_plan(request)
    if plan is None or plan.uncovered or _is_difference(request, plan.outputs):
        return None
    return request.trusted(plan.outputs)


def _is_difference(request: KernelRequest, outputs: int) -> bool:
    """Whether the trace without what softmax does not see is cheaper as the whole trace less the kernel of the sum."""
    return request.reduction.kind == "trace" and request.reduction.gauge == "softmax" and outputs > MANY


def _compute(
    request: KernelRequest, progress: bool | float, *, keeps: bool = False
) -> tuple[dict[str, Tensor], Execution | None]:
    """Layer → kernel, and what did the structured part of it, which ``keeps`` what it captured; see :class:`Execution`."""
    with progress_bar(progress, request.sample_pairs) as advance:
        execution, _ = _execution(request, keeps=keeps)
        _check_budget(request, None if execution is None else execution.plan)
        result = request.zeros()
        if execution is not None:
            execution.keeps = keeps
            execution = execution if _run(execution, result, advance) else _again(request, result, advance, keeps)
        if execution is None:
            _refuse_outputs(request)
        kernels = {layer: request.as_kernel(matrix) for layer, matrix in result.items()}
        _add_plainly(request, kernels, None if execution is None else execution.plan, advance)
    if execution is not None and not execution.settled():
        _look_again(request)
    audit_when_due(request, result, None if execution is None else execution.plan.key)
    if request.reduction.name == "sum":
        kernels = {layer: kernel[:, :, 0, 0] for layer, kernel in kernels.items()}
    return kernels, execution


def _look_again(request: KernelRequest) -> None:
    """Raises where what was seen beside the kernel is more than rounding; samples that are new are looked at closely."""
    for samples, name in ((request.x1, "x1"), (request.x2, "x2")):
        if samples is not None:
            refuse_not_finite(request.network.outputs(samples), name)
            validate(request.network, samples, name=name)


def _again(
    request: KernelRequest, result: Mapping[str, Tensor], advance: Callable[[int], None], keeps: bool
) -> Execution | None:
    """A second execution, where the first has found parameters of a batch to leave to their Jacobian; else None."""
    batched = request.network.known(request.x1).batched
    if batched is None or not batched.superseded:
        return None
    execution, _ = _execution(request, keeps=keeps)
    _check_budget(request, None if execution is None else execution.plan)
    if execution is None:
        return None
    execution.keeps = keeps
    return execution if _run(execution, result, advance) else None


def _refuse_outputs(request: KernelRequest) -> None:
    """Raises UnsupportedModelError where f(x) is NaN or infinite."""
    for samples, name in ((request.x1, "x1"), (request.x2, "x2")):
        if samples is not None:
            refuse_not_finite(request.network.outputs(samples), name)


def _add_plainly(
    request: KernelRequest, kernels: Mapping[str, Tensor], plan: StructuredPlan | None, advance: Callable[[int], None]
) -> None:
    """Adds by plain autodiff what the plan does not cover."""
    network, names = request.network, list(request.network.parameters if plan is None else plan.uncovered)
    x1, x2, outputs, kind = request.x1, request.x2, request.outputs, request.reduction.kind
    if request.method == "products":
        product_kernel(kernels, network, request.metric, names, x1, x2, outputs, kind, advance)
    elif names:
        jacobian = Jacobian(network, request.metric, request.dtype)
        add_jacobian_kernel(kernels, jacobian, names, x1, x2, outputs, kind, request.budget - request.result_bytes)


def _check_budget(request: KernelRequest, plan: StructuredPlan | None) -> None:
    """Raises MemoryBudgetError with the number that works, before anything is allocated."""
    names = list(request.network.parameters if plan is None else plan.uncovered)
    least = 0 if plan is None else plan.least_bytes
    if names:
        least = max(least, least_jacobian_bytes(request.network, names, request.x1, request.outputs, request.dtype))
    if request.budget < request.result_bytes + least:
        raise refuse_budget(request.budget, request.result_bytes + least)


def _execution(
    request: KernelRequest, *, only_planned: bool = False, keeps: bool = False
) -> tuple[Execution | None, str]:
    """The structured method, or None and why plain autodiff must do everything, or does it faster.

    Where what was captured is to be kept, products with it are worth more than the time of the kernel.
    """
    if request.method not in ("auto", "structured"):
        return None, ""
    if not keeps and (why := known_to_be_faster(request)):
        return None, f"faster: {why}"
    try:
        execution = Execution.of(request, only_planned=True) if only_planned else Execution.again(request)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        if not request.looked:
            raise Outdated(first_line(refusal)) from refusal
        _refuse_if_demanded(request, first_line(refusal))
        return None, first_line(refusal)
    if execution.plan.uncovered:
        _refuse_if_demanded(request, execution.plan.uncovered)
    if execution.plain and not keeps:
        return None, f"faster: {execution.plain}"
    return execution, ""


def _run(execution: Execution, result: Mapping[str, Tensor], advance: Callable[[int], None]) -> bool:
    """Fills ``result`` on both sides of the diagonal.

    False, with zeros, where the backward pass cannot be captured.
    """
    request = execution.request
    try:
        execution.add_to(result, advance)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        forget_plan(request)
        if execution.kept:  # a trial of these samples may find a way
            raise Outdated(first_line(refusal)) from refusal
        _refuse_if_demanded(request, first_line(refusal))
        for matrix in result.values():
            matrix.zero_()
        return False
    if request.x2 is None:
        for matrix in result.values():
            mirror(matrix, request.machine.mirror_rows)
    return True


def _refuse_if_demanded(request: KernelRequest, reason: object) -> None:
    if request.method == "structured":
        raise KernelError("the structured method does not apply", got=reason, remedy='Use method="auto" or "jacobian".')
