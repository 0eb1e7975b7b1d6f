"""Crossing: the kernel between a network as it is and as it was, J J_aᵀ, by the same structure as the kernel itself.

Both states run the same forward pass, so a weight's uses are the same on both sides, and the orders of contraction need
not know that the gradients of one side were taken elsewhere. Where a structure must look at the weights behind the
gradients (reparametrised, tied or looked-up ones), plain Jacobians do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import budget_bytes, ran_out
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.empirical import audit_once
from kerneltrack.ntk.methods import Jacobian, KernelRequest, Structured, add_jacobian_kernel
from kerneltrack.ntk.network import AnchoredNetwork, Forward, Network, NetworkState, Selection, summed_dtype
from kerneltrack.ntk.reduction import Output, parse_output
from kerneltrack.undisturbed import plain_arithmetic

#: What terms hold whose contraction reads nothing but inputs and gradients.
_PLAIN = ("tokens", "features")


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

    Returns:
        The shape of ``empirical_ntk(model, x, output=output)``.

    Raises:
        UnsupportedModelError, ProbeError, AuditError: as there.
    """
    reduction = parse_output(output)
    now = Network(model, params=params, forward=forward, head=reduction.head)
    then = AnchoredNetwork(model, anchor, params=params, forward=forward, head=reduction.head)
    samples, outputs = now.validate(x)
    job = KernelRequest(
        network=now,
        x1=samples,
        x2=samples,
        outputs=outputs,
        dtype=summed_dtype(now.parameters),
        reduction=reduction,
        metric=None,
        method="auto",
        by_layer=False,
        budget=budget_bytes(memory_budget, now.device),
    )
    result = job.zeros()
    kernel = job.as_kernel(result[""])
    if not _by_structure(job, then, result):
        add_jacobian_kernel(
            {"": kernel},
            Jacobian(now, dtype=job.dtype),
            list(now.parameters),
            samples,
            samples,
            outputs,
            reduction.kind,
            max(job.budget - job.result_bytes, 2**20),
            other=Jacobian(then, dtype=job.dtype),
        )
    return kernel[:, :, 0, 0] if reduction.name == "sum" else kernel


def _by_structure(job: KernelRequest, then: Network, into: Mapping[str, Tensor]) -> bool:
    """Whether the structure could do it; if not, ``into`` is zero again."""
    try:
        ours, theirs = Structured(job), Structured(replace(job, network=then))
        if ours.key != theirs.key or ours.uncovered or any(step.term.form not in _PLAIN for step in ours.steps):
            return False
        if job.budget < job.result_bytes + ours.least_bytes:
            return False
        ours.run(into, lambda pairs: None, theirs)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        for matrix in into.values():
            matrix.zero_()
        return False
    audit_once(ours, job, into, then)
    return True
