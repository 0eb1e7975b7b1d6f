"""The order "tied": cross terms of a table that is looked up and, as the weight of a linear map, multiplied by.

A language model that ties its embedding to its head uses one E (V × d) in both ways, and

    ∂f_o(x_n)/∂E[v] = s_nov + Σ_t g_not[v] a_nt        (s: the lookup's sums, g and a: the linear map's)

so Θ has the lookup's own part, the linear map's own part, and the product of the two in both directions.
Only the rows of E that were looked up enter: nothing of size V × d is formed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.lookup import Rows, lookup_rows
from kerneltrack.ntk.contraction.order import ContractionSize, OrderCost, TermByTerm
from kerneltrack.ntk.contraction.terms import Term


class Tied(TermByTerm):
    """For the cross terms, on either side of the diagonal."""

    name = "tied"

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form == "tied"

    def cost(self, size: ContractionSize) -> OrderCost:
        """Every looked-up row with the gradients of every sample's linear map, in both directions."""
        rows = size.sample_pairs * size.tokens * size.planes * size.outputs
        work = 4 * rows * (size.inner + size.outputs)
        return self._total(4 * size.item_bytes * rows * size.outputs, 20, lookup=work)

    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One table; ``entries`` numbers may be held beside theta and the rows."""
        ours = lookup_rows(left, term)
        theirs = ours if symmetric else lookup_rows(right, term)
        for plane, part in enumerate(theta):
            cross = _cross(ours, right, term, plane, entries)
            back = cross if symmetric else _cross(theirs, left, term, plane, entries)
            part.add_(cross, alpha=term.scale).add_(back.T, alpha=term.scale)


def _cross(rows: Rows, block: SampleBlock, term: Term, plane: int, room: int) -> Tensor:
    """Σ_v s_nov · (Σ_t g_mpt[v] a_mt), (n·Q, m·Q): lookups of one block with linear maps of another.

    s_nov · a_mt comes first, because a head acts on few rows t; the product with g_mpt[v] is then scalar.
    """
    sums = rows.sums[plane]
    u, q, width = sums.shape
    result = sums.new_zeros(rows.count, q, block.count, q)
    trace = block.kind == "trace"
    maps = {i: use for i in term.uses if (use := block.factors.uses[i]).form == "tokens"}
    for index, use in maps.items():
        gradients, inputs = block.planes(index)[plane], use.input_rows(0, block.count)[:, 0]
        (_, t, d), o = inputs.shape, len(gradients)
        size = max(1, room // max(1, u * (width // d) * q * t * (1 + o)))
        for start in range(0, block.count, size):
            stop = min(start + size, block.count)
            overlap = sums.view(u, -1, d) @ inputs[start:stop].reshape(-1, d).T
            overlap = overlap.view(u, -1, stop - start, t)  # (U, Q, m, T); outputs for a trace
            chosen = torch.stack([part[start:stop, 0].index_select(1, rows.ids) for part in gradients], 1)
            equation = "uomt,mout->um" if trace else "uqmt,mput->uqmp"
            products = torch.einsum(equation, overlap, chosen).reshape(u, q, stop - start, q)
            result[:, :, start:stop].index_add_(0, rows.samples, products)
    return result.view(rows.count * q, block.count * q)
