"""Gradients of every output at the recorded edges: the one backward pass of the structured method.

Weight gradients are never formed here. Samples are independent, so one reverse pass of Σ_n f_o(x_n) gives
∂f_o(x_n)/∂y_n for all n. On CPUs outputs are looped over, a few at a time where a pass has few rows: one pass with ten
outputs took 0.6 of the time of ten passes for an MLP on 256 samples, and 1.5 to 2 times as long for convolutional networks
and transformers. On an accelerator all outputs go through one pass, 2 to 5 times as fast there. What autograd returns is
kept as it is; on a CPU a copy into one array costs as much as forming per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Record, Use
from kerneltrack.ntk.contraction.backward_passes import Ordinary, gradients_of_some, passes
from kerneltrack.ntk.contraction.batched_gradients import Batched
from kerneltrack.ntk.contraction.stack import Stack, alike
from kerneltrack.ntk.machine import Machine


@dataclass(frozen=True)
class Direction:
    """Some rows of u: those of the samples ``rows`` of a block, (k, O); all others are zero.

    Where ``apart``, u comes in behind the gradients of single outputs, whatever a pass with u would cost.
    """

    rows: slice
    u: Tensor
    apart: bool = False

    def whole(self, like: Tensor) -> Tensor:
        """u for a whole block, of the shape of its outputs (n, O)."""
        if self.u.shape == like.shape:
            return self.u
        whole = like.new_zeros(like.shape)
        whole[self.rows] = self.u
        return whole


class KroneckerFactors:
    """What one block of samples contributes: its uses, and the gradients at each.

    Args:
        uses: the uses of the block, in their order.
        gradients: for each record, one (N, g, e, T) for every output.
        count: N.
        direction: u, where one was given.
        adjoined: whether there is one more gradient then, that of Σ_no u_no f_o(x_n), behind those of several outputs.
    """

    def __init__(
        self,
        uses: Sequence[Use],
        gradients: Mapping[Record, Sequence[Tensor]],
        count: int,
        direction: Direction | None = None,
        *,
        adjoined: bool = False,
    ) -> None:
        self.uses, self._gradients, self.count = uses, dict(gradients), count
        self._direction, self._adjoined = direction, adjoined
        self._sums: dict[int, Sequence[Tensor]] = {}
        self.stacks: dict[Record, tuple[Stack, int]] = {}

    def stack(self, wanted: Collection[int]) -> None:
        """Stacks the gradients and inputs of linear maps of one shape; :attr:`stacks` has record → the stack and its place."""
        primary = _primary(self.uses, wanted)
        batched = [use for record, use in primary.items() if isinstance(self._gradients[record], Batched)]
        for group in alike(batched, len(next(iter(self._gradients.values()), ()))):
            stack = Stack(group, [cast(Batched, self._gradients[use.record]).together for use in group])
            for place, use in enumerate(group):
                self.stacks[use.record] = stack, place
                self._gradients[use.record] = Batched(stack.of_use(place))

    def mixed_stacks(self) -> dict[Record, Tensor]:
        """Σ_not u_no G_not ⊗ a_nt over the direction's samples for each record in a stack, (1, e, i)."""
        assert self._direction is not None
        stacks = {id(stack): stack for stack, _ in self.stacks.values()}
        formed = {
            key: stack.mixed(self._direction.rows, self._direction.u, self._adjoined) for key, stack in stacks.items()
        }
        return {record: formed[id(stack)][place : place + 1] for record, (stack, place) in self.stacks.items()}

    def gradients(self, index: int) -> Sequence[Tensor]:
        """G of a use: for every output (N, g, e, T)."""
        return self._of_outputs(self._all(index))

    def sums(self, index: int) -> Sequence[Tensor]:
        """Σ_t G of a use: for every output (N, g, e)."""
        return self._of_outputs(self._summed(index))

    def mixed(self, index: int) -> Tensor:
        """Σ_o u_no G_no of a use for the direction's samples, (k, g, e, T)."""
        assert self._direction is not None
        parts, rows = self._all(index), self._direction.rows
        if self._adjoined:
            return parts[-1][rows]
        u = self._direction.u.to(parts[0].dtype)[:, :, None, None, None]
        mixed = parts[0][rows] * u[:, 0]
        for o, part in enumerate(parts[1:], 1):
            mixed.addcmul_(part[rows], u[:, o])
        return mixed

    def summed(self, formed: Tensor) -> Tensor:
        """Σ_no u_no F_no over the direction's samples, (g, e, i), for F (n, g, O, e, i)."""
        assert self._direction is not None
        own, u = formed[self._direction.rows], self._direction.u.to(formed.dtype)
        if own.shape[1] == 1:
            return (u.reshape(1, -1) @ own.flatten(0, 2).flatten(1)).view(1, *own.shape[3:])
        return (own * u[:, None, :, None, None]).sum((0, 2))

    def mixed_sums(self, indices: Sequence[int]) -> list[Tensor]:
        """Σ_not u_no G_not over the direction's samples, (g·e,) for each of these uses."""
        assert self._direction is not None
        sums = [self._summed(index) for index in indices] if self._adjoined or self._is_of_one else []
        if not sums:  # of single passes, of which nothing is summed twice
            return [_over_rows(self.mixed(index)).flatten(1).sum(0) for index in indices]
        rows = [parts[-1][self._direction.rows].flatten(1) for parts in sums]
        together = rows[0] if len(rows) == 1 else torch.cat(rows, 1)
        if not self._adjoined:
            together = together * self._direction.u.to(together.dtype)
        return list(torch.split(together.sum(0), [part.shape[1] for part in rows]))

    def bytes_of(self, indices: Iterable[int]) -> int:
        """What the gradients that these uses need take."""
        parts = [self._gradients.get(record, ()) for record in {self.uses[index].record for index in indices}]
        return sum(p.together.nbytes if isinstance(p, Batched) else sum(one.nbytes for one in p) for p in parts)

    def keep(self, indices: Iterable[int]) -> None:
        """Drops the gradients that none of these uses needs."""
        records = {self.uses[index].record for index in indices}
        self._gradients = {record: parts for record, parts in self._gradients.items() if record in records}
        self._sums.clear()
        self.stacks = {record: found for record, found in self.stacks.items() if record in records}

    def _all(self, index: int) -> Sequence[Tensor]:
        use = self.uses[index]
        parts = self._gradients[use.record]
        if isinstance(parts, Batched):
            return parts if parts.together.shape[2] == 1 else Batched(_each(use.shared_rows, parts.together))
        return [use.shared_rows(part) for part in parts]

    def _summed(self, index: int) -> Sequence[Tensor]:
        parts = self._all(index)
        if not isinstance(parts, Batched):
            return [_over_rows(part) for part in parts]
        if index not in self._sums:
            stack, place = self.stacks.get(self.uses[index].record, (None, 0))
            self._sums[index] = Batched(_over_rows(parts.together) if stack is None else stack.sums(place))
        return self._sums[index]

    def _of_outputs(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        return parts[:-1] if self._adjoined else parts

    @property
    def _is_of_one(self) -> bool:
        return len(next(iter(self._gradients.values()), ())) == 1


def _over_rows(rows: Tensor) -> Tensor:
    """Σ_t, (…, T) → (…)."""
    return rows.sum(-1) if rows.shape[-1] > 1 else rows.squeeze(-1)


def collect(
    outputs: Tensor,
    uses: Sequence[Use],
    wanted: Collection[int],
    dtype: torch.dtype,
    machine: Machine,
    *,
    most: int = 2**62,
    adjoining: bool = False,
    beside: Direction | None = None,
    ordinary: Ordinary | None = None,
) -> KroneckerFactors:
    """Runs one backward pass for each output, or one for several.

    Args:
        outputs: f(x), (N, O), with its graph; the graph is consumed.
        uses: all uses of the forward pass.
        wanted: indices of those whose gradients are needed.
        dtype: in which everything is contracted, at least float32.
        machine: what runs it; it says how many outputs go through one pass together. One by one where an operation cannot.
        most: no more outputs than these at once.
        adjoining: copy the gradients of all outputs into one array each, as products with J want them.
        beside: u: the gradients of Σ_no u_no f_o(x_n) are wanted too. Where launches count they are one more row of the one
            pass; on a CPU that would be one more pass, and those of single outputs are mixed for the few samples that u is of.
        ordinary: what is known of passes of several outputs; None where there were none.
    """
    n, o = outputs.shape
    primary = _primary(uses, wanted)
    stored = {record: _Stored(use, n, o, dtype, adjoining) for record, use in primary.items()}
    rows = n * max((use.extent().tokens for use in primary.values()), default=1)
    at_once = max(1, min(o, most, machine.backward_rows // rows))
    adjoined = beside is not None and not beside.apart and o > 1 and machine.counts_launches
    u = beside.whole(outputs) if beside is not None and adjoined else None
    edges, known = [record.edge for record in stored], Ordinary.of(outputs) if ordinary is None else ordinary
    for parts, several in passes(outputs, edges, at_once, u, machine, known):
        for place, part in zip(stored.values(), parts, strict=True):
            place.add(part, several)
    for record in stored:
        record.operands = [t.to(dtype) if t.is_floating_point() else t for t in record.operands]
    gradients = {record: place.gradients for record, place in stored.items()}
    factors = KroneckerFactors(uses, gradients, n, beside, adjoined=adjoined)
    if machine.counts_launches and not adjoining:
        factors.stack(wanted)
    return factors


def _primary(uses: Sequence[Use], wanted: Collection[int]) -> dict[Record, Use]:
    """The first use of each record: a weight comes before its bias, and says what the rows are."""
    primary: dict[Record, Use] = {}
    for index in sorted(wanted):
        primary.setdefault(uses[index].record, uses[index])
    return primary


class _Stored:
    """What was gathered of one record: its gradients, laid out as its use has them."""

    def __init__(self, use: Use, count: int, outputs: int, dtype: torch.dtype, adjoining: bool) -> None:
        self._use, self._count, self._outputs, self._dtype = use, count, outputs, dtype
        self._adjoining = adjoining
        self._places: Sequence[Tensor] = ()
        self.gradients: Sequence[Tensor] = []

    def add(self, part: Tensor | None, several: int) -> None:
        """One pass: (n, …), or of ``several`` outputs (several, n, …); None for zeros."""
        extent = self._use.extent()
        sizes = self._count, extent.groups, extent.outer, extent.tokens
        if part is None:
            zero = torch.zeros(1, dtype=self._dtype, device=self._use.weight.device)
            self._extend([zero.expand(sizes)] * max(1, several))
        elif not several and self._outputs == 1 and not self._adjoining:
            self.gradients = Batched(self._use.gradient_rows(part.to(self._dtype)).unsqueeze(0))
        elif not several:
            self._extend([self._use.gradient_rows(part.to(self._dtype))])
        else:
            rows = _each(self._use.gradient_rows, part.to(self._dtype))
            if several >= self._outputs:
                self.gradients = Batched(rows)
            else:
                self._extend(rows.unbind(0))

    def _extend(self, parts: Iterable[Tensor]) -> None:
        own = list(self.gradients)
        for part in parts:
            if self._adjoining and len(own) < self._outputs:
                self._places = self._places or _places(part, self._outputs)
                part = self._places[len(own)].copy_(part)
            own.append(part)
        self.gradients = own


def _each(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``function`` of samples, for several outputs at once: (O, n, …) → (O, n, …)."""
    rows = function(tensor.flatten(0, 1))
    return rows.view(*tensor.shape[:2], *rows.shape[1:])


def _places(like: Tensor, outputs: int) -> Sequence[Tensor]:
    """Room for such gradients (n, g, e, T) of so many outputs in one array, in their order in memory."""
    n, g, e, t = like.shape
    if like.stride(2) == 1 and t > 1:
        return like.new_empty(n, outputs, g, t, e).transpose(3, 4).unbind(1)
    return like.new_empty(n, outputs, g, e, t).unbind(1)


def gradients_by(outputs: Tensor, uses: Sequence[Use], count: int, *, at_once: bool) -> list[Tensor]:
    """∂f_o/∂y at every use for the first ``count`` outputs, (count, n, …); the graph is kept, so that it can be tried."""
    edges = [record.edge for record in _primary(uses, range(len(uses)))]
    return gradients_of_some(outputs, edges, count, at_once=at_once)
