"""Gradients of every output at the recorded edges: the one backward pass of the structured method.

Weight gradients are never formed here. Samples are independent, so one reverse pass of Σ_n f_o(x_n) gives
∂f_o(x_n)/∂y_n for all n. Outputs are looped over, a few at a time where a pass has few rows: on CPUs, one
pass with ten outputs took 0.6 of the time of ten passes for an MLP on 256 samples, and 1.5 to 2 times as long
for convolutional networks and transformers. What autograd returns is kept as it is; at these sizes a copy
into one array costs as much as forming per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from kerneltrack.ntk.capture import Record, Use
from kerneltrack.ntk.machine import Machine


class KroneckerFactors:
    """What one block of samples contributes: its uses, and the gradients at each.

    Args:
        uses: the uses of the block, in their order.
        gradients: for each record, one (N, g, e, T) for every output.
        count: N.
    """

    def __init__(self, uses: Sequence[Use], gradients: Mapping[Record, list[Tensor]], count: int) -> None:
        self.uses, self._gradients, self.count = uses, gradients, count

    def gradients(self, index: int) -> list[Tensor]:
        """G of a use: for every output (N, g, e, T)."""
        use = self.uses[index]
        return [use.shared_rows(part) for part in self._gradients[use.record]]

    def keep(self, indices: Iterable[int]) -> None:
        """Drops the gradients that none of these uses needs."""
        records = {self.uses[index].record for index in indices}
        self._gradients = {record: parts for record, parts in self._gradients.items() if record in records}


def collect(
    outputs: Tensor,
    uses: Sequence[Use],
    wanted: Collection[int],
    dtype: torch.dtype,
    machine: Machine,
    *,
    side_by_side: bool = False,
) -> KroneckerFactors:
    """Runs one backward pass for each output.

    Args:
        outputs: f(x), (N, O), with its graph; the graph is consumed.
        uses: all uses of the forward pass.
        wanted: indices of those whose gradients are needed.
        dtype: in which everything is contracted, at least float32.
        machine: what runs it; it says how many outputs go through one pass together.
        side_by_side: copy the gradients of all outputs into one array each, as products with J want them.
    """
    n, o = outputs.shape
    primary: dict[Record, Use] = {}
    for index in sorted(wanted):  # a weight comes before its bias, and says what the rows are
        primary.setdefault(uses[index].record, uses[index])
    stored: dict[Record, list[Tensor]] = {record: [] for record in primary}
    places: dict[Record, Sequence[Tensor]] = {}
    edges = [record.edge for record in primary]
    rows = n * max((use.extent().tokens for use in primary.values()), default=1)
    for parts in _passes(outputs, edges, max(1, min(o, machine.backward_rows // rows))):
        for (record, use), part in zip(primary.items(), parts, strict=True):
            extent, own = use.extent(), stored[record]
            sizes = extent.groups, extent.outer, extent.tokens
            nothing = torch.zeros(1, dtype=dtype, device=outputs.device).expand(n, *sizes)
            gradient = nothing if part is None else use.gradient_rows(part.to(dtype))
            if side_by_side:
                places[record] = places.get(record) or _places(gradient, o)
                gradient = places[record][len(own)].copy_(gradient)
            own.append(gradient)
    for record in primary:
        record.operands = [t.to(dtype) if t.is_floating_point() else t for t in record.operands]
    return KroneckerFactors(uses, stored, n)


def _places(like: Tensor, outputs: int) -> Sequence[Tensor]:
    """Room for such gradients (n, g, e, T) of so many outputs in one array, in their order in memory."""
    n, g, e, t = like.shape
    if like.stride(2) == 1 and t > 1:
        return like.new_empty(n, outputs, g, t, e).transpose(3, 4).unbind(1)
    return like.new_empty(n, outputs, g, e, t).unbind(1)


def _passes(outputs: Tensor, edges: Sequence[GradientEdge | None], together: int) -> Iterator[Sequence[Tensor | None]]:
    """∂f_o/∂y at all edges, output by output; ``together`` at a time where autograd can batch the pass."""
    n, o = outputs.shape
    if not outputs.requires_grad or not edges:
        yield from [[None] * len(edges)] * o
        return
    done = 0
    while done < o:
        count = min(together, o - done)
        batch = outputs.new_zeros(count, n, o)
        for k in range(count):
            batch[k, :, done + k] = 1
        if count > 1:
            try:
                parts = _gradients(outputs, edges, batch, retain_graph=True, is_grads_batched=True)
            except (RuntimeError, NotImplementedError):  # an operation without a batching rule: as exact, one by one
                together = 1
                continue
            yield from zip(*([None] * count if p is None else p.unbind(0) for p in parts), strict=True)
        else:
            yield _gradients(outputs, edges, batch[0], retain_graph=done < o - 1)
        done += count


def _gradients(
    outputs: Tensor, edges: Sequence[GradientEdge | None], cotangent: Tensor, **options: bool
) -> Sequence[Tensor | None]:
    """Torch's type stubs do not accept unused edges here."""
    return torch.autograd.grad(outputs, edges, cotangent, allow_unused=True, **options)  # type: ignore[arg-type]
