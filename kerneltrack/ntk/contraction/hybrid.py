"""The order "hybrid": overlaps of the input rows first, then the gradients of one side pushed through them.

Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),      K = A Aᵀ
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.order import ContractionSize, OrderCost, TermByTerm
from kerneltrack.ntk.contraction.terms import Term


class Hybrid(TermByTerm):
    """For linear maps of several rows: nothing as wide as the weight is formed."""

    name = "hybrid"

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form == "tokens" and not size.is_one_row

    def cost(self, size: ContractionSize) -> OrderCost:
        channels = size.planes * size.outputs * size.groups * size.outer
        pairs = size.all_pairs if self.machine.counts_launches else size.sample_pairs  # there, all of them at once
        overlap = 2 * pairs * size.groups * size.tokens**2 * size.inner
        push = 2 * pairs * size.tokens**2 * channels
        close = 2 * pairs * size.tokens * channels * size.outputs
        moved = 2 * channels * size.tokens + 2 * size.groups * size.tokens**2
        if size.pixel_products and not self.machine.counts_launches:
            overlap, moved = 2 * pairs * size.pixel_products, moved + size.pixel_sums
        return self._total(size.item_bytes * pairs * moved, 9 * size.planes, gradient=overlap, hybrid=push + close)

    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One term, for pairs of samples on and above the diagonal; K and K G have ``entries`` together, at most."""
        ours = left.stacked(term)
        theirs = ours if symmetric else right.stacked(term)
        if self.machine.counts_launches:
            _add_pairs(theta, left, right, term, ours, theirs, entries)
            return
        n, q, g, e, t1 = ours[0].shape
        t2 = theirs[0].shape[-1]
        added = left.pixel_sums(term)
        chunk = _chunk(entries, g * t1 * t2 + added, q * g * e * (t1 + t2))
        if added:  # sums of what stays in a core's cache
            chunk = min(chunk, max(1, isqrt(self.machine.tile_entries // (g * t1 * t2))))
        # One array for all K G: fresh memory for each sample costs as much as the product.
        pushed = theta.new_empty(min(chunk, n) * g * q * e * t1)
        for start in range(0, n, chunk):
            stop = min(start + chunk, n)
            rows = left.overlap_rows(term, start, stop)
            for first in range(start if symmetric else 0, right.count, chunk):
                last = min(first + chunk, right.count)
                columns = rows if symmetric and first == start else right.overlap_rows(term, first, last)
                overlap = left.overlaps(term, rows, columns)
                for m in range(first, last):
                    end = min(stop, m + 1) if symmetric else stop
                    turned = overlap[: end - start, :, :, m - first].transpose(-1, -2)
                    for plane, mine in enumerate(ours):
                        other = theirs[plane][m].transpose(0, 1).reshape(1, g, q * e, t2)
                        into = pushed[: (end - start) * g * q * e * t1].view(end - start, g, q * e, t1)
                        torch.matmul(other, turned, out=into)
                        block = (
                            mine[start:end].transpose(1, 2).reshape(end - start, g, q, e * t1)
                            @ into.view(end - start, g, q, e * t1).transpose(-1, -2)
                        ).sum(1)
                        theta[plane, start * q : end * q, m * q : (m + 1) * q].add_(
                            block.flatten(0, 1), alpha=term.scale
                        )


def _add_pairs(
    theta: Tensor,
    left: SampleBlock,
    right: SampleBlock,
    term: Term,
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor],
    entries: int,
) -> None:
    """All samples of one side with as many of the other as ``entries`` admit, by one product for each step."""
    n, q, g, e, t1 = ours[0].shape
    t2 = theirs[0].shape[-1]
    rows = left.inputs(term, 0, n).transpose(0, 1).reshape(g, n * t1, -1)
    chunk = max(1, entries // (2 * g * n * t1 * max(t2, q * e)))
    for first in range(0, right.count, chunk):
        last = min(first + chunk, right.count)
        m = last - first
        columns = right.inputs(term, first, last).transpose(0, 1).reshape(g, m * t2, -1)
        overlap = (rows @ columns.transpose(1, 2)).view(g, n * t1, m, t2).transpose(1, 2)
        for plane, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            pushed = overlap @ other[first:last].permute(2, 0, 4, 1, 3).reshape(g, m, t2, q * e)
            pushed = pushed.view(g, m, n, t1, q, e).permute(2, 0, 3, 5, 1, 4).reshape(n, g * t1 * e, m * q)
            block = mine.permute(0, 1, 2, 4, 3).reshape(n, q, g * t1 * e) @ pushed
            theta[plane, :, first * q : last * q].add_(block.view(n * q, m * q), alpha=term.scale)


def _chunk(entries: int, per_pair: int, per_sample: int) -> int:
    """The largest b with b² per_pair + b per_sample ≤ entries."""
    return max(1, int(((per_sample**2 + 4 * per_pair * entries) ** 0.5 - per_sample) / (2 * per_pair)))
