"""From a request to the kernel: by a plan that an earlier call has left, or by a new one, and what no plan covers plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import ran_out, refuse_budget
from kerneltrack.ntk.capture import REFUSALS, first_line
from kerneltrack.ntk.methods import (
    Comparison,
    Execution,
    Jacobian,
    KernelOptions,
    KernelRequest,
    Outdated,
    StructuredPlan,
    add_jacobian_kernel,
    audit_when_due,
    forget_plan,
    forget_recording,
    kept_plan,
    known_outputs,
    known_to_be_faster,
    least_jacobian_bytes,
    product_kernel,
    remember_call,
    remember_outputs,
    repeated,
)
from kerneltrack.ntk.network import explained, refuse_not_finite, validate
from kerneltrack.ntk.progress import progress_bar
from kerneltrack.ntk.reduction import MANY, trace

#: What stays of a kernel's making: nothing; what it was captured as, where that takes no other way to the kernel; or that whatever
#: the way takes, because many products will follow.
Keeps = Literal["nothing", "what is there", "factors"]

#: Layer → the trace of its kernel, to be filled where the sum of the layers' kernels is all that is asked for; else None.
Traces = dict[str, float] | None


def kernels_of(
    model: nn.Module,
    x1: Any,
    x2: Any,
    options: KernelOptions,
    progress: bool | float,
    *,
    keeps: Keeps = "nothing",
    traces: Traces = None,
) -> tuple[dict[str, Tensor], Execution | None]:
    """Layer → kernel, and what did the structured part of it; None of several kernels. With ``traces``, "" → their sum.

    Where an earlier call has asked for the same, its plan is taken, and samples are looked at beside the kernel where that is
    cheaper. Where anything of that does not hold, all is asked anew.
    """
    if keeps != "factors" and progress is False and (kernels := repeated(model, x1, x2, options)) is not None:
        return kernels if traces is None else _sum(kernels, traces), None
    request = KernelRequest.unlooked(model, x1, x2, options)
    if keeps == "factors":  # what is made once for each state is not recorded
        request = replace(request, machine=replace(request.machine, small_operations=0))
    with explained(request.network.module), request.network.standing():
        found = _by_kept_plan(request, progress, keeps, traces) or _by_known_rows(request, progress, keeps, traces)
        if found is not None:
            if found[1] is not None and found[1].replayed:
                remember_call(model, options, found[1].request, found[1].plan.key)
            return found
    request = request.look()
    with explained(request.network.module):
        if _is_difference(request, request.outputs):
            asked = [replace(options, gauge="raw", output=one) for one in ("trace", "sum")]
            whole, summed = (kernels_of(model, x1, x2, one, progress)[0] for one in asked)
            kernels = {layer: kernel - summed[layer] / request.outputs for layer, kernel in whole.items()}
            return kernels if traces is None else _sum(kernels, traces), None
        try:
            return _looked_at(request, progress, keeps, traces)
        except Outdated:
            forget_plan(request)
            forget_recording(request)
            return _looked_at(request, progress, keeps, traces)


def _looked_at(
    request: KernelRequest, progress: bool | float, keeps: Keeps, traces: Traces
) -> tuple[dict[str, Tensor], Execution | None]:
    """:func:`_compute`; where it fails before a first look was settled, the samples may be why, and are heard first."""
    try:
        return _compute(request, progress, keeps, traces)
    except Exception as failure:
        if request.first is not None and not ran_out(failure):
            request.first.settle()
        raise


def _by_kept_plan(
    request: KernelRequest, progress: bool | float, keeps: Keeps, traces: Traces
) -> tuple[dict[str, Tensor], Execution | None] | None:
    """What :func:`_compute` gives, by what an earlier call has found; None where there is nothing, or where it does not hold."""
    with request.network.evaluating(throughout=True):
        plan = kept_plan(request)
        if plan is None or plan.uncovered or _is_difference(request, plan.outputs):
            return None
        trusted = request.trusted(plan.outputs)
        try:
            return _compute(trusted, progress, keeps, traces, plan=plan.within(trusted))
        except Outdated:
            forget_plan(request)
            forget_recording(request)
            return None


def _by_known_rows(
    request: KernelRequest, progress: bool | float, keeps: Keeps, traces: Traces
) -> tuple[dict[str, Tensor], Execution | None] | None:
    """The same by the plain Jacobian, where that is what an earlier call has taken."""
    if keeps == "factors" and request.method == "auto":
        return None
    with request.network.evaluating(throughout=True):
        outputs = known_outputs(request)
        if not outputs or _is_difference(request, outputs):
            return None
        compared = Comparison(request.network, request.x1, "x1")
        try:
            return _compute(request.trusted(outputs), progress, keeps, traces, compared=compared)
        except Outdated:
            request.network.forget(request.x1)
            return None


def _is_difference(request: KernelRequest, outputs: int) -> bool:
    """Whether the trace without what softmax does not see is cheaper as the whole trace less the kernel of the sum."""
    return request.reduction.kind == "trace" and request.reduction.gauge == "softmax" and outputs > MANY


def _compute(
    request: KernelRequest,
    progress: bool | float,
    keeps: Keeps,
    traces: Traces,
    *,
    plan: StructuredPlan | None = None,
    compared: Comparison | None = None,
) -> tuple[dict[str, Tensor], Execution | None]:
    """Layer → kernel, and what did the structured part of it, which ``keeps`` what it captured; see :class:`Execution`.

    By the kept ``plan``, where one is given; by the plain Jacobian, beside which samples are ``compared``, where that is given.
    """
    with progress_bar(progress, request.sample_pairs) as advance:
        execution = _execution(request, keeps) if plan is None else Execution(plan, request)
        _check_budget(request, None if execution is None else execution.plan)
        result = request.zeros()
        if execution is not None:
            execution.keeps = _stays(execution, keeps)
            mirrors = traces is None  # the sum of the layers' triangles is mirrored once
            if not _run(request, execution, result, advance, mirrors):
                execution = _again(request, result, advance, keeps, mirrors)
        if execution is None and compared is None:
            _refuse_outputs(request)
        kernels = {layer: request.as_kernel(matrix) for layer, matrix in result.items()}
        _add_plainly(request, kernels, None if execution is None else execution.plan, advance, compared)
    looked_at = execution or compared
    if looked_at is not None and not looked_at.settled():
        _look_again(request)
    if request.first is not None:
        request.first.settle(None if execution is None else execution.captured)
    if traces is not None:
        kernels, result = _sum(kernels, traces), {"": next(iter(result.values()))}
        if execution is not None:
            execution.mirror(result)
    audit_when_due(request, result, None if execution is None else execution.plan.key)
    if request.reduction.name == "sum":
        kernels = {layer: kernel[:, :, 0, 0] for layer, kernel in kernels.items()}
    return kernels, execution


def _sum(kernels: Mapping[str, Tensor], traces: dict[str, float]) -> dict[str, Tensor]:
    """The sum of the layers' kernels, in the place of the first, as that of "" alone; ``traces`` are filled."""
    traces.update((layer, trace(kernel)) for layer, kernel in kernels.items())
    first, *others = kernels.values()
    for kernel in others:
        first += kernel
    return {"": first}


