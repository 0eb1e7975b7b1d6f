"""Jᵀ u: one backward pass, or one for each output where hooks make the sum of rows another thing than the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from kerneltrack.ntk.machine import Machine


def gradients(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor | GradientEdge | None],
    cotangents: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> Sequence[Tensor | None]:
    """Σ ⟨u, ∂f/∂y⟩ over all outputs f and their cotangents u, for each y of ``inputs``; None where they do not depend on one.

    On a CPU as the gradient of the number Σ ⟨u, f⟩, which has the same bits, because u is multiplied by 1. Where torch is handed
    a cotangent, it imports its symbolic shapes, and SymPy with them; in most processes nothing else does, and that takes half a
    second. An accelerator is not asked for the operations more.
    """
    asked: Any = list(inputs)  # torch's stubs do not accept unused edges
    of, given = list(outputs), cast(list[Tensor] | None, list(cotangents))
    if not Machine.of(of[0].device).counts_launches:
        with torch.enable_grad():
            of, given = [(f * u).sum() for f, u in zip(outputs, cotangents, strict=True)], None
    kept = retain_graph or create_graph
    found: Sequence[Tensor | None] = torch.autograd.grad(
        of, asked, given, retain_graph=kept, create_graph=create_graph, allow_unused=True
    )
    return found


def gradients_behind(
    weights: Sequence[Tensor], leaves: Sequence[Tensor], totals: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients by weights as those by the leaves behind them; no pass where a weight is a leaf. The graph is kept."""
    found: dict[int, Tensor] = {}
    expressed = [pair for pair in zip(weights, totals, strict=True) if pair[0].grad_fn is not None]
    given = [pair for pair in zip(weights, totals, strict=True) if pair[0].grad_fn is None]
    if expressed:
        parts = gradients([w for w, _ in expressed], leaves, [total for _, total in expressed], retain_graph=True)
        given += [(leaf, part) for leaf, part in zip(leaves, parts, strict=True) if part is not None]
    for leaf, part in given:
        found[id(leaf)] = found[id(leaf)] + part if id(leaf) in found else part
    return [found.get(id(leaf)) for leaf in leaves]


def pull(leaves: list[Tensor], cotangent: Tensor, outputs: Tensor) -> Sequence[Tensor | None]:
    """Jᵀ u by the leaves, for u (n, O) and outputs (n, O); None where they do not depend on one."""
    if not outputs.requires_grad:
        return [None] * len(leaves)
    return gradients([outputs], leaves, [cotangent.to(outputs.dtype)])


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
