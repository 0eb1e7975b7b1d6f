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
from kerneltrack.ntk.methods import Execution, KernelRequest


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
        request: what the operator is of; its reduction and metric are kept.
        free: bytes that may be held.

    Raises:
        NotCapturable, RuntimeError: the model is not made of uses that factors describe, or they need more
            than ``free``; products by passes are the way.
    """

    def __init__(self, request: KernelRequest, free: int) -> None:
        execution = Execution.of(request)
        plan = execution.plan
        tied = {term.names for term in plan.terms if term.form == "tied"}
        terms = [term for term in plan.terms if term.form == "tied" or term.names not in tied]
        if plan.uncovered or not all(term.has_factors for term in terms):
            raise NotCapturable("some parameters have no factors")
        if plan.held_bytes * len(request.x1) > free:
            raise NotCapturable("the factors need more memory than is free")
        self._count, self._outputs, self._kind = len(request.x1), request.outputs, request.reduction.kind
        self._dtype = request.dtype
        self._together = max(1, request.machine.vector_bytes // (self._count * plan.widest * request.dtype.itemsize))
        with request.network.evaluating():
            block = execution.block(request.x1)
        block.kind = "full"  # rows of J by output; what a reduction keeps of them is decided by the products
        self._terms = [(term.scale, list(_blocks(term, block))) for term in terms]

    def product(self, v: Tensor) -> Tensor:
        """Θ V, for V (n, O, k), or (n, 1, k) for a trace."""
        parts = torch.split(v.to(self._dtype), self._together, 2)
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


def _blocks(term: Term, block: SampleBlock) -> Iterator[JacobianBlock]:
    if term.form == "features":
        yield Columns(shift_features(block, term, 0).view(block.count, block.outputs(0, term), -1))
        return
    for index, use in zip(term.uses, block.uses(term), strict=True):
        yield use.jacobian_block(block.planes(index)[0])
