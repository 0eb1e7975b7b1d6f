"""f of one batch and Jᵀu of it, from one forward and one backward pass: what is asked of a few samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.pullback import pull
from kerneltrack.ntk.network.samples import Inputs

Gradients = Mapping[str, Tensor]


def batch_vjp(network: Network, samples: Inputs, u_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """f (n, O) before any head, and Jᵀu by parameter; call it inside ``network.evaluating()``.

    Args:
        network: the network.
        samples: one batch.
        u_of: makes u (n, O) for the outputs.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in network.parameters.items()}
    with torch.enable_grad():
        outputs, pulled = network.applied(leaves, samples, partial(_differentiate, leaves, u_of), raw=True)
    network.refuse_hidden_parameters(outputs)
    return outputs.detach(), pulled


def cotangents(outputs: Tensor, count: int) -> Tensor:
    """u, (count, O), the same at every call; in the dtype and on the device of ``outputs``."""
    width = outputs.shape[1]
    generator = torch.Generator().manual_seed(width)
    u = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return u.to(outputs.device, outputs.dtype)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Bit for bit; NaN is equal to itself."""
    return torch.equal(a, b) or torch.equal(a.nan_to_num(), b.nan_to_num())


def _differentiate(
    leaves: Gradients, u_of: Callable[[Tensor], Tensor], outputs: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    u = u_of(outputs)
    parts = pull(list(leaves.values()), u, outputs)
    own: dict[int, Tensor] = {}
    pulled: dict[str, Tensor] = {}
    for (name, leaf), part in zip(leaves.items(), parts, strict=True):
        dense = torch.zeros_like(leaf) if part is None else part.to_dense()
        if dense.data_ptr() in own or not dense.is_contiguous():  # autograd hands out one tensor twice, or expanded
            dense = dense.clone(memory_format=torch.contiguous_format)
        own[dense.data_ptr()] = pulled[name] = dense
    return outputs, pulled
