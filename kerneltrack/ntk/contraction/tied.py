"""Cross terms of a table that is looked up and, as the weight of a linear map, multiplied by.

A language model that ties its embedding to its head uses one E (V × d) in both ways, and

    ∂f_o(x_n)/∂E[v] = s_nov + Σ_t g_not[v] a_nt        (s: the lookup's sums, g and a: the linear map's)

so Θ has the lookup's own part, the linear map's own part, and the product of the two in both directions.
Only the rows of E that were looked up enter: nothing of size V × d is formed.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.layout import input_rows
from kerneltrack.ntk.contraction.lookup import Rows, lookup_rows
from kerneltrack.ntk.contraction.terms import Term


def add_tied(theta: Tensor, left: SampleBlock, right: SampleBlock, unit: Term, same: bool, workspace: int) -> None:
    """Adds to theta (B, n1·Q, n2·Q) both cross terms of a "tied" unit, on either side of the diagonal.

    Args:
        theta: where to add.
        left: first block of samples.
        right: second block.
        unit: a "tied" unit: lookups and linear maps of one table.
        same: whether both blocks are one.
        workspace: entries that may be held beside theta and the rows.
    """
    rules = left.factors.sites
    lookups = replace(unit, sites=tuple(i for i in unit.sites if rules[i].rule == "embedding"))
    maps = replace(unit, sites=tuple(i for i in unit.sites if rules[i].rule != "embedding"))
    ours = lookup_rows(left, lookups)
    theirs = ours if same else lookup_rows(right, lookups)
    for plane, part in enumerate(theta):
        cross = _cross(ours, right, maps, plane, workspace)
        back = cross if same else _cross(theirs, left, maps, plane, workspace)
        part.add_(cross, alpha=unit.scale).add_(back.T, alpha=unit.scale)


def _cross(rows: Rows, side: SampleBlock, maps: Term, plane: int, workspace: int) -> Tensor:
    """Σ_v s_nov · (Σ_t g_mpt[v] a_mt), (n·Q, m·Q): lookups of one block with linear maps of another.

    s_nov · a_mt comes first, because a head acts on few rows t; its product with g_mpt[v] is a number's.
    """
    sums = rows.sums[plane]
    u, q, width = sums.shape
    result = sums.new_zeros(rows.count, q, side.count, q)
    trace = side.kind == "trace"
    for index in maps.sites:
        gradients, inputs = side.planes(index)[plane], input_rows(side.factors.sites[index], 0, side.count)[:, 0]
        (_, t, d), o = inputs.shape, len(gradients)
        size = max(1, workspace // max(1, u * (width // d) * q * t * (1 + o)))
        for start in range(0, side.count, size):
            stop = min(start + size, side.count)
            overlap = sums.view(u, -1, d) @ inputs[start:stop].reshape(-1, d).T
            overlap = overlap.view(u, -1, stop - start, t)  # (U, Q, m, T); outputs for a trace
            chosen = torch.stack([part[start:stop, 0].index_select(1, rows.ids) for part in gradients], 1)
            equation = "uomt,mout->um" if trace else "uqmt,mput->uqmp"
            products = torch.einsum(equation, overlap, chosen).reshape(u, q, stop - start, q)
            result[:, :, start:stop].index_add_(0, rows.samples, products)
    return result.view(rows.count * q, side.count * q)
