"""The stability ratio ρ_t = λ_1(S^½ J P Jᵀ S^½) / c of the loss on the probe (design: one number, all factors inside).

S = ∇²_f L is block diagonal over samples because the loss is a mean over samples; J P Jᵀ is the kernel in the
optimizer's own metric. ρ < 1 below the edge of stability, ρ → 1 at it. For one learning rate η, the mean of ½(f − y)²
and gradient descent it is ηλ_1/(2N).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.ntk import Network
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import largest_eigenvalue
from kerneltrack.training import ProbeLoss, UpdateRule

#: Residual relative to λ_1, which bounds its error. ρ is read to a percent at best; a thousandth leaves a digit in reserve,
#: and more in general: the error is about the square of the residual.
LANCZOS_TOLERANCE = 1e-3


def stability_ratio(
    network: Network,
    inputs: Any,
    outputs: Tensor,
    targets: Tensor | None,
    loss: ProbeLoss | None,
    rule: UpdateRule,
    *,
    kernel: Tensor | None = None,
    top_eigenvalue: float | None = None,
) -> float:
    """ρ_t.

    Args:
        network: over every trainable parameter, at θ_t.
        inputs: the probe's inputs.
        outputs: f_t (N, O).
        targets: (N, O), or None.
        loss: the loss on the probe, or None.
        rule: the coming update: P and c.
        kernel: J Jᵀ, (N, N, O, O) or (N, N) of one output, where it was measured whole; spares the network's passes
            when P is a multiple of the identity.
        top_eigenvalue: λ_1 of that kernel; spares the Lanczos iteration too when S is one as well.

    Raises:
        NotMeasured: without a loss or targets, without P or c, or for a loss that is not convex in the outputs.
    """
    if loss is None or targets is None:
        raise NotMeasured("no loss was given")
    metric = rule.metric(list(network.parameters))
    if rule.threshold is None or metric is None:
        raise NotMeasured(rule.reason or rule.unknown)
    blocks = loss.hessian_blocks(outputs, targets) / len(outputs)
    scale = _multiple_of_identity(blocks)
    if scale is not None and top_eigenvalue is not None and isinstance(metric, float):
        return metric * scale * top_eigenvalue / rule.threshold
    root = _square_root(blocks)
    if root is None:
        raise NotMeasured("the loss is not convex in the outputs")
    product = partial(_by_passes, network, inputs, metric)
    if kernel is not None and isinstance(metric, float):
        product = partial(_by_kernel, kernel, metric)
    return _top_curvature(product, root) / rule.threshold


def _multiple_of_identity(blocks: Tensor) -> float | None:
    scale = blocks[0, 0, 0]
    identity = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    # Hessians of a quadratic loss come out of autograd exact, so equality is the right question.
    return float(scale) if torch.equal(blocks, (scale * identity).expand_as(blocks)) else None


def _top_curvature(product: Callable[[Tensor], Tensor], root: Tensor) -> float:
    """λ_1(S^½ J P Jᵀ S^½) by Lanczos, from products u ↦ J P Jᵀ u on (N, O)."""

    def between_roots(v: Array) -> Array:
        u = torch.from_numpy(v).reshape(root.shape[:2]).to(root)
        moved = _times(root, product(_times(root, u)))
        return np.asarray(moved.reshape(-1).detach().cpu().to(torch.float64).numpy())

    start = np.random.default_rng(0).standard_normal(root.shape[0] * root.shape[1])
    return largest_eigenvalue(between_roots, start, LANCZOS_TOLERANCE)


def _by_passes(network: Network, inputs: Any, metric: float | dict[str, float | Tensor], u: Tensor) -> Tensor:
    """J P Jᵀ u: one VJP and one JVP, memory O(N·O + parameters)."""
    gradient = network.vjp(inputs, u)
    return network.jvp(
        inputs, {n: (metric if isinstance(metric, float) else metric[n]) * g for n, g in gradient.items()}
    )


def _by_kernel(kernel: Tensor, metric: float, u: Tensor) -> Tensor:
    v = u.to(kernel)
    moved = kernel @ v if kernel.ndim == 2 else torch.einsum("nmop,mp->no", kernel, v)
    return (metric * moved).to(u)


def _times(root: Tensor, u: Tensor) -> Tensor:
    """S^½ u, sample by sample."""
    return (root @ u[..., None])[..., 0]


def _square_root(blocks: Tensor) -> Tensor | None:
    """S^½ of blocks (N, O, O), or None where one is not positive semi-definite beyond rounding."""
    values, vectors = torch.linalg.eigh(blocks.to(torch.float64))
    rounding = blocks.shape[1] * torch.finfo(blocks.dtype).eps * values.abs().max()
    if values.min() < -rounding:
        return None
    root: Tensor = vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.transpose(-1, -2)
    return root.to(blocks.dtype)
