"""Products: every column of the kernel by one vector-Jacobian and one Jacobian-vector product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from kerneltrack.ntk.network import Inputs, Network, Preconditioner, layer_of
from kerneltrack.ntk.reduction import Kind


def product_kernel(
    into: Mapping[str, Tensor],
    network: Network,
    metric: Preconditioner | None,
    names: Sequence[str],
    x1: Inputs,
    x2: Inputs | None,
    outputs: int,
    kind: Kind,
    advance: Callable[[int], None],
) -> None:
    """Adds J(x1) P J(x2)ᵀ to ``into``, column by column: one Jᵀu and one Jv for each (m, p).

    The arguments are those of :func:`add_jacobian_kernel`; ``advance`` is told how many pairs of samples are
    done.
    """
    other = x1 if x2 is None else x2
    dtype = next(iter(into.values())).dtype
    for m in range(len(other)):
        sample = other.rows(m, m + 1)
        for p in range(outputs):
            basis = torch.zeros(1, outputs, dtype=dtype, device=network.device)
            basis[0, p] = 1
            gradient = network.vjp(sample, basis)
            weighted = {name: gradient[name].to(dtype) * (1.0 if metric is None else metric[name]) for name in names}
            for layer, target in into.items():
                along = weighted if len(into) == 1 else {k: v for k, v in weighted.items() if layer_of(k) == layer}
                column = network.jvp(x1, along).to(dtype)
                if kind == "full":
                    target[:, m, :, p] += column
                elif kind == "diagonal":
                    target[:, m, p] += column[:, p]
                else:
                    target[:, m] += column[:, p]
