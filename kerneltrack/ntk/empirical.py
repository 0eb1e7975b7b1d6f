"""The door: ``empirical_ntk`` and ``ntk_plan``.

From a model and samples to Θ = J P Jᵀ, or to what it would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError, ProbeError
from kerneltrack.memory_budget import budget_bytes, ran_out, refuse_budget
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.contraction import mirror
from kerneltrack.ntk.methods import (
    Jacobian,
    KernelRequest,
    Method,
    Structured,
    add_jacobian_kernel,
    audit,
    least_jacobian_bytes,
    product_kernel,
)
from kerneltrack.ntk.network import (
    Forward,
    Inputs,
    Metric,
    Network,
    Selection,
    forward_flops,
    layer_of,
    preconditioner,
    refuse_not_finite,
    summed_dtype,
)
from kerneltrack.ntk.plan import Plan, PlanLine
from kerneltrack.ntk.progress import progress_bar
from kerneltrack.ntk.reduction import Output, parse_output
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

    Returns:
        The kernel on the model's device, or layer → kernel.

    Raises:
        UnsupportedModelError: coupled samples, random or non-finite outputs, outputs of another shape,
        nothing trainable. ProbeError: empty samples, or samples on another device than the model.
        MemoryBudgetError: the budget cannot work; it carries the number that would.
        KernelError: an argument that is not one of the above, or ``"structured"`` where it does not apply.
        AuditError: the plan disagreed with one VJP followed by one JVP.
    """
    job = _job(model, x1, x2, output, method, params, by_layer, dtype, memory_budget, forward, metric)
    with progress_bar(progress, job.sample_pairs) as advance:
        structured, _ = _structured(job)
        _check_budget(job, structured)
        result = job.zeros()
        names = list(job.network.parameters)
        if structured is not None and _run(structured, job, result, advance):
            names = list(structured.uncovered)
        else:
            structured = None
            for samples, name in ((job.x1, "x1"), (job.x2, "x2")):
                if samples is not None:
                    refuse_not_finite(job.network.outputs(samples), name)
        kernels = {layer: job.as_kernel(matrix) for layer, matrix in result.items()}
        if job.method == "products":
            product_kernel(
                kernels, job.network, job.metric, names, job.x1, job.x2, job.outputs, job.reduction.kind, advance
            )
        elif names:
            add_jacobian_kernel(
                kernels,
                Jacobian(job.network, job.metric, job.dtype),
                names,
                job.x1,
                job.x2,
                job.outputs,
                job.reduction.kind,
                job.budget - job.result_bytes,
            )
    if structured is not None:
        audit_once(structured, job, result)
    if job.reduction.name == "sum":
        kernels = {layer: kernel[:, :, 0, 0] for layer, kernel in kernels.items()}
    return kernels if by_layer else kernels[""]


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
) -> Plan:
    """How :func:`empirical_ntk` would compute the kernel, and what that costs; ``print`` it.

    Arguments and errors are the same.

    FLOPs of forward and backward passes are counted on one sample, the others follow from shapes.
    """
    job = _job(model, x1, x2, output, method, params, by_layer, dtype, memory_budget, forward, metric)
    structured, reason = _structured(job)
    rows = len(job.x1) + (0 if job.x2 is None else job.columns)
    uncovered = structured.uncovered if structured is not None else dict.fromkeys(job.network.parameters, "")
    uses = structured.uses() if structured is not None else []
    uses += [_plain_use(job, name, why) for name, why in uncovered.items()]
    passes = forward_flops(job.network, job.x1)
    if job.method == "products":
        spent = passes * 3 * job.outputs * job.columns * (1 + len(job.x1))
    else:
        spent = (
            passes
            * rows
            * ((1 + job.outputs if structured is not None else 0) + (1 + 2 * job.outputs if uncovered else 0))
        )
    notes = [] if structured is not None or not reason else [f"every parameter by plain autodiff: {reason}"]
    if job.network_dtype != job.dtype:
        names = [str(dtype).removeprefix("torch.") for dtype in (job.network_dtype, job.dtype)]
        notes.append("the network is evaluated in {}, sums over parameters are {}".format(*names))
    return Plan(
        method="structured" if structured is not None else "jacobian" if job.method == "auto" else job.method,
        output=job.reduction.name,
        shape=job.reduction.shape(len(job.x1), job.columns, job.outputs),
        dtype=str(job.dtype).removeprefix("torch."),
        uses=tuple(uses),
        frozen=tuple(job.network.frozen),
        forward_flops=spent,
        result_bytes=job.result_bytes,
        working_bytes=structured.working_bytes if structured is not None else job.budget - job.result_bytes,
        budget_bytes=job.budget,
        notes=tuple(notes),
    )


