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
from torch import Tensor

from kerneltrack.measurement.metric import LANCZOS_TOLERANCE, Metric
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.parameter_motion import Tensors
from kerneltrack.ntk import Network, fineness
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import largest_eigenvalue
from kerneltrack.training import ProbeLoss

#: A step of the difference of gradients, relative to θ. Below it rounding of float64 would show; a step ten times as long would
#: cross ten times as many kinks of a ReLU.
_STEP = 1e-8
#: What difference and product may differ by, relative to the product: rounding of a gradient over the step is 1e-8 of it.
_AGREE = 1e-3
#: Directions of which one must agree: a kink between two states a step apart is rare, and two are rarer.
_TRIES = 3


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
        return self._passes(None)[0]

    def times(self, v: Tensors) -> dict[str, Tensor]:
        """H v, for v with a tensor for every parameter.

        Raises:
            NotMeasured: a backward pass of the network has no derivative.
        """
        return self._passes(v)[1]

    def gradient_and_product(self, v: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """∇L and H v."""
        return self._passes(v)

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

    def _top(self, roots: Mapping[str, float | Tensor]) -> float:
        own = self.network.parameters

        def product(x: Array) -> Array:
            v = _scaled(_split(x, own), roots)
            return _joined(_scaled(self.times(v), roots))

        start = np.random.default_rng(0).standard_normal(sum(p.numel() for p in own.values()))
        return largest_eigenvalue(product, start, LANCZOS_TOLERANCE)

    def _passes(self, v: Tensors | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        network, samples = self.network, self.network.inputs(self.inputs)
        leaves = {name: value.detach().requires_grad_() for name, value in network.parameters.items()}
        totals = [{name: torch.zeros_like(value) for name, value in leaves.items()} for _ in range(2)]
        with network.evaluating(), torch.enable_grad():
            rows = max(1, network.chunk_rows(samples) // 2)  # the graph of the backward pass is kept as well
            for place, chunk in samples.chunks(rows):
                then = partial(self._of_chunk, leaves, v, self.targets[place], len(samples))
                for total, parts in zip(totals, network.applied(leaves, chunk, then), strict=True):
                    for name, part in parts.items():
                        total[name] += part
        return totals[0], totals[1]

    def _of_chunk(
        self, leaves: dict[str, Tensor], v: Tensors | None, targets: Tensor, count: int, outputs: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A chunk's part of ∇L and of H v; of the second nothing without v."""
        mean = self.loss.value(outputs, targets.to(outputs)) * (len(outputs) / count)
        if not mean.requires_grad:
            return {}, {}
        gradient = _derivative(mean, leaves, twice=v is not None)
        first = {name: g.detach() for name, g in gradient.items()}
        if v is None:
            return first, {}
        along = sum((g * v[name].to(g)).sum() for name, g in gradient.items())
        if not isinstance(along, Tensor) or not along.requires_grad:
            return first, {}
        try:
            return first, _derivative(along, leaves, twice=False)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an operator without a second derivative says so in words of its own
            raise NotMeasured(f"no second derivative: {str(error).splitlines()[0][:120]}") from error


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
    few = min(2, len(samples))
    _verify(LossHessian(fine, samples.rows(0, few), targets[:few].double(), loss))
    return LossHessian(network, inputs, targets, loss)


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


def _missed(hessian: LossHessian, own: Tensors, size: float, seed: int) -> float:
    """‖H v − (∇L(θ + hv) − ∇L(θ − hv))/2h‖ over the larger of ‖H v‖ and what rounding leaves of the difference."""
    draws = np.random.default_rng(seed)
    v = {name: torch.from_numpy(draws.standard_normal(tuple(p.shape))).to(p) for name, p in own.items()}
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


def _derivative(of: Tensor, leaves: dict[str, Tensor], *, twice: bool) -> dict[str, Tensor]:
    parts = torch.autograd.grad(of, list(leaves.values()), create_graph=twice, allow_unused=True)
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
