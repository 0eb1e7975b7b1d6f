"""The door: ``empirical_ntk`` and ``ntk_plan``.

From a model and samples to Θ = J P Jᵀ, or to what it would cost.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.conventions import GaugeChoice
from kerneltrack.ntk.forming import Keeps, execution_of, kernels_of
from kerneltrack.ntk.matrix_free import FactoredJacobian
from kerneltrack.ntk.methods import Execution, KernelOptions, KernelRequest, Method
from kerneltrack.ntk.network import Forward, Metric, Selection
from kerneltrack.ntk.plan import Plan
from kerneltrack.ntk.receipt import receipt
from kerneltrack.ntk.reduction import Output
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
    kernels, _ = kernels_of(model, x1, x2, options, progress)
    return kernels if by_layer else kernels[""]


@plain_arithmetic()
def kernel_and_jacobian(
    model: nn.Module, x: Any, options: KernelOptions, *, keeps: Keeps = "factors", progress: bool | float = False
) -> tuple[dict[str, Tensor], FactoredJacobian | None]:
    """:func:`empirical_ntk` of samples with themselves, and J over every output, by the factors that it was made from.

    Args:
        model: as there, like all that follow, and its errors.
        x: N samples.
        options: what is asked for.
        keeps: "factors" for the way to the kernel that leaves J behind; "what is there" for the fastest way, and J where that
            leaves it; "nothing".
        progress: as there.

    Returns:
        Layer → kernel, "" where ``by_layer`` is not asked for; J of the outputs less their ``gauge``, or None where it is not
        kept, or the kernel was made another way or in pieces. J takes no more memory than making the kernel did, or less than
        solving it does.
    """
    kernels, execution = kernels_of(model, x, None, options, progress, keeps=keeps)
    return kernels, _left_by(execution)


@plain_arithmetic()
def kernel_and_traces(
    model: nn.Module, x: Any, options: KernelOptions, *, keeps: Keeps, progress: bool | float = False
) -> tuple[Tensor, dict[str, float], FactoredJacobian | None]:
    """:func:`empirical_ntk` of samples with themselves, the sum of its layers' kernels, and the trace of each of them.

    Of the layers' kernels one triangle is computed, and none is held beside the sum. Arguments and errors as of
    :func:`kernel_and_jacobian`.

    Args:
        model: the network.
        x: N samples.
        options: what is asked for, ``by_layer``.
        keeps: as there.
        progress: as there.

    Returns:
        Θ; layer → tr Θ_l; J as there, None too where it is not wanted.
    """
    traces: dict[str, float] = {}
    kernels, execution = kernels_of(model, x, None, options, progress, keeps=keeps, traces=traces)
    return kernels[""], traces, _left_by(execution)


def _left_by(execution: Execution | None) -> FactoredJacobian | None:
    return None if execution is None or not execution.keeps else FactoredJacobian.left_by(execution)


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
    execution, reason = execution_of(request, only_planned=True)
    return receipt(request, None if execution is None else execution.plan, reason)