def _look_again(request: KernelRequest) -> None:
    """Raises where what was seen beside the kernel is more than rounding; samples that are new are looked at closely."""
    for samples, name in ((request.x1, "x1"), (request.x2, "x2")):
        if samples is not None:
            refuse_not_finite(request.network.outputs(samples), name)
            validate(request.network, samples, name=name)


def _again(
    request: KernelRequest, result: Mapping[str, Tensor], advance: Callable[[int], None], keeps: Keeps, mirrors: bool
) -> Execution | None:
    """A second execution, where the first has found parameters of a batch to leave to their Jacobian; else None."""
    batched = request.network.known(request.x1).batched
    if batched is None or not batched.superseded:
        return None
    execution = _execution(request, keeps)
    _check_budget(request, None if execution is None else execution.plan)
    if execution is None:
        return None
    execution.keeps = _stays(execution, keeps)
    return execution if _run(request, execution, result, advance, mirrors) else None


def _execution(request: KernelRequest, keeps: Keeps) -> Execution | None:
    return execution_of(request, keeps=keeps == "factors")[0]


def _stays(execution: Execution, keeps: Keeps) -> bool:
    """Whether the capture stays: also where it is merely there, unless the kernel is recorded, or made on an accelerator."""
    return keeps == "factors" or (keeps == "what is there" and not execution.plan.machine.counts_launches)


def _refuse_outputs(request: KernelRequest) -> None:
    """Raises UnsupportedModelError where f(x) is NaN or infinite."""
    for samples, name in ((request.x1, "x1"), (request.x2, "x2")):
        if samples is not None:
            refuse_not_finite(request.network.outputs(samples), name)


def _add_plainly(
    request: KernelRequest,
    kernels: Mapping[str, Tensor],
    plan: StructuredPlan | None,
    advance: Callable[[int], None],
    compared: Comparison | None,
) -> None:
    """Adds by plain autodiff what the plan does not cover, all rows ``compared`` where that is given.

    Raises:
        Outdated: what would be compared was not made by vmap.
    """
    network, names = request.network, list(request.network.parameters if plan is None else plan.uncovered)
    x1, x2, outputs, kind = request.x1, request.x2, request.outputs, request.reduction.kind
    if request.method == "products":
        product_kernel(kernels, network, request.metric, names, x1, x2, outputs, kind, advance)
    elif names:
        note = None if compared is None else compared.note_rows
        jacobian = Jacobian(network, request.metric, request.dtype, note)
        add_jacobian_kernel(kernels, jacobian, names, x1, x2, outputs, kind, request.budget - request.result_bytes)
        if compared is not None:
            if jacobian.by_sample is not None:
                raise Outdated(jacobian.by_sample)
            compared.compare()
        elif plan is None:
            remember_outputs(request, jacobian.by_sample)


def _check_budget(request: KernelRequest, plan: StructuredPlan | None) -> None:
    """Raises MemoryBudgetError with the number that works, before anything is allocated."""
    names = list(request.network.parameters if plan is None else plan.uncovered)
    least = 0 if plan is None else plan.least_bytes
    if names:
        least = max(least, least_jacobian_bytes(request.network, names, request.x1, request.outputs, request.dtype))
    if request.budget < request.result_bytes + least:
        raise refuse_budget(request.budget, request.result_bytes + least)


def execution_of(
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
        execution = (
            Execution.of(request, only_planned=True, again=not keeps) if only_planned else Execution.again(request)
        )
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


def _run(
    request: KernelRequest,
    execution: Execution,
    result: Mapping[str, Tensor],
    advance: Callable[[int], None],
    mirrors: bool,
) -> bool:
    """Fills ``result``, where it ``mirrors`` on both sides of the diagonal.

    False, with zeros, where the backward pass cannot be captured.
    """
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
    if mirrors:
        execution.mirror(result)
    return True


def _refuse_if_demanded(request: KernelRequest, reason: object) -> None:
    if request.method == "structured":
        raise KernelError("the structured method does not apply", got=reason, remedy='Use method="auto" or "jacobian".')
