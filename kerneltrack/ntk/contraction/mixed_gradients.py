"""Jᵀu of a few samples from the factors that a kernel is made of: what these samples have alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from kerneltrack.ntk.capture import EmbeddingUse, Use
from kerneltrack.ntk.contraction.output_gradients import KroneckerFactors
from kerneltrack.ntk.network import gradients_behind


def pulled_back(
    factors: KroneckerFactors,
    wanted: Collection[int],
    leaves: Mapping[str, Tensor],
    rows: slice,
    formed: Mapping[int, Tensor],
) -> dict[str, Tensor | None]:
    """Σ u_no ∂f_o(x_n)/∂θ over the samples ``rows`` of a block, by parameter.

    Args:
        factors: of the block, with what a direction u left of them.
        wanted: the uses that were collected.
        leaves: the parameters that the pass was run with.
        rows: the direction's samples.
        formed: use → F of the block, (n, g, O, e, i), where the kernel is made of that: then a sum of its rows is all that is left.
    """
    features = [index for index in sorted(wanted) if factors.uses[index].form == "features"]
    by_weight = dict(zip(features, factors.mixed_sums(features), strict=True)) if features else {}
    stacked = factors.mixed_stacks()
    for index in set(wanted) - set(features):
        use = factors.uses[index]
        if index in formed:
            by_weight[index] = use.weight_layout(factors.summed(formed[index]))
        elif use.record in stacked:
            by_weight[index] = use.weight_layout(stacked[use.record])
        else:
            by_weight[index] = _by_weight(use, factors.mixed(index), rows)
    weights = [factors.uses[index].weight for index in by_weight]
    given = [part.reshape(w.shape).to(w.dtype) for w, part in zip(weights, by_weight.values(), strict=True)]
    return dict(zip(leaves, gradients_behind(weights, list(leaves.values()), given), strict=True))


def _by_weight(use: Use, gradient: Tensor, rows: slice) -> Tensor:
    """Σ_nt g_nt ⊗ a_nt for G (k, g, e, T), in the order of the weight's entries."""
    if isinstance(use, EmbeddingUse):
        ids = use.indices(rows.start, rows.stop).flatten().long()
        table = torch.zeros_like(use.weight, dtype=gradient.dtype)
        table.index_add_(0, ids, gradient.squeeze(1).transpose(1, 2).flatten(0, 1))
        if use.padding is not None:
            table[use.padding] = 0
        return table
    inputs = use.input_rows(rows.start, rows.stop)
    left, right = gradient.permute(1, 2, 0, 3).flatten(2), inputs.transpose(0, 1).flatten(1, 2)
    formed = (left[0] @ right[0]).unsqueeze(0) if len(left) == 1 else left @ right
    return use.weight_layout(formed)
