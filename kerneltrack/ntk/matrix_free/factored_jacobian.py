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
from typing import Protocol

import torch
from torch import Tensor

from kerneltrack.ntk.capture import NotCapturable
from kerneltrack.ntk.contraction import SampleBlock, Term, input_rows, shift_features
from kerneltrack.ntk.methods import KernelRequest, Structured

#: Vectors are taken so many at a time that what stands between pull and push stays below this.
CHUNK_BYTES = 64 * 2**20


class Block(Protocol):
    """One use of one weight, or all uses of a bias: a block of columns of J, as factors.

    ``outputs`` selects rows of J; V is (n, O, k) of these rows.
    """

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """Jᵀ V of the block, in the weight's shape and k."""

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""


@dataclass(frozen=True)
class Linear:
    """A linear map or convolution: G (n, O, g, e, T), or (n, O, g, T, e) if ``rows_last``; A (n, g, T, i)."""

    gradients: Tensor
    inputs: Tensor
    rows_last: bool

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (g, k·e, i)."""
        mixed = _mix(v, self.gradients[:, outputs])
        if self.rows_last:
            mixed = mixed.transpose(3, 4)
        left = mixed.transpose(1, 2).flatten(2, 3)
        (n, g, rows, t), i = left.shape, self.inputs.shape[-1]
        if rows * i <= t * (rows + i):
            return (left @ self.inputs).sum(0)
        return left.permute(1, 2, 0, 3).reshape(g, rows, n * t) @ self.inputs.transpose(0, 1).reshape(g, n * t, i)

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        gradients = self.gradients[:, outputs]
        n, _, g, *last = gradients.shape
        e = last[self.rows_last]
        if not self.rows_last:
            images = (w @ self.inputs.transpose(2, 3)).view(n, g, -1, e, last[1]).transpose(1, 2)
        elif g == 1:
            images = (self.inputs.flatten(0, 2) @ w[0].T).view(n, 1, last[0], -1, e).permute(0, 3, 1, 2, 4)
        else:
            images = (self.inputs @ w.transpose(1, 2)).view(n, g, last[0], -1, e).permute(0, 3, 1, 2, 4)
        return _match(gradients, images)


@dataclass(frozen=True)
class Lookup:
    """An embedding: G (n, O, T, e) and indices (n, T) into V rows, of which ``padding`` has no gradient."""

    gradients: Tensor
    ids: Tensor
    entries: int
    padding: int | None

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (1, k·V, e)."""
        rows = _mix(v, self.gradients[:, outputs]).transpose(1, 2)
        table = rows.new_zeros(self.entries, *rows.shape[2:])
        table.index_add_(0, self.ids.flatten(), rows.flatten(0, 1))
        if self.padding is not None:
            table[self.padding] = 0
        return table.transpose(0, 1).flatten(0, 1).unsqueeze(0)

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        table = w.view(-1, self.entries, w.shape[2])
        if self.padding is not None:  # what other uses of the table give to this row does not come back here
            table = table.index_fill(1, torch.tensor(self.padding, device=w.device), 0)
        return _match(self.gradients[:, outputs], table[:, self.ids].transpose(0, 1))


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


def _mix(v: Tensor, gradients: Tensor) -> Tensor:
    """Σ_o V_no g_no: (n, k, …)."""
    n, o = gradients.shape[:2]
    return (v.transpose(1, 2) @ gradients.reshape(n, o, -1)).view(n, v.shape[2], *gradients.shape[2:])


def _match(gradients: Tensor, images: Tensor) -> Tensor:
    """g_no · y_nk: (n, O, k)."""
    return gradients.flatten(2) @ images.flatten(2).transpose(1, 2)


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
        tied = {unit.names for unit in structured.coverage.units if unit.form == "tied"}
        units = [u for u in structured.coverage.units if u.form == "tied" or u.names not in tied]
        if structured.uncovered or any(unit.form in ("dense", "pulled back") for unit in units):
            raise NotCapturable("some parameters have no factors")
        if structured.held_bytes * len(job.x1) > free:
            raise NotCapturable("the factors need more memory than is free")
        self._count, self._outputs, self._kind = len(job.x1), job.outputs, job.reduction.kind
        self._widest, self._dtype = structured.widest * job.dtype.itemsize, job.dtype
        with job.network.evaluating():
            side = structured.side(job.x1)
        side.kind = "full"  # rows of J by output; what a reduction keeps of them is decided by the products
        self._units = [(unit.scale, list(_uses(unit, side))) for unit in units]

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
        for scale, uses in self._units:
            pulled = sum((use.pull(v, outputs) for use in uses[1:]), uses[0].pull(v, outputs))
            for use in uses:
                result.add_(use.push(pulled, outputs), alpha=scale)
        return result


def _uses(unit: Term, side: SampleBlock) -> Iterator[Block]:
    if unit.form == "features":
        yield Columns(shift_features(side, unit, 0).view(side.count, side.outputs(0, unit), -1))
        return
    for index in unit.sites:
        site, outputs = side.factors.sites[index], side.planes(index)[0]
        rows_last = outputs[0].stride(2) == 1 or outputs[0].shape[3] == 1
        if site.rule == "embedding":
            gradients = torch.stack([part.squeeze(1).transpose(1, 2) for part in outputs], 1)
            ids = input_rows(site, 0, side.count).long()
            yield Lookup(gradients, ids, site.weight.shape[0], site.geometry)
        elif rows_last:
            gradients = torch.stack([part.transpose(2, 3) for part in outputs], 1)
            yield Linear(gradients, input_rows(site, 0, side.count), rows_last=True)
        else:
            yield Linear(torch.stack(outputs, 1), input_rows(site, 0, side.count), rows_last=False)
