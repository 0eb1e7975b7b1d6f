"""Embeddings: rows of a table that are looked up by integer, and bags of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, is_batched, is_weight
from kerneltrack.ntk.capture.jacobian_block import JacobianBlock, match, mix
from kerneltrack.ntk.capture.linear import LinearUse
from kerneltrack.ntk.capture.record import Record
from kerneltrack.ntk.capture.use import Extent, Use


@dataclass(eq=False)
class EmbeddingUse(Use):
    """A lookup: ∂f/∂E[v] = Σ_{t: id_t = v} g_t, never a V × e gradient where equality of indices will do.

    Attributes:
        padding: the row that has no gradient, if there is one.
    """

    padding: int | None

    rule = "embedding"
    form = "lookup"

    def extent(self) -> Extent:
        shape = self.record.shape
        return Extent(1, shape[-1], self.weight.shape[0], prod(shape[1:-1]))

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        size = self.extent()
        return gradient.reshape(gradient.shape[0], 1, size.tokens, size.outer).transpose(2, 3)

    def indices(self, start: int, stop: int) -> Tensor:
        """The row of the table that each of the T rows is, (n, T)."""
        return self.record.operands[0][start:stop].reshape(stop - start, -1)

    def input_rows(self, start: int, stop: int) -> Tensor:
        """Unit vectors of length V; an order that can compares :meth:`indices` instead."""
        indices = self.indices(start, stop).unsqueeze(-1)
        rows = (indices == torch.arange(self.weight.shape[0], device=indices.device)).to(self.weight.dtype)
        return (rows if self.padding is None else rows * (indices != self.padding)).unsqueeze(1)

    def joins(self, other: Use) -> bool:
        return isinstance(other, EmbeddingUse) and self.padding == other.padding

    def ties(self, other: Use) -> bool:
        return isinstance(other, LinearUse) and other.roles == "oi"

    def weight_gradient(self, gradients: Tensor, start: int, stop: int) -> Tensor:
        n, o, _, e, t = gradients.shape
        source, indices = gradients.squeeze(2).transpose(2, 3), self.indices(start, stop)
        if self.padding is not None:
            source = source * (indices != self.padding).view(n, 1, t, 1)
        table = gradients.new_zeros(n, o, self.weight.shape[0], e)
        return table.scatter_add_(2, indices.view(n, 1, t, 1).expand(n, o, t, e), source).flatten(2)

    def summed_gradient(self, gradient: Tensor, change: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
        rows, ids = gradient.squeeze(1).transpose(1, 2).flatten(0, 1), self.indices(0, gradient.shape[0]).flatten()
        table = gradient.new_zeros(self.weight.shape[0], rows.shape[1]).index_add_(0, ids, rows)
        if self.padding is not None:
            table[self.padding] = 0
        return table.flatten()

    def weight_layout(self, gradient: Tensor) -> Tensor:
        return gradient.transpose(-1, -2).flatten(-3)

    def jacobian_block(self, gradients: Sequence[Tensor]) -> JacobianBlock:
        rows = torch.stack([part.squeeze(1).transpose(1, 2) for part in gradients], 1)
        return LookupBlock(rows, self.indices(0, rows.shape[0]).long(), self.weight.shape[0], self.padding)

    def is_formed(self, outputs: int) -> bool:
        """Never: its columns are the whole table's."""
        return False

    def block_layout(self, entries: Tensor) -> Tensor:
        """The table itself, (1, V, e)."""
        return entries.unsqueeze(0)

    def held_inputs(self) -> int:
        """Indices are what is recorded already."""
        return 0

    def summed_gradients(self) -> int:
        size = self.extent()
        return size.gradients + size.tokens


@dataclass(frozen=True)
class LookupBlock:
    """Columns of J by a table: G (n, O, T, e) and indices (n, T) into V rows, of which ``padding`` has no gradient."""

    gradients: Tensor
    ids: Tensor
    entries: int
    padding: int | None

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (1, k·V, e)."""
        rows = mix(v, self.gradients[:, outputs]).transpose(1, 2)
        table = rows.new_zeros(self.entries, *rows.shape[2:])
        table.index_add_(0, self.ids.flatten(), rows.flatten(0, 1))
        if self.padding is not None:
            table[self.padding] = 0
        return table.transpose(0, 1).flatten(0, 1).unsqueeze(0)

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        table = w.view(-1, self.entries, w.shape[2])
        if self.padding is not None:  # what other uses of the table give to this row does not come back here
            table = table.index_fill(1, torch.tensor(self.padding, device=w.device), 0)
        return match(self.gradients[:, outputs], table[:, self.ids].transpose(0, 1))


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
    record, y = Record(), torch.embedding(weight.detach(), indices)
    use = EmbeddingUse(record, weight, padding_idx if padding_idx >= 0 else None)
    return capture.keep(record, y, [indices], [use])


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
