"""Gradients of every output at the recorded edges: the one backward pass of the structured method.

Weight gradients are never formed here. Samples are independent, so one reverse pass of Σ_n f_o(x_n) gives
∂f_o(x_n)/∂y_n for all n. Outputs are looped over: batching them was measured slower on CPUs and needs O
times the working memory. What autograd returns is kept as it is; at these sizes a copy into one array costs
as much as forming per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Record, Site
from kerneltrack.ntk.factors import extent, gradient_rows


class Factors:
    """What one block of samples contributes: its sites, and the gradients at each.

    Args:
        sites: the sites of the block, in order of use.
        gradients: for each record, one (N, g, e, T) for every output.
        count: N.
    """

    def __init__(self, sites: Sequence[Site], gradients: Mapping[Record, list[Tensor]], count: int) -> None:
        self.sites, self._gradients, self.count = sites, gradients, count

    def gradients(self, index: int) -> list[Tensor]:
        """G of a site: for every output (N, g, e, T); a shift sees the channels of all groups as one."""
        stored = self._gradients[self.sites[index].record]
        if self.sites[index].rule == "shift" and stored[0].shape[1] != 1:
            return [part.flatten(1, 2).unsqueeze(1) for part in stored]
        return stored


def collect(outputs: Tensor, sites: Sequence[Site], wanted: Collection[int], dtype: torch.dtype) -> Factors:
    """Runs one backward pass for each output.

    Args:
        outputs: f(x), (N, O), with its graph; the graph is consumed.
        sites: all sites of the forward pass.
        wanted: indices of those whose gradients are needed.
        dtype: in which everything is contracted, at least float32.
    """
    n, o = outputs.shape
    primary: dict[Record, Site] = {}
    for index in sorted(
        wanted, key=lambda i: sites[i].rule == "shift"
    ):  # a weight, not its bias, says what the rows are
        primary.setdefault(sites[index].record, sites[index])
    stored: dict[Record, list[Tensor]] = {record: [] for record in primary}
    edges = [record.edge for record in primary]
    for k in range(o):
        parts: Sequence[Tensor | None] = [None] * len(edges)
        if outputs.requires_grad and edges:
            cotangent = torch.zeros_like(outputs)
            cotangent[:, k] = 1
            parts = torch.autograd.grad(outputs, edges, cotangent, retain_graph=k < o - 1, allow_unused=True)  # type: ignore[arg-type]
        for (record, site), part in zip(primary.items(), parts, strict=True):
            size = extent(site)
            stored[record].append(
                torch.zeros(1, dtype=dtype, device=outputs.device).expand(
                    n, size.groups, size.outer, size.tokens
                )
                if part is None
                else gradient_rows(site, part.to(dtype))
            )
    for record in primary:
        record.operands = [t.to(dtype) if t.is_floating_point() else t for t in record.operands]
    return Factors(sites, stored, n)
