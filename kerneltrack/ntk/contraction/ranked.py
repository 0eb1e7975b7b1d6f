"""The order "ranked": an embedding's per-sample gradients by those rows of its table that some sample looks up.

    F_no[v] = s_nov = Σ_{t: id_nt = v} g_not,  then F Fᵀ

Indices are replaced by their rank among those that occur, of which there are at most as many as lookups: so the size of F
follows from shapes, and the host need not read an index. The order "lookup" multiplies fewer numbers, and reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kerneltrack.ntk.capture import EmbeddingUse
from kerneltrack.ntk.contraction.batched_gradients import together
from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.gram import add_gram
from kerneltrack.ntk.contraction.order import ContractionSize, OrderCost, TermByTerm
from kerneltrack.ntk.contraction.terms import Term


class Ranked(TermByTerm):
    """For embeddings, where a host that waits costs more than the products."""

    name = "ranked"

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form == "lookup" and self.machine.counts_launches

    def cost(self, size: ContractionSize) -> OrderCost:
        rows = size.planes * size.outputs * min(size.inner, size.rows * size.tokens) * size.outer
        work = 2 * size.sample_pairs * size.outputs * rows
        return self._total(2 * size.item_bytes * size.rows * rows, 10 * size.planes, gradient=work)

    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One table; a range of ranks at a time, so that F has at most ``entries``."""
        blocks = [left] if symmetric else [left, right]
        uses = [use for use in left.uses(term) if isinstance(use, EmbeddingUse)]
        ids = [_indices(block, term) for block in blocks]
        ranks, count = _ranks(ids, uses[0].weight.shape[0])
        kept = [None if uses[0].padding is None else own != uses[0].padding for own in ids]
        for plane, part in enumerate(theta):
            gradients = [_gradients(block, term, plane) for block in blocks]
            width = max(1, entries // (max(part.shape) * gradients[0].shape[-1]))
            for start in range(0, count, width):
                size = min(width, count - start)
                formed = [
                    _features(rows, own, keep, start, size, whole=size == count)
                    for rows, own, keep in zip(gradients, ranks, kept, strict=True)
                ]
                add_gram(part, formed[0], formed[-1], symmetric=symmetric, machine=self.machine, scale=term.scale)


def _indices(block: SampleBlock, term: Term) -> Tensor:
    """The rows of the table that a block's samples look up, (n, ΣT)."""
    own = [use.indices(0, block.count) for use in block.uses(term) if isinstance(use, EmbeddingUse)]
    return (own[0] if len(own) == 1 else torch.cat(own, 1)).long()


def _ranks(ids: list[Tensor], entries: int) -> tuple[list[Tensor], int]:
    """Each index's rank among all that occur, and how many ranks there may be; the indices themselves in a small table."""
    lookups = sum(own.numel() for own in ids)
    if entries <= lookups:
        return ids, entries
    values, order = torch.cat([own.flatten() for own in ids]).sort()
    rank = torch.cat([values.new_zeros(1), (values[1:] != values[:-1]).cumsum(0)])
    places = torch.empty_like(rank).scatter_(0, order, rank)
    return [
        part.view(own.shape) for part, own in zip(torch.split(places, [o.numel() for o in ids]), ids, strict=True)
    ], lookups


def _gradients(block: SampleBlock, term: Term, plane: int) -> Tensor:
    """G, (n, ΣT, Q, e); outputs are channels for the trace, (n, ΣT, 1, O·e)."""
    parts = [together(block.planes(i)[plane]).squeeze(2).permute(0, 3, 1, 2) for i in term.uses]
    rows = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return rows.flatten(2).unsqueeze(2) if block.kind == "trace" else rows


def _features(rows: Tensor, ranks: Tensor, keep: Tensor | None, start: int, size: int, *, whole: bool) -> Tensor:
    """F of ``size`` ranks from ``start`` on, (n·Q, size·e)."""
    n, t, q, e = rows.shape
    if not whole:
        inside = (ranks >= start) & (ranks < start + size)
        keep, ranks = inside if keep is None else inside & keep, (ranks - start).clamp(0, size - 1)
    if keep is not None:
        rows = rows * keep.view(n, t, 1, 1)
    table = rows.new_zeros(n, size, q, e)
    table.scatter_add_(1, ranks.view(n, t, 1, 1).expand(n, t, q, e), rows)
    return table.transpose(1, 2).flatten(2).flatten(0, 1)
