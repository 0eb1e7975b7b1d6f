"""Θ V from factors that are held: what a product costs once J's structure is in memory.

One capture gives the input rows A and the gradients G of every use of a weight, and J is a sum over uses of
G ⊗ A. Then, for each use and k vectors at once,

    Jᵀ V:   W = Σ_nt (Σ_o V_no g_not) ⊗ a_nt          J W:   Σ_t g_not · (W a_nt)

in 4 NTP operations a vector, where a forward, a backward and a tangent pass need 12 NTP and run once for each
vector. It needs all of G and A in memory, O(N O): that is asked for first, and passes do the rest.

The kernel needs the same G and A: whoever forms it has the products for nothing (:meth:`FactoredJacobian.left_by`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kerneltrack.ntk.capture import JacobianBlock, NotCapturable, side_by_side
from kerneltrack.ntk.contraction import SampleBlock, Term, shift_features
from kerneltrack.ntk.methods import Execution, KernelRequest, StructuredPlan, audit_products_when_due

#: Matrices of the kernel's size that stand beside J while its eigensystem is computed, in float64, and how many more J may take.
_SOLVING, _BESIDE = 6, 3

#: Bytes that nobody counts, whatever a small kernel takes.
_SMALL = 2**22

#: P for one part of J: a number, or an entry for each of a weight's, laid out as the part has them.
Weight = float | Tensor


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


@dataclass(frozen=True)
class Part:
    """The columns of J that belong to one weight.

    Attributes:
        term: the uses of it.
        blocks: its columns, one block for each use.
    """

    term: Term
    blocks: Sequence[JacobianBlock]


class FactoredJacobian:
    """The factors of J on N samples.

    Args:
        request: what the products are of: its reduction, and its network.
        plan: how J is made of uses.
        block: the capture of all samples; its gradients go where the factors are put together.

    Attributes:
        outputs: O, behind the head.
    """

    def __init__(self, request: KernelRequest, plan: StructuredPlan, block: SampleBlock) -> None:
        self._request, self._count, self.outputs = request, len(request.x1), request.outputs
        self._kind, self._dtype = request.reduction.kind, request.dtype
        self._together = max(1, request.machine.vector_bytes // (self._count * plan.widest * request.dtype.itemsize))
        self._uses, self._leaves = block.factors.uses, block.leaves
        block.kind = "full"  # rows of J by output; what a reduction keeps of them is decided by the products
        self._parts: list[Part] = []
        self._audited = False
        terms = _factored(plan)
        for place, term in enumerate(terms):
            self._parts.append(Part(term, _blocks(term, block)))
            block.factors.keep(index for later in terms[place + 1 :] for index in later.uses)

    @classmethod
    def of(cls, request: KernelRequest, free: int) -> FactoredJacobian:
        """The factors of what is captured for this.

        Args:
            request: what the operator is of; its reduction and metric are kept.
            free: bytes that may be held.

        Raises:
            NotCapturable, RuntimeError: the model is not made of uses that factors describe, or they need more
                than ``free``; products by passes are the way.
        """
        execution = Execution.of(request)
        _refuse_unfactored(execution.plan)
        if execution.plan.held_bytes * len(request.x1) > free:
            raise NotCapturable("the factors need more memory than is free")
        execution.keeps = True
        with request.network.evaluating():
            return cls(request, execution.plan, execution.block(request.x1))

    @classmethod
    def left_by(cls, execution: Execution) -> FactoredJacobian | None:
        """J over all outputs of what a kernel was contracted from, whatever that kept of them.

        None where the kernel was not formed from one capture of all samples, not all of J has factors, or these would take
        more memory than forming the kernel has taken, and more than half of what solving it will.
        """
        plan, block = execution.plan, execution.whole
        if block is None or execution.request.metric is not None:
            return None
        try:
            _refuse_unfactored(plan)
        except NotCapturable:
            return None
        request, matrix = execution.request, 8 * execution.request.matrix_shape[1] ** 2
        making, held = _bytes(block, _factored(plan), request.outputs, request.dtype.itemsize)
        most = max(plan.working_bytes, _SMALL)
        if making > most or (held > _BESIDE * matrix and held + _SOLVING * matrix > most):
            return None
        return cls(replace(request, reduction=replace(request.reduction, kind="full")), plan, block)

    def audit_when_due(self) -> None:
        """Products with a few samples against plain autodiff of these, in the first, second, fourth, … such state.

        Raises:
            UnsupportedModelError, KernelError, AuditError: as :func:`kerneltrack.empirical_ntk`.
        """
        if self._audited:
            return
        self._audited = True
        audit_products_when_due(self._request, lambda v: self.product(v[:, :, None])[:, :, 0], by="factors")

    def product(self, v: Tensor, weights: Sequence[Weight] | None = None) -> Tensor:
        """Θ V, for V (n, O, k), or (n, 1, k) for a trace; J P Jᵀ V with P as :meth:`weights` gives it."""
        parts = torch.split(v.to(self._dtype), self._together, 2)
        return torch.cat([self._reduced(part, weights) for part in parts], 2).to(v.dtype)

    def between(self, metric: float | Mapping[str, float | Tensor]) -> Callable[[Tensor], Tensor] | None:
        """V ↦ J P Jᵀ V for V as of :meth:`product`; None where P does not act on the factors, see :meth:`weights`."""
        if isinstance(metric, float):
            return lambda v: metric * self.product(v)
        weights = self.weights(metric)
        return None if weights is None else lambda v: self.product(v, weights)

    def push(self, tangent: Mapping[str, Tensor]) -> Tensor | None:
        """J v (n, O) for v with a tensor of its shape for each parameter; None where :meth:`weights` has none."""
        laid_out = self.weights(tangent)
        if laid_out is None:
            return None
        result = torch.zeros(self._count, self.outputs, dtype=self._dtype, device=self.device)
        for part, entries in zip(self._parts, laid_out, strict=True):
            assert isinstance(entries, Tensor)  # a tangent has no numbers
            w = entries.unsqueeze(0) if entries.ndim == 1 else entries
            for block in part.blocks:
                result += block.push(w, slice(None))[:, :, 0]
        return result

    def tensors(self) -> Iterator[Tensor]:
        """What the products are made with."""
        for block in (block for part in self._parts for block in part.blocks):
            yield from (entry for entry in vars(block).values() if isinstance(entry, Tensor))

    @property
    def held_bytes(self) -> int:
        """What these take."""
        return _stored(self.tensors())

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._request.network.device

    def weights(self, metric: Mapping[str, float | Tensor]) -> list[Weight] | None:
        """P for each part of J; None where a weight is not a parameter itself, in whose entries P need not be diagonal."""
        own = [{id(self._uses[index].weight) for index in part.term.uses} for part in self._parts]
        leaves = {id(leaf) for leaf in self._leaves.values()}
        if not all(len(part.term.names) == 1 and found <= leaves for part, found in zip(self._parts, own, strict=True)):
            return None
        return [self._weight(part.term, metric[part.term.names[0]]) for part in self._parts]

    def _weight(self, term: Term, entries: float | Tensor) -> Weight:
        if not isinstance(entries, Tensor):
            return entries
        entries = entries.to(self._dtype)
        return entries.flatten() if term.form == "features" else self._uses[term.uses[0]].block_layout(entries)

    def _reduced(self, v: Tensor, weights: Sequence[Weight] | None) -> Tensor:
        if self._kind == "full":
            return self._rows(v, slice(None), weights)
        own = [slice(o, o + 1) for o in range(self.outputs)]
        if self._kind == "trace":
            return sum((self._rows(v, o, weights) for o in own), torch.zeros_like(v))
        return torch.cat([self._rows(v[:, o], o, weights) for o in own], 1)

    def _rows(self, v: Tensor, outputs: slice, weights: Sequence[Weight] | None) -> Tensor:
        """J P J^T V with only some rows of J."""
        result = torch.zeros_like(v)
        for index, part in enumerate(self._parts):
            blocks = part.blocks
            pulled = sum((block.pull(v, outputs) for block in blocks[1:]), blocks[0].pull(v, outputs))
            if weights is not None:
                pulled = _weighted(pulled, weights[index])
            for block in blocks:
                result.add_(block.push(pulled, outputs), alpha=part.term.scale)
        return result


def _weighted(w: Tensor, weight: Weight) -> Tensor:
    """P W, for W (k, p) or (g, k·e, i) as blocks have it."""
    if not isinstance(weight, Tensor) or weight.ndim == 1:
        return w * weight
    groups, rows, inner = weight.shape
    return (w.view(groups, -1, rows, inner) * weight.unsqueeze(1)).flatten(1, 2)


def _factored(plan: StructuredPlan) -> list[Term]:
    """The terms that J is made of: of a tied table all uses are one."""
    tied = {term.names for term in plan.terms if term.form == "tied"}
    return [term for term in plan.terms if term.form == "tied" or term.names not in tied]


def _bytes(block: SampleBlock, terms: Sequence[Term], outputs: int, item: int) -> tuple[int, int]:
    """The most that is held while J is made of a block, term by term, and what is held from then on; recorded inputs in both."""
    records = {use.record for use in block.factors.uses}
    recorded = _stored(operand for record in records for operand in record.operands)
    making = held = recorded
    for place, term in enumerate(terms):
        waiting = block.factors.bytes_of(index for later in terms[place:] for index in later.uses)
        copied = sum(use.copied_inputs() for use in block.uses(term) if not use.is_formed(outputs))
        own = sum(use.held_entries(outputs) for use in block.uses(term))
        making = max(making, held + waiting + item * block.count * (own + copied))
        held += item * block.count * own
    return making, held


def _stored(tensors: Iterable[Tensor]) -> int:
    """Bytes of what these are views of: a row of many keeps them all."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _refuse_unfactored(plan: StructuredPlan) -> None:
    if plan.uncovered or not all(term.has_factors for term in _factored(plan)):
        raise NotCapturable("some parameters have no factors")


def _blocks(term: Term, block: SampleBlock) -> list[JacobianBlock]:
    if term.form == "features" and len(term.uses) == 1:  # of one row: the gradients of the layer's weight themselves
        together = side_by_side(block.planes(term.uses[0])[0])
        rows = together.sum(-1) if together.shape[-1] > 1 else together.squeeze(-1)
        if rows.untyped_storage().nbytes() > rows.nbytes:  # a few rows of many would keep them all
            rows = rows.clone()
        return [Columns(rows.flatten(2))]
    if term.form == "features":
        return [Columns(shift_features(block, term, 0).view(block.count, block.outputs(0, term), -1))]
    own = zip(term.uses, block.uses(term), strict=True)
    return [block.columns.get(index) or use.jacobian_block(block.planes(index)[0]) for index, use in own]
