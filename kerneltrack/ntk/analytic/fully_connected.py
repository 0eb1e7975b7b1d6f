"""The NTK and the NNGP of infinitely wide fully connected networks."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from kerneltrack.ntk.analytic.activations import Activation, dual_of
from kerneltrack.ntk.analytic.covariances import Covariances
from kerneltrack.ntk.analytic.points import paired
from kerneltrack.ntk.analytic.recursion import Network, checked


def ntk(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: Activation,
    weight_variance: float,
    bias_variance: float = 0.0,
    by_layer: bool = False,
) -> Tensor:
    """Θ of the infinitely wide fully connected network, (N1, N2); the kernel of all outputs is Θ ⊗ I_O.

        Σ^1 = Θ^1 = σ_w² x·x'/d + σ_b²
        Σ^{l+1} = σ_w² E[φ(u)φ(v)] + σ_b²,   Θ^{l+1} = Σ^{l+1} + σ_w² E[φ'(u)φ'(v)] Θ^l,   (u, v) ~ N(0, Σ^l)

    Jacot, Gabriel, Hongler 2018 (arXiv 1806.07572). Layer l's part is Θ^(l) = Σ^l ∏_{k ≥ l} σ_w² E[φ'φ']_k, and these sum to
    Θ: what ``empirical_ntk(model, x, by_layer=True)`` gives layer by layer of a network in this parametrisation tends to them.
    Symmetric where x2 is None; 1 − ρ is computed from differences, so that nearby points keep what tells them apart.

    Args:
        x1: (N1, d).
        x2: (N2, d); None is x1.
        depth: number of weight layers L ≥ 1; L − 1 of them are followed by φ.
        activation: φ: a name ("relu", "leaky_relu", "abs", "linear", "erf", "sin", "cos", "gelu", "sigmoid", "silu",
            "softplus", "tanh"), or any smooth function of each entry of a tensor, which :class:`Smooth` integrates to 1e-10 or
            refuses. PiecewiseLinear(slope) is a leaky ReLU of another slope than 0.01.
        weight_variance: σ_w².
        bias_variance: σ_b²; 0 is without biases.
        by_layer: the parts (L, N1, N2), the first layer's first.

    Returns:
        In the dtype of ``x1``.

    Raises:
        KernelError: shapes that do not fit, depth below 1, a negative variance, or an activation that is none or not smooth enough.
    """
    network = _network(x1, x2, depth, activation, weight_variance, bias_variance)
    return network.layer_ntks() if by_layer else network.ntk()


def nngp(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: Activation,
    weight_variance: float,
    bias_variance: float = 0.0,
) -> Tensor:
    """Σ^L, the covariance of the outputs of the same network at initialisation, (N1, N2).

    Arguments and errors as :func:`ntk`. Lee et al. 2018 (arXiv 1711.00165), Matthews et al. 2018 (arXiv 1804.11271).
    """
    return _network(x1, x2, depth, activation, weight_variance, bias_variance).nngp()


def relu_ntk(
    x1: Tensor, x2: Tensor | None = None, *, depth: int, weight_variance: float = 2.0, bias_variance: float = 0.0
) -> Tensor:
    """:func:`ntk` of ReLU, whose default σ_w² keeps the size of activations from layer to layer, (N1, N2).

        Σ^{l+1} = (σ_w²/2) √(Σ^l(x,x) Σ^l(x',x')) κ_1(ρ^l) + σ_b²,   Θ^{l+1} = Σ^{l+1} + (σ_w²/2) κ_0(ρ^l) Θ^l
        κ_0(ρ) = (π − arccos ρ)/π,   κ_1(ρ) = (√(1−ρ²) + ρ (π − arccos ρ))/π

    The arc-cosine kernels of Cho & Saul 2009.

    Args:
        x1: (N1, d).
        x2: (N2, d); None is x1.
        depth: number of weight layers L ≥ 1; L − 1 of them are followed by a ReLU.
        weight_variance: σ_w².
        bias_variance: σ_b².

    Raises:
        KernelError: shapes that do not fit, or depth below 1.
    """
    return _network(x1, x2, depth, "relu", weight_variance, bias_variance).ntk()


def relu_nngp(
    x1: Tensor, x2: Tensor | None = None, *, depth: int, weight_variance: float = 2.0, bias_variance: float = 0.0
) -> Tensor:
    """:func:`nngp` of ReLU, (N1, N2). Arguments as :func:`relu_ntk`."""
    return _network(x1, x2, depth, "relu", weight_variance, bias_variance).nngp()


def _network(x1: Tensor, x2: Tensor | None, depth: int, activation: Activation, weight: float, bias: float) -> Network:
    x1, x2 = paired(x1, x2)
    checked(depth, weight, bias)
    share = weight / x1.shape[1]
    one = weight * x1.square().sum(1, keepdim=True) / x1.shape[1] + bias
    two = weight * x2.square().sum(1, keepdim=True).T / x1.shape[1] + bias
    both = weight * x1 @ x2.T / x1.shape[1] + bias
    distance = torch.cdist(x1, x2, compute_mode="donot_use_mm_for_euclid_dist").square() * share
    first = Covariances.at_distance(one, two, both, distance)
    return Network(first, itertools.repeat(None, depth - 1), dual_of(activation), weight, bias)
