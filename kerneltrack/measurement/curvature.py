"""The curvature of the probe's loss through the kernel: sharpness, and how far it is from where an update is stable.

λ_1(S^½ J P Jᵀ S^½), S = ∇²_f L, is the largest eigenvalue of the Gauss–Newton matrix in the optimizer's own metric. S is
block diagonal over samples because the loss is a mean over samples. With P = 1 it is the **sharpness**, which neither the
learning rate nor the optimizer moves; over the optimizer's threshold c it is the **stability ratio** ρ_t: the quadratic
model of the loss is unstable above 1. For one learning rate η, the mean of ½(f − y)² and gradient descent ρ = ηλ_1/(2N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kerneltrack.conventions import Gauge, helmert
from kerneltrack.measurement.loss_root import Root, SoftmaxRoot, SymmetricRoot
from kerneltrack.measurement.metric import LANCZOS_TOLERANCE, Metric
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.ntk import FactoredJacobian, Network
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import largest_eigenvalue
from kerneltrack.training import ProbeLoss, UpdateRule


def stability_ratio(rule: UpdateRule, parameters: Sequence[str], curvature: Callable[[Metric], float]) -> float:
    """ρ_t.

    Args:
        rule: the coming update: P and c.
        parameters: names of every trainable one.
        curvature: P ↦ λ_1(S^½ J P Jᵀ S^½).

    Raises:
        NotMeasured: P or c is not known.
    """
    threshold, metric = stability_terms(rule, parameters)
    # Where P is one number it is a factor: the sharpness may be there already.
    return (metric * curvature(1.0) if isinstance(metric, float) else curvature(metric)) / threshold


def stability_terms(rule: UpdateRule, parameters: Sequence[str]) -> tuple[float, Metric]:
    """c and P of the coming update.

    Raises:
        NotMeasured: one of them is not known.
    """
    metric = rule.stability_metric(list(parameters))
    if rule.threshold is None or metric is None:
        raise NotMeasured(rule.reason or rule.unknown)
    return rule.threshold, metric


def largest_curvature(
    network: Network,
    inputs: Any,
    outputs: Tensor,
    targets: Tensor | None,
    loss: ProbeLoss | None,
    metric: Metric,
    *,
    kernel: Tensor | None = None,
    jacobian: FactoredJacobian | None = None,
    gauge: Gauge = "raw",
    top_eigenvalue: float | None = None,
) -> float:
    """λ_1(S^½ J P Jᵀ S^½).

    Args:
        network: over every trainable parameter, at θ_t.
        inputs: the probe's inputs.
        outputs: f_t (N, O).
        targets: (N, O), or None.
        loss: the loss on the probe, or None.
        metric: P, one number or one entry a parameter.
        kernel: J Jᵀ, (N, N, O, O) or (N, N) of one output, where it was measured whole; spares the network's passes
            when P is a multiple of the identity.
        jacobian: J by factors, which spare them for other P too.
        gauge: of both. S does not see what "softmax" has taken off them.
        top_eigenvalue: λ_1 of that kernel; spares the Lanczos iteration too when S is one as well.

    Raises:
        NotMeasured: without a loss or targets, or for a loss that is not convex in the outputs.
    """
    if loss is None or targets is None:
        raise NotMeasured("no loss was given")
    root: Root
    if loss.name == "cross_entropy":
        root = SoftmaxRoot.of(outputs, targets)
    else:
        blocks = loss.hessian_blocks(outputs, targets) / len(outputs)
        scale = _multiple_of_identity(blocks)
        if scale is not None and top_eigenvalue is not None and isinstance(metric, float):
            return metric * scale * top_eigenvalue
        root = SymmetricRoot.of(blocks)
    found = None if kernel is None or not isinstance(metric, float) else partial(_by_kernel, _matrix(kernel), metric)
    if found is not None and gauge == "softmax":
        found = partial(_between_gauges, found)
    product = found or _by_factors(jacobian, metric, outputs.shape[1]) or partial(_by_passes, network, inputs, metric)
    return _top_curvature(product, root, outputs)


def curvature_of_halves(
    network: Network,
    inputs: Any,
    outputs: Tensor,
    targets: Tensor | None,
    loss: ProbeLoss | None,
    metric: Metric,
    *,
    kernel: Tensor | None = None,
    gauge: Gauge = "raw",
) -> float:
    """Mean of λ_1(S^½ J P Jᵀ S^½) over two disjoint halves of the probe, each weighed by its points.

    Never below that of the whole probe: the Gauss–Newton matrix of the whole is the mean of the halves', and λ_1 is convex. By
    as much as halving the probe adds, the probe's own λ_1 is above that of all data, where what a sample adds falls as 1/N.

    Args:
        network: as of :func:`largest_curvature`, like all that follow.
        inputs: at least two samples.
        outputs: f_t (N, O).
        targets: (N, O), or None.
        loss: the loss on the probe, or None.
        metric: P.
        kernel: J Jᵀ.
        gauge: of that kernel.

    Raises:
        NotMeasured: as there, or fewer than two samples.
    """
    count = len(outputs)
    if count < 2:
        raise NotMeasured("a probe of one point has no halves")
    samples, order = network.inputs(inputs), np.random.default_rng(0).permutation(count)
    total = 0.0
    for half in (order[: count // 2], order[count // 2 :]):
        points = torch.from_numpy(half).to(outputs.device)
        found = largest_curvature(
            network,
            samples.pick(half.tolist()),
            outputs[points],
            None if targets is None else targets[points],
            loss,
            metric,
            kernel=None if kernel is None else kernel[points.to(kernel.device)][:, points.to(kernel.device)],
            gauge=gauge,
        )
        total += len(half) / count * found
    return total


def _multiple_of_identity(blocks: Tensor) -> float | None:
    scale = blocks[0, 0, 0]
    identity = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    # Hessians of a quadratic loss come out of autograd exact, so equality is the right question.
    return float(scale) if torch.equal(blocks, (scale * identity).expand_as(blocks)) else None


def _top_curvature(product: Callable[[Tensor], Tensor], root: Root, outputs: Tensor) -> float:
    """λ_1(Rᵀ J P Jᵀ R), which is λ_1(S^½ J P Jᵀ S^½), by Lanczos, from products u ↦ J P Jᵀ u on (N, O)."""

    def between_roots(v: Array) -> Array:
        u = torch.from_numpy(v).reshape(outputs.shape).to(outputs)
        moved = root.transposed(product(root.times(u)))
        return np.asarray(moved.reshape(-1).detach().cpu().to(torch.float64).numpy())

    start = np.random.default_rng(0).standard_normal(outputs.numel())
    return largest_eigenvalue(between_roots, start, LANCZOS_TOLERANCE)


def _by_passes(network: Network, inputs: Any, metric: Metric, u: Tensor) -> Tensor:
    """J P Jᵀ u: one VJP and one JVP, memory O(N·O + parameters)."""
    gradient = network.vjp(inputs, u)
    return network.jvp(
        inputs, {n: (metric if isinstance(metric, float) else metric[n]) * g for n, g in gradient.items()}
    )


def _by_factors(jacobian: FactoredJacobian | None, metric: Metric, width: int) -> Callable[[Tensor], Tensor] | None:
    """u ↦ J P Jᵀ u by the factors of J; None where there are none, or not for this P."""
    if jacobian is None:
        return None
    scale, weights = (metric, None) if isinstance(metric, float) else (1.0, jacobian.weights(metric))
    if weights is None and not isinstance(metric, float):
        return None
    jacobian.audit_when_due()

    def product(u: Tensor) -> Tensor:
        return scale * jacobian.product(u[:, :, None], weights)[:, :, 0]

    return product if jacobian.outputs == width else partial(_between_gauges, product)


def _matrix(kernel: Tensor) -> Tensor:
    """The kernel as a matrix, rows (n, o): once, where a product with the four axes would copy it each time."""
    if kernel.ndim == 2:
        return kernel
    samples, _, outputs, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(samples * outputs, -1)


def _by_kernel(matrix: Tensor, metric: float, u: Tensor) -> Tensor:
    """Θ u of a function u (N, O)."""
    v = u.to(matrix)
    return (metric * (matrix @ v.reshape(len(matrix), -1)).reshape(v.shape)).to(u)


def _between_gauges(product: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """C J P Jᵀ C u by a kernel that is BᵀJ P JᵀB."""
    basis = torch.from_numpy(helmert(u.shape[1]).copy()).to(u)
    return product(u @ basis) @ basis.T
