"""The stability ratio ρ_t = λ_1(S^½ J P Jᵀ S^½) / c of the loss on the probe (design: one number, all factors inside).

S = ∇²_f L is block diagonal over samples because the loss is a mean over samples; J P Jᵀ is the kernel in the
optimizer's own metric. ρ < 1 below the edge of stability, ρ → 1 at it. For one learning rate η, the mean of ½(f − y)²
and gradient descent it is ηλ_1/(2N).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from kerneltrack.loss import ProbeLoss
from kerneltrack.ntk import Network
from kerneltrack.update_rule import UpdateRule

#: ρ is read to a percent at best; four digits from Lanczos leave two in reserve.
LANCZOS_TOLERANCE = 1e-4


def stability_ratio(
    network: Network,
    inputs: Any,
    outputs: Tensor,
    targets: Tensor | None,
    loss: ProbeLoss | None,
    rule: UpdateRule,
    *,
    top_eigenvalue: float | None = None,
) -> tuple[float | None, str]:
    """ρ and "", or None and the reason why it is not given.

    Args:
        network: over every trainable parameter, at θ_t.
        inputs: the probe's inputs.
        outputs: f_t (N, O).
        targets: (N, O), or None.
        loss: the loss on the probe, or None.
        rule: the coming update: P and c.
        top_eigenvalue: λ_1(J Jᵀ) where the measured kernel is J Jᵀ itself; spares the Lanczos iteration when S and P
            are multiples of the identity.
    """
    if loss is None or targets is None:
        return None, "no loss was given"
    metric = rule.metric(list(network.parameters))
    if rule.threshold is None or metric is None:
        return None, rule.reason or rule.unknown
    blocks = loss.hessian_blocks(outputs, targets) / len(outputs)
    scale = _multiple_of_identity(blocks)
    if scale is not None and top_eigenvalue is not None and isinstance(metric, float):
        return metric * scale * top_eigenvalue / rule.threshold, ""
    root = _square_root(blocks)
    if root is None:
        return None, "the loss is not convex in the outputs"
    return _top_curvature(network, inputs, root, metric) / rule.threshold, ""


def _multiple_of_identity(blocks: Tensor) -> float | None:
    scale = blocks[0, 0, 0]
    identity = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    # Hessians of a quadratic loss come out of autograd exact, so equality is the right question.
    return float(scale) if torch.equal(blocks, (scale * identity).expand_as(blocks)) else None


def _top_curvature(network: Network, inputs: Any, root: Tensor, metric: float | dict[str, float | Tensor]) -> float:
    """λ_1(S^½ J P Jᵀ S^½) by Lanczos; one VJP and one JVP a step, memory O(N·O + parameters)."""
    count, width = root.shape[:2]

    def product(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        cotangent = torch.from_numpy(np.asarray(v, dtype=np.float64).reshape(count, width, 1)).to(root)
        gradient = network.vjp(inputs, (root @ cotangent)[..., 0])
        tangent = {n: (metric if isinstance(metric, float) else metric[n]) * g for n, g in gradient.items()}
        result = root @ network.jvp(inputs, tangent)[..., None]
        return result.reshape(-1).detach().cpu().to(torch.float64).numpy()

    size = count * width
    if size == 1:
        return float(product(np.ones(1))[0])
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)  # ARPACK's own start would draw from a global generator
    if not product(start).any():
        return 0.0  # a learning rate of zero, where a schedule ends: Lanczos cannot start from a vector of zeros
    values = eigsh(operator, k=1, which="LA", v0=start, tol=LANCZOS_TOLERANCE, return_eigenvectors=False)
    return float(values[0])


def _square_root(blocks: Tensor) -> Tensor | None:
    """S^½ of blocks (N, O, O), or None where one is not positive semi-definite beyond rounding."""
    values, vectors = torch.linalg.eigh(blocks.to(torch.float64))
    rounding = blocks.shape[1] * torch.finfo(blocks.dtype).eps * values.abs().max()
    if values.min() < -rounding:
        return None
    root: Tensor = vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.transpose(-1, -2)
    return root.to(blocks.dtype)
