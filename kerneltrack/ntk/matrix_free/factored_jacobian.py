"""Θ V from factors that are held: what a product costs once J's structure is in memory.

One capture gives the input rows A and the gradients G of every use of a weight, and J is a sum over uses of
G ⊗ A. Then, for each use and k vectors at once,

    Jᵀ V:   W = Σ_nt (Σ_o V_no g_not) ⊗ a_nt          J W:   Σ_t g_not · (W a_nt)

in 4 NTP operations a vector, where a forward, a backward and a tangent pass need 12 NTP and run once for each
vector. It needs all of G and A in memory, O(N O): that is asked for first, and passes do the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.capture import JacobianBlock, NotCapturable
from kerneltrack.ntk.contraction import SampleBlock, Term, shift_features
from kerneltrack.ntk.methods import KernelRequest, Structured

#: Vectors are taken so many at a time that what stands between pull and push stays below this.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Columns:
    """Columns of J that are formed: biases, scales, (n, O, p)."""

    jacobian: Tensor

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (k, p)."""
        return torch.einsum("nok,nop->kp", v, self.jacobian[:, outputs])

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        return torch.einsum("nop,kp->nok", self.jacobian[:, outputs], w)


class FactoredJacobian:
    """The factors of J on N samples.

    Args:
        job: what the operator is of; its reduction and metric are kept.
        free: bytes that may be held.

    Raises:
        NotCapturable, RuntimeError: the model is not made of uses that factors describe, or they need more
            than ``free``; products by passes are the way.
    """

    def __init__(self, job: KernelRequest, free: int) -> None:
        structured = Structured(job)
        tied = {term.names for term in structured.coverage.terms if term.form == "tied"}
        terms = [t for t in structured.coverage.terms if t.form == "tied" or t.names not in tied]
        if structured.uncovered or not all(term.has_factors for term in terms):
            raise NotCapturable("some parameters have no factors")
        if structured.held_bytes * len(job.x1) > free:
            raise NotCapturable("the factors need more memory than is free")
        self._count, self._outputs, self._kind = len(job.x1), job.outputs, job.reduction.kind
        self._widest, self._dtype = structured.widest * job.dtype.itemsize, job.dtype
        with job.network.evaluating():
            side = structured.side(job.x1)
        side.kind = "full"  # rows of J by output; what a reduction keeps of them is decided by the products
        self._terms = [(term.scale, list(_blocks(term, side))) for term in terms]

    def product(self, v: Tensor) -> Tensor:
        """Θ V, for V (n, O, k), or (n, 1, k) for a trace."""
        most = max(1, CHUNK_BYTES // (self._count * self._widest))
        parts = torch.split(v.to(self._dtype), most, 2)
        return torch.cat([self._reduced(part) for part in parts], 2).to(v.dtype)

    def _reduced(self, v: Tensor) -> Tensor:
        if self._kind == "full":
            return self._rows(v, slice(None))
        own = [slice(o, o + 1) for o in range(self._outputs)]
        if self._kind == "trace":
            return sum((self._rows(v, o) for o in own), torch.zeros_like(v))
        return torch.cat([self._rows(v[:, o], o) for o in own], 1)

    def _rows(self, v: Tensor, outputs: slice) -> Tensor:
        """J J^T V with only some rows of J."""
        result = torch.zeros_like(v)
        for scale, blocks in self._terms:
            pulled = sum((block.pull(v, outputs) for block in blocks[1:]), blocks[0].pull(v, outputs))
            for block in blocks:
                result.add_(block.push(pulled, outputs), alpha=scale)
        return result


def _blocks(term: Term, side: SampleBlock) -> Iterator[JacobianBlock]:
    if term.form == "features":
        yield Columns(shift_features(side, term, 0).view(side.count, side.outputs(0, term), -1))
        return
    for index, use in zip(term.uses, side.uses(term), strict=True):
        yield use.jacobian_block(side.planes(index)[0])
