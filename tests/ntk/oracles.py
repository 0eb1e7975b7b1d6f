"""What a kernel must equal, found without the code under test and without vmap or torch.func.

Four channels that share nothing but the model: the double loop over plain autograd (one sample, one output
at a time), two closed forms, and central differences; ``test_oracles.py`` shows each reject a wrong kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.ntk.problems import samples

Array = NDArray[np.float64]
Jacobian = Mapping[str, Array]  # parameter name -> (N, K, number of its entries)

#: Float64 sums of a few thousand products behind a few layers round at some 1e-13 of the largest entry.
EXACT = 1e-10
#: The same in float32, whose unit roundoff is 5e8 times larger: 1e-6 to 1e-5.
SINGLE = 1e-5


def call(model: nn.Module, inputs: Any, forward: Callable[..., Tensor] | None) -> Tensor:
    """The model on these inputs, as the public interface promises to call it."""
    if forward is not None:
        return forward(model, inputs)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def jacobian(
    model: nn.Module,
    inputs: Any,
    forward: Callable[..., Tensor] | None = None,
    readout: Callable[[Tensor], Tensor] | None = None,
) -> Jacobian:
    """∂f_o(x_n)/∂θ, or ∂g_k(f(x_n))/∂θ for ``readout`` g: (O,) → (K,), by N·K calls of autograd."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = []
    for n in range(len(tree_leaves(inputs)[0])):
        outputs = call(model, samples(inputs, slice(n, n + 1)), forward).reshape(-1)
        read = outputs if readout is None else readout(outputs)
        rows.append(
            [
                torch.autograd.grad(
                    value, list(trainable.values()), retain_graph=True, allow_unused=True, materialize_grads=True
                )
                for value in read
            ]
        )
    return {
        name: np.stack([[gradients[i].to_dense().cpu().numpy().ravel() for gradients in row] for row in rows]).astype(
            np.float64
        )
        for i, name in enumerate(trainable)
    }


def contract(left: Jacobian, right: Jacobian, output: str, metric: Mapping[str, Any] | None = None) -> Array:
    """J P Jᵀ in the reduction named by ``output``; P = 1 without a metric (a callable's kernel is "full")."""
    axes = {"full": "nop,mqp->nmoq", "diagonal": "nop,mop->nmo", "trace": "nop,mop->nm", "sum": "nop,mqp->nm"}
    weigh = (lambda name: 1.0) if metric is None else (lambda name: np.ravel(metric[name]))
    return sum(np.einsum(axes[output], left[name] * weigh(name), right[name]) for name in left)


def rows_of(jacobian_of_all: Jacobian, which: slice) -> Jacobian:
    """The Jacobian of the chosen samples."""
    return {name: block[which] for name, block in jacobian_of_all.items()}


def layer_of(parameter: str) -> str:
    """The key under which a parameter's share of the kernel is reported."""
    module, parametrised, _ = parameter.partition("parametrizations.")
    return module.rstrip(".") if parametrised else parameter.rpartition(".")[0]


def distance(kernel: Tensor | Array, truth: Array) -> float:
    """Largest difference over the largest entry of the truth; infinite where the shapes differ."""
    kernel = np.asarray(kernel.detach() if isinstance(kernel, Tensor) else kernel, dtype=np.float64)
    if kernel.shape != truth.shape:
        return float("inf")
    scale = np.abs(truth).max()
    return float(np.abs(kernel - truth).max() / (scale if scale > 0 else 1.0))


# ------------------------------------------------------------ closed forms


def linear_kernel(x: Array, y: Array, outputs: int, bias: bool = True) -> Array:
    """f(x) = Wx + b: Θ[n, m, o, p] = (x_n·y_m + 1) δ_op."""
    return (x @ y.T + float(bias))[:, :, None, None] * np.eye(outputs)


def tanh_network_kernel(x: Array, layers: list[tuple[Array, Array]]) -> Array:
    """f = W_L h + b_L with h ← tanh(W h + b): Θ = Σ_l (h_l·h'_l + 1) G_l G'_lᵀ, G by the backward recursion.

    h_l is the input of layer l, G_l = ∂f/∂(W_l h_l + b_l), so that G_L = 1 and
    G_l = (G_{l+1} W_{l+1}) ∘ (1 − h_{l+1}²).
    """
    hidden = [x]
    for weight, bias in layers[:-1]:
        hidden.append(np.tanh(hidden[-1] @ weight.T + bias))
    slope = np.broadcast_to(np.eye(len(layers[-1][0])), (len(x), *[len(layers[-1][0])] * 2))
    kernel = 0.0
    for h, (weight, _) in zip(reversed(hidden), reversed(layers), strict=True):
        kernel = kernel + (h @ h.T + 1)[:, :, None, None] * np.einsum("noi,mpi->nmop", slope, slope)
        slope = (slope @ weight) * (1 - h**2)[:, None]
    return kernel


def difference_jacobian(model: nn.Module, inputs: Any, step: float = 1e-5) -> Jacobian:
    """(f(θ + h e_i) − f(θ − h e_i)) / 2h, entry by entry, in float64.

    The error is h²|f'''|/6 + eps|f|/h: with h = 1e-5 and quantities of order one, 2e-11 + 2e-11.
    """
    columns: dict[str, list[Array]] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            entries = parameter.view(-1)
            for i in range(entries.numel()):
                kept = entries[i].item()
                entries[i] = kept + step
                above = call(model, inputs, None)
                entries[i] = kept - step
                below = call(model, inputs, None)
                entries[i] = kept
                columns.setdefault(name, []).append(((above - below) / (2 * step)).numpy())
    return {name: np.stack(block, axis=-1) for name, block in columns.items()}
