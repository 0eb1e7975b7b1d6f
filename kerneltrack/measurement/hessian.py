"""The Hessian of a mean loss in the parameters, by products: one backward pass through another.

H v = ∇_θ ⟨∇_θ L, v⟩, sample by sample, so that memory holds the graph of a chunk and never H. What a backward pass does is
differentiated by what it is made of: an operator that has no second derivative says so, and one that has a wrong one (a custom
function that detaches what it saved) is found by a difference of gradients in float64, at two samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from kerneltrack.errors import KernelError
from kerneltrack.measurement.metric import LANCZOS_TOLERANCE, Metric
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.parameter_motion import Tensors
from kerneltrack.ntk import Network, fineness
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import eigensystem, largest_eigenvalue
from kerneltrack.training import ProbeLoss

#: A step of the difference of gradients, relative to θ. Below it rounding of float64 would show; a step ten times as long would
#: cross ten times as many kinks of a ReLU.
_STEP = 1e-8
#: The same of curvatures, which no gradient's rounding is in: truncation is h², rounding ε/h.
_LONG_STEP = 1e-6
#: What difference and product may differ by, relative to the product: rounding of a gradient over the step is 1e-8 of it.
_AGREE = 1e-3
#: Directions of which one must agree: a kink between two states a step apart is rare, and two are rarer.
_TRIES = 3
#: Of derivatives of the loss, by how many were taken before.
_ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class LossHessian:
    """∇²L at the network's θ, L the mean loss of samples.

    Attributes:
        network: over every trainable parameter.
        inputs: N samples.
        targets: (N, O) as the loss has them.
        loss: the mean loss.
    """

    network: Network
    inputs: Any
    targets: Tensor
    loss: ProbeLoss

    def gradient(self) -> dict[str, Tensor]:
        """∇L."""
        return self._passes(None, 1)[0]

    def times(self, v: Tensors, at: Tensors | None = None) -> dict[str, Tensor]:
        """H v, for v with a tensor for every parameter; at other parameters, where these are given.

        Raises:
            NotMeasured: a backward pass of the network has no derivative.
        """
        return self._passes(v, 2, at)[1]

    def gradient_and_product(self, v: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """∇L and H v."""
        gradient, product = self._passes(v, 2)
        return gradient, product

    def largest(self, metric: Metric) -> float:
        """λ_1(P^½ H P^½), the largest and not the largest in size: the edge of stability is of that one.

        Args:
            metric: P, one number or one entry a parameter.
        """
        own = self.network.parameters
        if isinstance(metric, float):
            return metric * self._top(dict.fromkeys(own, 1.0)) if metric else 0.0
        roots = {name: entry.sqrt() if isinstance(entry, Tensor) else entry**0.5 for name, entry in metric.items()}
        return self._top(roots)

    def leading(self, k: int) -> tuple[Array, list[dict[str, Tensor]]]:
        """The k largest eigenvalues of H, descending, and their eigenvectors of length one.

        Raises:
            NotMeasured: fewer than k parameters, or Lanczos finds no pairs to the precision of the products.
        """
        own = self.network.parameters
        size, kinds = sum(p.numel() for p in own.values()), {p.dtype for p in own.values()}
        if size < k:
            raise NotMeasured(f"a network of {size} parameters has no {k} modes")

        def product(x: Array) -> Array:
            return _joined(self.times(_split(x.ravel(), own)))

        dtype = np.float64 if kinds == {torch.float64} else np.float32
        try:
            found = eigensystem(LinearOperator((size, size), matvec=product, dtype=dtype), k)
        except KernelError as error:
            raise NotMeasured(f"of the Hessian: {error.problem}") from error
        return found.values, [_split(vector.copy(), own) for vector in found.vectors.T]

    def gradient_along(self, v: Tensors) -> dict[str, Tensor]:
        """∇_θ(vᵀH v), v held still.

        Raises:
            NotMeasured: the network has no third derivative by backward passes.
        """
        return self._passes(v, 3)[2]

    def _top(self, roots: Mapping[str, float | Tensor]) -> float:
        own = self.network.parameters

        def product(x: Array) -> Array:
            v = _scaled(_split(x, own), roots)
            return _joined(_scaled(self.times(v), roots))

        start = np.random.default_rng(0).standard_normal(sum(p.numel() for p in own.values()))
        return largest_eigenvalue(product, start, LANCZOS_TOLERANCE)

    def _passes(self, v: Tensors | None, order: int, at: Tensors | None = None) -> tuple[dict[str, Tensor], ...]:
        """∇L, H v and ∇(vᵀH v), as many of them as ``order`` says."""
        network, samples = self.network, self.network.inputs(self.inputs)
        leaves = {name: value.detach().requires_grad_() for name, value in (at or network.parameters).items()}
        totals = tuple({name: torch.zeros_like(value) for name, value in leaves.items()} for _ in range(order))
        with network.evaluating(), torch.enable_grad():
            rows = max(1, network.chunk_rows(samples) // order)  # the graphs of the backward passes are kept as well
            for place, chunk in samples.chunks(rows):
                then = partial(self._of_chunk, leaves, v, order, self.targets[place], len(samples))
                for total, parts in zip(totals, network.applied(leaves, chunk, then), strict=False):
                    for name, part in parts.items():
                        total[name] += part.detach()
        return totals

    def _of_chunk(
        self, leaves: dict[str, Tensor], v: Tensors | None, order: int, targets: Tensor, count: int, outputs: Tensor
    ) -> tuple[dict[str, Tensor], ...]:
        """A chunk's part of each; nothing of a derivative that is zero."""
        along: Tensor | int = self.loss.value(outputs, targets.to(outputs)) * (len(outputs) / count)
        found: list[dict[str, Tensor]] = []
        while len(found) < order and isinstance(along, Tensor) and along.requires_grad:
            found.append(_next_derivative(along, leaves, so_far=len(found), more=len(found) + 1 < order))
            if v is not None:
                along = sum((part * v[name].to(part)).sum() for name, part in found[-1].items())
        return tuple(found)


