"""Jᵀ u: one backward pass, or one for each output where hooks make the sum of rows another thing than the rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pull(leaves: list[Tensor], cotangent: Tensor, outputs: Tensor) -> Sequence[Tensor | None]:
    """Jᵀ u by the leaves, for u (n, O) and outputs (n, O); None where they do not depend on one."""
    if not outputs.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(outputs, leaves, cotangent.to(outputs.dtype), allow_unused=True)


def pull_by_rows(leaves: list[Tensor], cotangent: Tensor, outputs: Tensor) -> Sequence[Tensor | None]:
    """Σ u_no ∂f_o(x_n)/∂θ, each row by a backward pass of its own."""
    total: list[Tensor | None] = [None] * len(leaves)
    for u, output in zip(cotangent.flatten().unbind(), outputs.flatten().unbind(), strict=True):
        parts: Sequence[Tensor | None] = [None] * len(leaves)
        if output.requires_grad:
            parts = torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
        for place, part in enumerate(parts):
            if part is not None:
                row, sum_ = u.to(part.dtype) * part.to_dense(), total[place]
                total[place] = row if sum_ is None else sum_ + row
    return total


def pull_signs(leaves: list[Tensor], outputs: Tensor) -> Sequence[Tensor | None]:
    """Σ_o with signs in turn, so that outputs whose sum is fixed count too."""
    signs = torch.ones_like(outputs)
    signs[:, 1::2] = -1
    return [None if part is None else part.to_dense() for part in pull(leaves, signs, outputs)]