def _plain_use(job: KernelRequest, name: str, why: str) -> PlanLine:
    count = job.network.parameters[name].numel()
    rule = "products" if job.method == "products" else "jacobian"
    flops = (
        0
        if rule == "products"
        else 2
        * len(job.x1)
        * job.columns  # of a block with itself too the whole product runs
        * job.paired**2
        * job.planes
        * count
        * (1 if job.reduction.kind != "trace" else job.outputs)
    )
    traffic = 2 * job.outputs * (len(job.x1) + job.columns) * count * job.dtype.itemsize
    return PlanLine(parameters=(name,), layer=layer_of(name), rule=rule, flops=flops, bytes=traffic, reason=why)


def _like(x1: Inputs, x2: Inputs) -> Inputs:
    if x1.tree != x2.tree:
        raise ProbeError(
            "x1 and x2 have different structures",
            expected=str(x1.tree),
            got=str(x2.tree),
            remedy="Give both as the same kind of pytree.",
        )
    return x2


def _check_budget(job: KernelRequest, structured: Structured | None) -> None:
    """Raises MemoryBudgetError with the number that works, before anything is allocated."""
    names = list(job.network.parameters) if structured is None else list(structured.uncovered)
    least = max(
        structured.least_bytes if structured is not None else 0,
        least_jacobian_bytes(job.network, names, job.x1, job.outputs, job.dtype) if names else 0,
    )
    if job.budget < job.result_bytes + least:
        raise refuse_budget(job.budget, job.result_bytes + least)


def _structured(job: KernelRequest) -> tuple[Structured | None, str]:
    """The structured method, or None and why plain autodiff must do everything."""
    if job.method not in ("auto", "structured"):
        return None, ""
    try:
        structured = Structured(job)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        reason = _first_line(refusal)
        _refuse_if_demanded(job, reason)
        return None, reason
    if structured.uncovered:
        _refuse_if_demanded(job, structured.uncovered)
    return structured, ""


def _run(
    structured: Structured, job: KernelRequest, result: Mapping[str, Tensor], advance: Callable[[int], None]
) -> bool:
    """Fills ``result`` on both sides of the diagonal.

    False, with zeros, where the backward pass cannot be captured.
    """
    try:
        structured.run(result, advance)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        _refuse_if_demanded(job, _first_line(refusal))
        for matrix in result.values():
            matrix.zero_()
        return False
    if job.x2 is None:
        for matrix in result.values():
            mirror(matrix)
    return True


def _refuse_if_demanded(job: KernelRequest, reason: object) -> None:
    if job.method == "structured":
        raise KernelError("the structured method does not apply", got=reason, remedy='Use method="auto" or "jacobian".')


def _first_line(refusal: BaseException) -> str:
    return str(refusal).strip().partition("\n")[0] or type(refusal).__name__


#: Plans that passed their audit, for each module.
_AUDITED: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()


def audit_once(
    structured: Structured, job: KernelRequest, result: Mapping[str, Tensor], other: Network | None = None
) -> None:
    """The audit of a plan that this module has not passed before.

    Args:
        structured: the plan.
        job: what was asked.
        result: layer → what came of it.
        other: the network of the second samples, where it is another.
    """
    passed = _AUDITED.setdefault(job.network.module, set())
    key = (
        structured.key,
        job.reduction.kind,
        job.reduction.head,
        job.x2 is None,
        job.by_layer,
        job.metric is None,
        job.dtype,
        other is None,
    )
    if key not in passed and audit(job, result, other):
        passed.add(key)


def _job(
    model: nn.Module,
    x1: Any,
    x2: Any,
    output: Output,
    method: Method,
    params: Selection,
    by_layer: bool,
    dtype: torch.dtype | None,
    memory_budget: int | str | None,
    forward: Forward | None,
    metric: Metric,
) -> KernelRequest:
    if method not in get_args(Method):
        raise KernelError("unknown method=", expected=" | ".join(get_args(Method)), got=repr(method))
    if dtype is not None and not dtype.is_floating_point:
        raise KernelError(
            "dtype= is not a floating-point type", expected="torch.float32 or torch.float64, for instance", got=dtype
        )
    reduction = parse_output(output)
    network = Network(model, params=params, forward=forward, head=reduction.head, dtype=dtype)
    left, outputs = network.validate(x1, name="x1")
    right, others = (
        (None, outputs) if x2 is None else network.validate(_like(left, network.inputs(x2, name="x2")), name="x2")
    )
    if others != outputs:
        raise ProbeError("x1 and x2 give different numbers of outputs", got=(outputs, others))
    if right is not None and right.same_as(left):
        right = None
    parameters = network.parameters
    job = KernelRequest(
        network=network,
        x1=left,
        x2=right,
        outputs=outputs,
        dtype=summed_dtype(parameters),
        reduction=reduction,
        metric=preconditioner(metric, parameters),
        method=method,
        by_layer=by_layer,
        budget=budget_bytes(memory_budget, network.device),
    )
    network.chunk_bytes = min(network.chunk_bytes, max(1, (job.budget - job.result_bytes) // 4))
    return job
