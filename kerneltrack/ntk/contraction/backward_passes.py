"""Backward passes from outputs to the edges of uses: one for each output, or one for several.

A pass of several is vmap's, and a rule of vmap may be wrong without an error, for some sizes only. So on an accelerator passes of
a new size are compared with an ordinary one, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.func import vmap

from kerneltrack.memory_budget import ran_out
from kerneltrack.ntk.machine import Machine
from kerneltrack.ntk.network import gradients

#: What torch raises where an operation cannot go through a pass of several outputs: as exact, one by one.
UNBATCHED = (RuntimeError, NotImplementedError)
#: A gradient whose terms cancel is rounding of what it is a sum of: so many last places of the largest gradient.
_LAST_PLACES = 64


@dataclass
class Ordinary:
    """Which passes of several outputs are what passes of one are.

    Attributes:
        eps: the spacing around 1 of the coarsest arithmetic that takes part in a pass.
        known: (samples, outputs) of a pass → whether it could be made, and was that.
    """

    eps: float
    known: dict[tuple[int, int], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, outputs: Tensor) -> Ordinary:
        """Where nothing is known but the precision of f(x)."""
        return cls(torch.finfo(outputs.dtype).eps)

    def may_be(self, batch: Tensor) -> bool:
        """Whether a pass of such cotangents (k, n, O) may be tried."""
        return self.known.get(_size(batch), True)


def passes(
    outputs: Tensor,
    edges: Sequence[GradientEdge | None],
    at_once: int,
    beside: Tensor | None,
    machine: Machine,
    ordinary: Ordinary,
) -> Iterator[tuple[Sequence[Tensor | None], int]]:
    """∂f_o/∂y at all edges, and those of Σ u f behind them; with each pass how many it was of, 0 for one by itself.

    Args:
        outputs: f(x), (n, O), with its graph; the graph is consumed.
        edges: where y was made; None for one that no output depends on.
        at_once: outputs in one pass.
        beside: u, (n, O), which rides along where one pass has all outputs; None where no Σ u f is wanted.
        machine: what runs it.
        ordinary: what is known of passes of several; what is found is added.
    """
    total = outputs.shape[1] + (beside is not None)
    if not outputs.requires_grad or not edges:
        yield from [([None] * len(edges), 0)] * total
        return
    if at_once >= outputs.shape[1]:  # u rides along in the one pass
        at_once = total
    done = 0
    while done < total:
        count = min(at_once, total - done)
        if count > 1:
            batch = cotangents(outputs, done, count, beside)
            parts = _of_several(outputs, edges, batch, machine, ordinary)
            if parts is None:
                at_once = 1
                continue
            yield parts, count
        else:
            yield gradients([outputs], edges, [_cotangent(outputs, done, beside)], retain_graph=done < total - 1), 0
        done += count


def _of_several(
    outputs: Tensor, edges: Sequence[GradientEdge | None], batch: Tensor, machine: Machine, ordinary: Ordinary
) -> Sequence[Tensor | None] | None:
    """One pass for several cotangents (k, n, O); None where it cannot be made, or is not what an ordinary pass gives."""
    if not ordinary.may_be(batch):
        return None
    try:
        if (
            not machine.counts_launches
        ):  # an operation without a rule is looped over here, and costs what single passes cost
            return _of_edges(outputs, edges, batch, is_grads_batched=True)
        parts = _batched_gradients(outputs, edges, batch)
    except UNBATCHED as refusal:
        if not ran_out(refusal):
            ordinary.known[_size(batch)] = False
        return None
    if _size(batch) not in ordinary.known:
        ordinary.known[_size(batch)] = _are_ordinary(outputs, edges, batch, parts, ordinary.eps)
    return parts if ordinary.may_be(batch) else None


def _size(batch: Tensor) -> tuple[int, int]:
    return batch.shape[1], batch.shape[0]


def _are_ordinary(
    outputs: Tensor, edges: Sequence[GradientEdge | None], batch: Tensor, parts: Sequence[Tensor | None], eps: float
) -> bool:
    """Whether Σ_k w_k of batched gradients is the gradient of Σ_k w_k of the cotangents, for random w; one answer is read."""
    w = torch.randn(len(batch), generator=torch.Generator().manual_seed(len(batch)), dtype=torch.float64).to(batch)
    singly = gradients([outputs], edges, [torch.tensordot(w, batch, 1)], retain_graph=True)
    if [part is None for part in parts] != [part is None for part in singly]:
        return False
    pairs = [(a, b) for a, b in zip(parts, singly, strict=True) if a is not None and b is not None]
    mixed = [torch.tensordot(w.to(several), several, 1) for several, _ in pairs]
    sizes = [several.abs().amax() * len(batch) for several, _ in pairs if several.numel()]
    return equal_but_for_rounding(mixed, [one for _, one in pairs], eps, sizes)


def equal_but_for_rounding(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], eps: float, sizes: Sequence[Tensor] | None = None
) -> bool:
    """Whether gradients are the same to rounding, relative to the largest of each pair; one answer is read.

    Args:
        ours: gradients.
        theirs: as many.
        eps: the spacing around 1 of the coarsest arithmetic that took part.
        sizes: of the largest entry of each pair that is not empty; None is that of ``theirs``.
    """
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.numel()]
    if not pairs:
        return True
    dtype = reduce(torch.promote_types, (b.dtype for _, b in pairs))
    gaps = torch.stack([(a - b).abs().amax().to(dtype) for a, b in pairs])
    own = [b.abs().amax() for _, b in pairs] if sizes is None else sizes
    largest = torch.stack([size.to(dtype) for size in own])
    limit = eps**0.6 * largest + _LAST_PLACES * eps * largest.amax() + torch.finfo(dtype).tiny
    return bool((gaps <= limit).all())


def gradients_of_some(
    outputs: Tensor, edges: Sequence[GradientEdge | None], count: int, *, at_once: bool
) -> list[Tensor]:
    """∂f_o/∂y at every edge that the first ``count`` outputs depend on, (count, n, …); the graph is kept."""
    if at_once:
        parts = _batched_gradients(outputs, edges, cotangents(outputs, 0, count, None))
        return [part for part in parts if part is not None]
    rows = [gradients([outputs], edges, [_cotangent(outputs, o, None)], retain_graph=True) for o in range(count)]
    return [
        torch.stack([p for p in parts if p is not None]) for parts in zip(*rows, strict=True) if parts[0] is not None
    ]


def _cotangent(outputs: Tensor, place: int, beside: Tensor | None) -> Tensor:
    """e_o for every sample, (n, O); u behind the last."""
    if place == outputs.shape[1] and beside is not None:
        return beside
    return cotangents(outputs, place, 1, None)[0]


def cotangents(outputs: Tensor, first: int, count: int, beside: Tensor | None) -> Tensor:
    """``count`` of them, (count, n, O)."""
    n, o = outputs.shape
    rows = torch.eye(o, dtype=outputs.dtype, device=outputs.device)[first : first + count, None].expand(-1, n, o)
    if beside is not None and first + count > o:
        return torch.cat([rows, beside.unsqueeze(0)])
    return rows.contiguous()


def _batched_gradients(outputs: Tensor, edges: Sequence[GradientEdge | None], batch: Tensor) -> Sequence[Tensor | None]:
    """One pass for several cotangents (k, n, O).

    By torch.func.vmap: the one behind ``is_grads_batched`` knows fewer operations (norms, softmax, pooling are missing),
    and loops over the cotangents there.
    """
    reached: list[int] = []

    def one(cotangent: Tensor) -> list[Tensor]:
        parts = _of_edges(outputs, edges, cotangent)
        reached[:] = [place for place, part in enumerate(parts) if part is not None]
        return [part for part in parts if part is not None]

    found: list[Tensor] = vmap(one)(batch)
    by_place = dict(zip(reached, found, strict=True))
    return [by_place.get(place) for place in range(len(edges))]


def _of_edges(
    outputs: Tensor, edges: Sequence[GradientEdge | None], cotangent: Tensor, **options: bool
) -> Sequence[Tensor | None]:
    """Torch's type stubs do not accept unused edges here."""
    return torch.autograd.grad(outputs, edges, cotangent, retain_graph=True, allow_unused=True, **options)  # type: ignore[arg-type]
