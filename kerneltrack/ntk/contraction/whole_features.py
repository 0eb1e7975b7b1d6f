"""Per-sample gradients of one term, all of them at once: one product over all samples and outputs for each use.

What an accelerator wants: few operations, each as large as it can be. Slices that stay in a cache are made in
:mod:`.per_sample_gradients`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.batched_gradients import together
from kerneltrack.ntk.contraction.block import SampleBlock, shift_features
from kerneltrack.ntk.contraction.terms import Term


def whole_features(block: SampleBlock, term: Term, plane: int) -> Tensor:
    """F of a "tokens" or a "features" term, (n, Q, p); (n, 1, O·p) for the trace."""
    if term.form == "features":
        return shift_features(block, term, plane)
    formed = whole_entries(block, term, plane)
    if block.kind == "trace":
        return formed.view(formed.shape[0], 1, -1)
    return formed.transpose(1, 2).flatten(2)


def whole_entries(block: SampleBlock, term: Term, plane: int) -> Tensor:
    """F of a "tokens" term, (n, g, O, e, i)."""
    total: Tensor | None = None
    for index, use in zip(term.uses, block.uses(term), strict=True):
        left = together(block.planes(index)[plane], 2)  # (n, g, O, e, T)
        right = use.input_rows(0, block.count).flatten(0, 1)  # (n·g, T, i)
        rows = _rows(left)
        total = torch.bmm(rows, right) if total is None else total.baddbmm_(rows, right)
    assert total is not None
    return total.view(*left.shape[:4], -1)


def _rows(gradients: Tensor) -> Tensor:
    """(n, g, O, e, T) as (n·g, O·e, T), in the order in memory that the channels have: one copy, or none."""
    n, g, o, e, t = gradients.shape
    if gradients.stride(3) == 1 and t > 1:
        return gradients.permute(0, 1, 4, 2, 3).reshape(n * g, t, o * e).transpose(1, 2)
    return gradients.reshape(n * g, o * e, t)


def stacked_features(block: SampleBlock, term: Term, plane: int) -> list[Tensor]:
    """The same for every use of a stack, of which ``term`` has one, in the stack's order."""
    stack, _ = block.factors.stacks[block.factors.uses[term.uses[0]].record]
    outputs = len(block.factors.gradients(term.uses[0]))
    formed = stack.features(slice(plane, plane + 1) if block.kind == "diagonal" else slice(outputs))
    paired = 1 if block.kind in ("trace", "diagonal") else outputs
    return list(formed.reshape(*formed.shape[:2], paired, -1).unbind(0))
