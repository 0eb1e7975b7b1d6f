"""Gradient flow with a fixed kernel, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from kerneltrack.errors import KernelError


def gradient_flow(
    kernel: Tensor,
    targets: Tensor,
    outputs: Tensor,
    time: float,
    *,
    test_kernel: Tensor | None = None,
    test_outputs: Tensor | None = None,
) -> Tensor:
    """Outputs at ``time`` of gradient flow on ½‖u − y‖² with a fixed kernel, at learning rate 1.

        u_t = y + e^{−Θt}(u_0 − y),   f_t(x) = f_0(x) + Θ(x, X) V [w(λ) ∘ Vᵀ(y − u_0)],   w(λ) =
        −expm1(−λt)/λ, w(0) = t

    Never through Θ⁻¹: one duplicated sample makes it singular, and w is finite there. For a learning rate η
    pass ηt; for the mean loss divide by N. ``time=inf`` is the limit, in which directions of eigenvalue 0
    stay as they are.

    Args:
        kernel: Θ(X, X), (N, N), acting on every output alone; for the full kernel flatten it to (NO, NO).
        targets: y, (N,) or (N, O).
        outputs: u_0 of the same shape.
        time: t ≥ 0.
        test_kernel: Θ(x, X), (M, N).
        test_outputs: f_0(x), (M,) or (M, O); zero where left out.

    Returns:
        u_t, or f_t(x) when ``test_kernel`` is given.

    Raises:
        KernelError: shapes that do not fit, or a negative time.
    """
    if (
        kernel.dim() != 2
        or kernel.shape[0] != kernel.shape[1]
        or targets.shape != outputs.shape
        or targets.shape[0] != kernel.shape[0]
    ):
        raise KernelError(
            "kernel, targets and outputs do not fit",
            expected="(N, N), (N, …), (N, …)",
            got=(tuple(kernel.shape), tuple(targets.shape), tuple(outputs.shape)),
        )
    if not time >= 0:
        raise KernelError("time must not be negative", got=time)
    values, vectors = torch.linalg.eigh((kernel + kernel.T) / 2)
    values = values.clamp_min(0)
    floor = torch.finfo(values.dtype).eps * kernel.shape[0] * values.max()
    residual = (targets - outputs).reshape(kernel.shape[0], -1)
    modes = vectors.T @ residual
    if test_kernel is None:
        decay = (values <= floor).to(values.dtype) if time == float("inf") else torch.exp(-values * time)
        reached: Tensor = targets.reshape(kernel.shape[0], -1) - vectors @ (decay.unsqueeze(1) * modes)
        return reached.reshape(targets.shape)
    weights = _filter(values, time, floor)
    change: Tensor = test_kernel @ (vectors @ (weights.unsqueeze(1) * modes))
    shape = (test_kernel.shape[0], *targets.shape[1:])
    start = torch.zeros(shape, dtype=change.dtype, device=change.device) if test_outputs is None else test_outputs
    return start + change.reshape(shape)


def _filter(values: Tensor, time: float, floor: Tensor) -> Tensor:
    """w(λ) = −expm1(−λt)/λ; at t = ∞ the pseudo-inverse, above the rounding floor."""
    if time == float("inf"):
        return (values > floor) / values.clamp_min(torch.finfo(values.dtype).tiny)
    positive = values.clamp_min(torch.finfo(values.dtype).tiny)
    weights: Tensor = -torch.expm1(-positive * time) / positive
    return weights.where(values > 0, time)
