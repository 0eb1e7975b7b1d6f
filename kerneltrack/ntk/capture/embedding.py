"""Rules of tables: rows that are looked up by integer, and bags of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, is_batched, is_weight


def embedding(
    capture: Capture,
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table by integer; the row ``padding_idx`` has no gradient."""
    if scale_grad_by_freq or not is_batched(indices) or is_batched(weight):
        return NotImplemented
    y = torch.embedding(weight.detach(), indices)
    return capture.keep("embedding", y, [indices], weight, None, padding_idx if padding_idx >= 0 else None)


def embedding_bag(
    capture: Capture,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Sums, means or maxima of rows, for bags of one length: a lookup, then a reduction."""
    bags = offsets.shape[0] - include_last_offset
    if (
        scale_grad_by_freq
        or is_batched(offsets)
        or is_batched(weight)
        or not is_batched(indices)
        or bags == 0
        or indices.numel() % bags
        or (mode == 2 and padding_idx is not None)
    ):
        return NotImplemented
    length = indices.numel() // bags
    if not torch.equal(offsets[:bags], torch.arange(0, indices.numel(), length).to(offsets)):
        return NotImplemented
    indices = indices.view(bags, length)
    rows = embedding(capture, weight, indices) if is_weight(weight) else torch.embedding(weight, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.view(bags, length, 1)
    kept = None
    if padding_idx is not None:
        kept = (indices != padding_idx).unsqueeze(-1)
        rows = rows * kept
    bag = rows.max(1).values if mode == 2 else rows.sum(1)
    if mode == 1:
        bag = bag / (length if kept is None else kept.sum(1).clamp(min=1))
    return bag, offsets, offsets, offsets
