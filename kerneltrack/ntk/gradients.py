"""Gradients of every output at the recorded edges: the one backward pass of the structured method.

Weight gradients are never formed here. Samples are independent, so one reverse pass of Σ_n f_o(x_n) gives ∂f_o(x_n)/∂y_n for
all n. Outputs are looped over: batching them was measured slower on CPUs and needs O times the working memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Record, Site
from kerneltrack.ntk.factors import Extent, extent, gradient_rows


class Factors:
    """What one block of samples contributes: sites, and the gradients at each.

    Args:
        sites: the sites of this block, in order of use.
        gradients: for each record, G (N, O, g, e, T).
        count: N.
    """

    def __init__(self, sites: Sequence[Site], gradients: dict[Record, Tensor], count: int) -> None:
        self.sites, self.stored, self.count = sites, gradients, count

    def gradients(self, index: int) -> Tensor:
        """G of a site, (N, O, g, e, T); a shift sees the rows of the weight beside it as one group."""
        site, stored = self.sites[index], self.stored[self.sites[index].record]
        return stored.flatten(2, 3).unsqueeze(2) if site.rule == "shift" and stored.shape[2] != 1 else stored


def collect(outputs: Tensor, sites: Sequence[Site], tokens_last: set[Record]) -> Factors:
    """Runs one backward pass for each output and stores G for every record.

    Args:
        outputs: f(x), (N, O), with its graph.
        sites: where gradients are wanted.
        tokens_last: records whose G is wanted with T as its fastest axis (convolutions and the hybrid order).
    """
    n, o = outputs.shape
    primary = {record: site for site in reversed(sites) for record in [site.record]}
    primary |= {site.record: site for site in sites if site.rule != "shift"}
    records = list(primary)
    stored = {r: _storage(n, o, extent(primary[r]), outputs, r in tokens_last) for r in records}
    if outputs.requires_grad:
        edges = [r.edge for r in records]
        for k in range(o):
            cotangent = torch.zeros_like(outputs)
            cotangent[:, k] = 1
            parts = torch.autograd.grad(outputs, edges, cotangent, retain_graph=k < o - 1, allow_unused=True)  # type: ignore[arg-type]
            for record, part in zip(records, parts, strict=True):
                target = stored[record][:, k]
                if part is None:
                    target.zero_()
                else:
                    target.copy_(gradient_rows(primary[record], part))
    else:
        for value in stored.values():
            value.zero_()
    return Factors(sites, stored, n)


def _storage(n: int, o: int, size: Extent, like: Tensor, tokens_last: bool) -> Tensor:
    if tokens_last or size.tokens == 1:
        return like.new_empty(n, o, size.groups, size.outer, size.tokens).detach()
    return like.new_empty(n, size.groups, size.tokens, o, size.outer).detach().permute(0, 3, 1, 4, 2)