def hessian_of(
    network: Network, fine: Network, inputs: Any, targets: Tensor | None, loss: ProbeLoss | None
) -> LossHessian:
    """The Hessian of a loss on samples, once its product was seen to be the derivative of the gradient.

    Args:
        network: over every trainable parameter.
        fine: the same in float64.
        inputs: N samples.
        targets: (N, O), or None.
        loss: the mean loss, or None.

    Raises:
        NotMeasured: without a loss or targets; where hooks change gradients, or second derivatives are wrong or not there.
    """
    if loss is None or targets is None:
        raise NotMeasured("no loss was given")
    samples = network.inputs(inputs)
    if network.sight(samples).by_rows:
        raise NotMeasured("hooks change gradients, which then have no Hessian")
    found = LossHessian(network, inputs, targets, loss)
    _verify(_few(found, fine))
    return found


def turning_of(hessian: LossHessian, fine: Network, v: Tensors) -> dict[str, Tensor]:
    """∇_θ(vᵀH v), v held still, once a difference of vᵀH v was seen to agree with it in float64, at two samples.

    Args:
        hessian: at θ.
        fine: its network in float64.
        v: a tensor for every parameter.

    Raises:
        NotMeasured: there is no third derivative, or it is not that of the second.
    """
    few = _few(hessian, fine)
    if not any(_turning_missed(few, _double(v), seed) <= _AGREE for seed in range(_TRIES)):
        raise NotMeasured("the third derivative of the loss is not that of the second")
    return hessian.gradient_along(v)


def curvature_along(hessian: LossHessian, step: Tensors) -> tuple[float, float]:
    """gᵀu and uᵀHu of a step u."""
    gradient, product = hessian.gradient_and_product(step)
    return inner(gradient, step), inner(step, product)


def gradient_curvature(hessian: LossHessian, metric: Metric) -> float:
    """(P g)ᵀH(P g)/(gᵀP g), the curvature along the gradient in the metric P; NaN where the gradient is zero."""
    gradient = hessian.gradient()
    step = _scaled(gradient, dict.fromkeys(gradient, metric) if isinstance(metric, float) else metric)
    length = inner(gradient, step)
    return inner(step, hessian.times(step)) / length if length > 0 else float("nan")


def inner(a: Tensors, b: Tensors) -> float:
    """Σ ⟨a, b⟩ over all parameters, in float64."""
    return float(sum(float((value.double() * b[name].double()).sum()) for name, value in a.items()))


