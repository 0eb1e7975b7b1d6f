"""The curvature of the probe's loss through the kernel: sharpness, and how far it is from where an update is stable.

λ_1(S^½ J P Jᵀ S^½), S = ∇²_f L, is the largest eigenvalue of the Gauss–Newton matrix in the optimizer's own metric. S is
block diagonal over samples because the loss is a mean over samples. With P = 1 it is the **sharpness**, which neither the
learning rate nor the optimizer moves; over the optimizer's threshold c it is the **stability ratio** ρ_t: the quadratic
model of the loss is unstable above 1. For one learning rate η, the mean of ½(f − y)² and gradient descent ρ = ηλ_1/(2N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from kerneltrack.spectrum import largest_eigenvalues
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
    root, scale = _root(outputs, targets, loss)
    if scale is not None and top_eigenvalue is not None and isinstance(metric, float):
        return metric * scale * top_eigenvalue
    product = (
        _by_kernel(kernel, metric, gauge)
        or _by_factors(jacobian, metric, outputs.shape[1])
        or partial(_by_passes, network, inputs, metric)
    )
    (top,) = _top_curvatures(product, [(slice(None), root)], outputs)
    return top


def curvature_of_halves(
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
        jacobian: J, whose products with vectors of both halves are one; spares the passes where there is no kernel.
        gauge: of both.

    Raises:
        NotMeasured: as there, or fewer than two samples.
    """
    count = len(outputs)
    if count < 2:
        raise NotMeasured("a probe of one point has no halves")
    samples, order = network.inputs(inputs), np.random.default_rng(0).permutation(count)
    halves = [torch.from_numpy(half).to(outputs.device) for half in (order[: count // 2], order[count // 2 :])]
    given = [None if targets is None else targets[half] for half in halves]
    product = _by_factors(jacobian, metric, outputs.shape[1])
    if kernel is None and product is not None:
        roots = [_root(outputs[half], y, loss)[0] for half, y in zip(halves, given, strict=True)]
        tops = _top_curvatures(product, list(zip(halves, roots, strict=True)), outputs)
    else:
        tops = [
            largest_curvature(
                network,
                samples.pick(half.tolist()),
                outputs[half],
                y,
                loss,
                metric,
                kernel=None if kernel is None else kernel[half.to(kernel.device)][:, half.to(kernel.device)],
                gauge=gauge,
            )
            for half, y in zip(halves, given, strict=True)
        ]
    return sum(len(half) / count * top for half, top in zip(halves, tops, strict=True))


def _root(outputs: Tensor, targets: Tensor | None, loss: ProbeLoss | None) -> tuple[Root, float | None]:
    """R with R Rᵀ = S, and c where S is c times the identity.

    Raises:
        NotMeasured: as of :func:`largest_curvature`.
    """
    if loss is None or targets is None:
        raise NotMeasured("no loss was given")
    if loss.name == "cross_entropy":
        return SoftmaxRoot.of(outputs, targets), None
    blocks = loss.hessian_blocks(outputs, targets) / len(outputs)
    scale = _multiple_of_identity(blocks)
    if scale is not None and scale > 0:
        return SymmetricRoot(blocks / scale**0.5), scale
    return SymmetricRoot.of(blocks), scale


def _multiple_of_identity(blocks: Tensor) -> float | None:
    scale = blocks[0, 0, 0]
    identity = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    # Hessians of a quadratic loss come out of autograd exact, so equality is the right question.
    return float(scale) if torch.equal(blocks, (scale * identity).expand_as(blocks)) else None


def _top_curvatures(
    product: Callable[[Tensor], Tensor], parts: Sequence[tuple[Tensor | slice, Root]], outputs: Tensor
) -> list[float]:
    """λ_1(Rᵀ J P Jᵀ R) of the rows of J at some samples, which is λ_1(S^½ J P Jᵀ S^½), each with its R, by Lanczos.

    Args:
        product: U ↦ J P Jᵀ U for U (N, O, k): a vector of each part whose λ_1 is not known yet, and zeros at other samples.
        parts: samples, and R of these.
        outputs: (N, O), whose numbers do not count.
    """

    def between_roots(vectors: Mapping[int, Array]) -> dict[int, Array]:
        u = outputs.new_zeros(*outputs.shape, len(vectors))
        for column, (i, v) in enumerate(vectors.items()):
            samples, root = parts[i]
            u[samples, :, column] = root.times(torch.from_numpy(v).reshape(-1, outputs.shape[1]).to(outputs))
        moved = product(u)
        images = {i: parts[i][1].transposed(moved[parts[i][0], :, column]) for column, i in enumerate(vectors)}
        return {i: image.reshape(-1).detach().cpu().to(torch.float64).numpy() for i, image in images.items()}

    starts = [np.random.default_rng(0).standard_normal(outputs[samples].numel()) for samples, _ in parts]
    return largest_eigenvalues(between_roots, starts, LANCZOS_TOLERANCE)


def _by_passes(network: Network, inputs: Any, metric: Metric, u: Tensor) -> Tensor:
    """J P Jᵀ u, (N, O, 1): one VJP and one JVP, memory O(N·O + parameters)."""
    gradient = network.vjp(inputs, u[:, :, 0])
    moved = {n: (metric if isinstance(metric, float) else metric[n]) * g for n, g in gradient.items()}
    return network.jvp(inputs, moved)[:, :, None]


def _by_factors(jacobian: FactoredJacobian | None, metric: Metric, width: int) -> Callable[[Tensor], Tensor] | None:
    """U ↦ J P Jᵀ U by the factors of J; None where there are none, or not for this P."""
    if jacobian is None:
        return None
    product = jacobian.between(metric)
    if product is None:
        return None
    jacobian.audit_when_due()
    return product if jacobian.outputs == width else partial(_between_gauges, product)


def _by_kernel(kernel: Tensor | None, metric: Metric, gauge: Gauge) -> Callable[[Tensor], Tensor] | None:
    """U ↦ P Θ U where P is one number; None where it is not, or there is no kernel."""
    if kernel is None or not isinstance(metric, float):
        return None
    matrix = _matrix(kernel)

    def product(u: Tensor) -> Tensor:
        v = u.to(matrix)
        return (metric * (matrix @ v.flatten(0, 1)).reshape(v.shape)).to(u)

    return product if gauge == "raw" else partial(_between_gauges, product)


def _matrix(kernel: Tensor) -> Tensor:
    """The kernel as a matrix, rows (n, o): once, where a product with the four axes would copy it each time."""
    if kernel.ndim == 2:
        return kernel
    samples, _, outputs, _ = kernel.shape
    return kernel.permute(0, 2, 1, 3).reshape(samples * outputs, -1)


def _between_gauges(product: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """C J P Jᵀ C U by a kernel that is BᵀJ P JᵀB, U (N, O, k)."""
    basis = torch.from_numpy(helmert(u.shape[1]).copy()).to(u)
    return torch.einsum("nqk,oq->nok", product(torch.einsum("nok,oq->nqk", u, basis)), basis)
