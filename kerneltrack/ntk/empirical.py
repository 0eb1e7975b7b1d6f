"""The door: ``empirical_ntk`` and ``ntk_plan``. From a model and samples to Θ = J P Jᵀ, or to what it would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from kerneltrack.errors import KernelError, ProbeError
from kerneltrack.ntk.cost import Plan, Use
from kerneltrack.ntk.dense import Jacobian, add_jacobian_kernel, product_kernel
from kerneltrack.ntk.contraction import mirror
from kerneltrack.ntk.capture import NotCapturable
from kerneltrack.ntk.job import Job, Method
from kerneltrack.ntk.structured import Structured
from kerneltrack.ntk.memory import budget_bytes, refuse_budget
from kerneltrack.ntk.network import Forward, Network
from kerneltrack.ntk.parameters import Metric, Selection, layer_of, preconditioner
from kerneltrack.ntk.reduction import Output, parse_output

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
    progress: bool = False,
) -> Tensor | dict[str, Tensor]:
    """The exact finite-width NTK Θ[n, m, o, p] = Σ_θ ∂f_o(x_n)/∂θ · ∂f_p(x_m)/∂θ over the trainable parameters.

    Un-normalised (no 1/N, no 1/O), as Novak et al. 2022 (arXiv 2206.08720) define it. The module, its gradients, its modes
    and the random state are left as they were.

    Args:
        model: the network; in eval mode if it has BatchNorm or dropout.
        x1: N1 samples: a tensor, or a pytree of tensors, first axis N1.
        x2: N2 samples; None is x1, and the kernel is symmetric.
        output: ``"full"`` (N1, N2, O, O); ``"diagonal"`` (N1, N2, O); ``"trace"`` Σ_o (N1, N2); ``"sum"``, the kernel of Σ_o f_o
            (N1, N2); or a callable g: (O,) → (K,), the kernel of g(f) (N1, N2, K, K).
        method: ``"structured"`` uses what each layer's derivative looks like and refuses where it does not apply;
            ``"jacobian"`` and ``"products"`` are plain autodiff; ``"auto"`` is structured, with the Jacobian of those parameters
            that no structure explains.
        params: None for every parameter that requires grad, a predicate on names, or an iterable of names.
        by_layer: return one kernel for each layer (a parameter's name without its last part); they sum to Θ.
        dtype: in which everything is computed; None is the parameters' own.
        memory_budget: bytes, or a text like "2GiB", that the call may add, result included; None is half of what is free.
        forward: ``(model, inputs) -> outputs``; by default a tensor goes in as ``model(x)``, a tuple as ``model(*x)``, a dict as
            ``model(**x)``.
        metric: a positive diagonal preconditioner P, a number or {name: number or tensor}: J P Jᵀ.
        progress: show a progress bar.

    Returns:
        The kernel on the model's device, or layer → kernel.

    Raises:
        UnsupportedModelError: coupled samples, random or non-finite outputs, outputs of another shape, nothing trainable.
        ProbeError: empty samples, or samples on another device than the model.
        MemoryBudgetError: the budget cannot work; it carries the number that would.
        KernelError: an argument that is not one of the above, or ``"structured"`` where it does not apply.
        AuditError: the plan disagreed with one VJP followed by one JVP.
    """
    job = _job(
        model, x1, x2, output, method, params, by_layer, dtype, memory_budget, forward, metric
    )
    result = job.zeros()
    structured, _ = _structured(job)
    names = list(job.network.parameters)
    if structured is not None and _run(structured, job, result):
        names = list(structured.uncovered)
    kernels = {layer: job.as_kernel(matrix) for layer, matrix in result.items()}
    if job.method == "products":
        product_kernel(kernels, job.network, job.metric, names, job.x1, job.x2, job.outputs, job.reduction.kind)
    elif names:
        add_jacobian_kernel(
            kernels,
            Jacobian(job.network, job.metric),
            names,
            job.x1,
            job.x2,
            job.outputs,
            job.reduction.kind,
            job.budget - job.result_bytes,
            job.result_bytes,
        )
    if job.reduction.name == "sum":
        kernels = {layer: kernel[:, :, 0, 0] for layer, kernel in kernels.items()}
    return kernels if by_layer else kernels[""]


#: What torch raises where vmap or autograd refuses a model; anything else is a defect and passes through.
_REFUSALS = (NotCapturable, RuntimeError, NotImplementedError, TypeError, ValueError)


def _run(structured: Structured, job: Job, result: Mapping[str, Tensor]) -> bool:
    """Fills ``result`` on both sides of the diagonal; False, with zeros, where the backward pass cannot be captured."""
    try:
        structured.run(result, lambda pairs: None)
    except KernelError:
        raise
    except _REFUSALS as refusal:
        _refuse_if_demanded(job, str(refusal))
        for matrix in result.values():
            matrix.zero_()
        return False
    if job.x2 is None:
        for matrix in result.values():
            mirror(matrix)
    return True


def _refuse_if_demanded(job: Job, reason: object) -> None:
    if job.method == "structured":
        raise KernelError("the structured method does not apply", got=reason, remedy='Use method="auto" or "jacobian".')


def _structured(job: Job) -> tuple[Structured | None, str]:
    if job.method not in ("auto", "structured"):
        return None, ""
    try:
        structured = Structured(job)
    except _REFUSALS as refusal:
        if isinstance(refusal, KernelError):
            raise
        _refuse_if_demanded(job, str(refusal))
        return None, str(refusal)
    if structured.uncovered:
        _refuse_if_demanded(job, structured.uncovered)
    return structured, ""


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
    """How :func:`empirical_ntk` would compute the kernel, and what that costs. Arguments and errors are the same."""
    job = _job(model, x1, x2, output, method, params, by_layer, dtype, memory_budget, forward, metric)
    rows, columns, o = len(job.x1), job.columns, job.outputs
    uses = []
    for name, value in job.network.parameters.items():
        pairs = (rows * columns if job.x2 is not None else rows * (rows + 1) // 2) * {
            "full": o * o,
            "diagonal": o,
            "trace": o,
        }[job.reduction.kind]
        uses.append(
            Use(
                parameters=(name,),
                layer=layer_of(name),
                rule=job.method if job.method != "auto" else "jacobian",
                flops=2 * pairs * value.numel(),
            )
        )
    return Plan(
        method=job.method if job.method != "auto" else "jacobian",
        output=job.reduction.name,
        shape=job.reduction.shape(rows, columns, o),
        dtype=str(job.dtype).removeprefix("torch."),
        uses=tuple(uses),
        frozen=tuple(job.network.frozen),
        result_bytes=job.result_bytes,
        budget_bytes=job.budget,
    )


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
) -> Job:
    if method not in get_args(Method):
        raise KernelError("unknown method=", expected=" | ".join(get_args(Method)), got=repr(method))
    if dtype is not None and not dtype.is_floating_point:
        raise KernelError("dtype= is not a floating-point type", got=dtype)
    reduction = parse_output(output)
    network = Network(model, params=params, forward=forward, head=reduction.head, dtype=dtype)
    left, values = network.validate(x1, name="x1")
    right = None if x2 is None else network.validate(x2, name="x2")
    if right is not None and right[1].shape[1] != values.shape[1]:
        raise ProbeError(
            "x1 and x2 give different numbers of outputs", got=(values.shape[1], right[1].shape[1])
        )
    if right is not None and right[0].same_as(left):
        right = None
    parameters = network.parameters
    job = Job(
        network=network,
        x1=left,
        x2=None if right is None else right[0],
        outputs=values.shape[1],
        dtype=_common_dtype(parameters),
        reduction=reduction,
        metric=preconditioner(metric, parameters),
        method=method,
        by_layer=by_layer,
        budget=budget_bytes(memory_budget, network.device),
    )
    if job.budget <= job.result_bytes:
        raise refuse_budget(job.budget, job.result_bytes + 2**20)
    return job


def _common_dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    dtypes = [p.dtype for p in parameters.values()]
    common = dtypes[0]
    for dtype in dtypes[1:]:
        common = torch.promote_types(common, dtype)
    return common