def _verify(hessian: LossHessian) -> None:
    """Refuse products that no difference of gradients agrees with.

    Raises:
        NotMeasured: they do not, or there is no pass in float64 to tell.
    """
    network = hessian.network
    if lacking := fineness(network, hessian.inputs).lacking:
        raise NotMeasured(f"second derivatives cannot be checked: {lacking}")
    own = network.parameters
    size = max(inner(own, own), 1e-300) ** 0.5
    if not any(_missed(hessian, own, size, seed) <= _AGREE for seed in range(_TRIES)):
        raise NotMeasured("the second derivative of a backward pass is not that of the gradient")


def _few(hessian: LossHessian, fine: Network) -> LossHessian:
    """Of two samples, in float64."""
    samples = hessian.network.inputs(hessian.inputs)
    few = min(2, len(samples))
    return LossHessian(fine, samples.rows(0, few), hessian.targets[:few].double(), hessian.loss)


def _turning_missed(hessian: LossHessian, v: Tensors, seed: int) -> float:
    """How far ⟨∇(vᵀH v), d⟩ is from a difference of vᵀH v along d, over the larger of it and what rounding leaves."""
    own = hessian.network.parameters
    d = _direction(own, seed)
    h = _LONG_STEP * max(inner(own, own), 1e-300) ** 0.5 / inner(d, d) ** 0.5
    ahead, behind = (inner(v, hessian.times(v, {n: p + sign * h * d[n] for n, p in own.items()})) for sign in (1, -1))
    turning = inner(hessian.gradient_along(v), d)
    rounding = 1e3 * torch.finfo(torch.float64).eps * abs(ahead) / h
    return float(abs(turning - (ahead - behind) / (2 * h)) / max(abs(turning), rounding / _AGREE, 1e-300))


def _direction(own: Tensors, seed: int) -> dict[str, Tensor]:
    draws = np.random.default_rng(seed)
    return {name: torch.from_numpy(draws.standard_normal(tuple(p.shape))).to(p) for name, p in own.items()}


def _double(v: Tensors) -> dict[str, Tensor]:
    return {name: part.double() for name, part in v.items()}


def _missed(hessian: LossHessian, own: Tensors, size: float, seed: int) -> float:
    """‖H v − (∇L(θ + hv) − ∇L(θ − hv))/2h‖ over the larger of ‖H v‖ and what rounding leaves of the difference."""
    v = _direction(own, seed)
    h = _STEP * size / inner(v, v) ** 0.5
    ahead, behind = (_gradient_at(hessian, {n: p + sign * h * v[n] for n, p in own.items()}) for sign in (1, -1))
    product = hessian.times(v)
    difference = {n: product[n] - (ahead[n] - behind[n]) / (2 * h) for n in own}
    rounding = 1e3 * torch.finfo(torch.float64).eps * inner(ahead, ahead) ** 0.5 / h
    return float(inner(difference, difference) ** 0.5 / max(inner(product, product) ** 0.5, rounding / _AGREE, 1e-300))


def _gradient_at(hessian: LossHessian, parameters: Tensors) -> dict[str, Tensor]:
    """∇L at other parameters, by the network's one backward pass."""
    network, samples = hessian.network, hessian.network.inputs(hessian.inputs)
    outputs = network.outputs(samples, parameters)
    residual = hessian.loss.residual(outputs, hessian.targets.to(outputs))
    return network.vjp(samples, residual / len(samples), parameters)


def _next_derivative(of: Tensor, leaves: dict[str, Tensor], *, so_far: int, more: bool) -> dict[str, Tensor]:
    """∂/∂θ of a number that was differentiated ``so_far`` times.

    Raises:
        NotMeasured: an operator on the way has no further derivative.
    """
    try:
        parts = torch.autograd.grad(of, list(leaves.values()), create_graph=more, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operator without such a derivative says so in words of its own
        if not so_far:
            raise
        raise NotMeasured(f"no {_ORDINALS[so_far]} derivative: {str(error).splitlines()[0][:120]}") from error
    return {name: part.to_dense() for name, part in zip(leaves, parts, strict=True) if part is not None}


def _scaled(v: Tensors, by: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    return {name: value * by.get(name, 0.0) for name, value in v.items()}


def _split(x: Array, like: Tensors) -> dict[str, Tensor]:
    """A vector of all parameters as one tensor for each."""
    parts = torch.split(torch.from_numpy(x), [p.numel() for p in like.values()])
    return {name: part.reshape(p.shape).to(p) for part, (name, p) in zip(parts, like.items(), strict=True)}


def _joined(v: Tensors) -> Array:
    flat = torch.cat([value.reshape(-1).detach().cpu().double() for value in v.values()])
    return np.asarray(flat.numpy())
