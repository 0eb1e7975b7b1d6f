"""The order "hybrid": overlaps of the input rows first, then the gradients of one side pushed through them.

Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),      K = A Aᵀ
"""

from __future__ import annotations

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
        overlap = 2 * size.sample_pairs * size.groups * size.tokens**2 * size.inner
        push = 2 * size.sample_pairs * size.tokens**2 * channels
        close = 2 * size.sample_pairs * size.tokens * channels * size.outputs
        moved = 2 * channels * size.tokens + 2 * size.groups * size.tokens**2
        launches = 5 * size.rows * size.planes  # a loop over the samples of one side
        return self._total(size.item_bytes * size.sample_pairs * moved, launches, gradient=overlap, hybrid=push + close)

    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One term, for pairs of samples on and above the diagonal; K and K G have ``entries`` together, at most."""
        ours = left.stacked(term)
        theirs = ours if symmetric else right.stacked(term)
        n, q, g, e, t1 = ours[0].shape
        t2 = theirs[0].shape[-1]
        chunk = _chunk(entries, g * t1 * t2, q * g * e * (t1 + t2))
        for start in range(0, n, chunk):
            stop = min(start + chunk, n)
            rows = left.inputs(term, start, stop)
            for first in range(start if symmetric else 0, right.count, chunk):
                last = min(first + chunk, right.count)
                columns = rows if symmetric and first == start else right.inputs(term, first, last)
                overlap = _overlap(rows, columns)
                for m in range(first, last):
                    end = min(stop, m + 1) if symmetric else stop
                    turned = overlap[: end - start, :, :, m - first].transpose(-1, -2)
                    for plane, mine in enumerate(ours):
                        pushed = theirs[plane][m].transpose(0, 1).reshape(1, g, q * e, t2) @ turned
                        block = (
                            mine[start:end].transpose(1, 2).reshape(end - start, g, q, e * t1)
                            @ pushed.view(end - start, g, q, e * t1).transpose(-1, -2)
                        ).sum(1)
                        theta[plane, start * q : end * q, m * q : (m + 1) * q].add_(
                            block.flatten(0, 1), alpha=term.scale
                        )


def _chunk(entries: int, per_pair: int, per_sample: int) -> int:
    """The largest b with b² per_pair + b per_sample ≤ entries."""
    return max(1, int(((per_sample**2 + 4 * per_pair * entries) ** 0.5 - per_sample) / (2 * per_pair)))


def _overlap(rows: Tensor, columns: Tensor) -> Tensor:
    """K of samples with samples, (n, g, T1, m, T2): products of input rows."""
    n, g, t, i = rows.shape
    left, right = rows.transpose(0, 1).reshape(g, n * t, i), columns.transpose(0, 1).reshape(g, -1, i)
    return (left @ right.transpose(1, 2)).view(g, n, t, columns.shape[0], -1).transpose(0, 1)
