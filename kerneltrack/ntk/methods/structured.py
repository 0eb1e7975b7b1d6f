"""The structured method: capture once, contract each weight in its cheapest order.

The rest is differentiated plainly.

A trial capture of one sample, or of all where they are small, says which weights are used how; from the
sizes alone follow the orders, the memory of one sample, the blocks of samples that fit the budget, and the
plan. Then blocks are captured and contracted pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kerneltrack.ntk.capture import RULES, Capture, NotCapturable, Record, Use
from kerneltrack.ntk.contraction import (
    CACHED_BYTES,
    NARROW,
    NARROW_BYTES,
    ContractionSize,
    Coverage,
    OrderCost,
    SampleBlock,
    Term,
    add_gram,
    add_hybrid,
    add_lookup,
    add_tied,
    add_tokens,
    choose,
    collect,
    cost,
    cover,
    dense_features,
    shift_features,
    token_features,
    token_layer,
)
from kerneltrack.ntk.methods.footprint import sample_bytes
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.network import Inputs, layer_of, refuse_not_finite
from kerneltrack.ntk.plan import PlanLine

#: Per-sample gradients are formed in slices of at most so many columns and bytes.
SLICE_COLUMNS = 2**14
SLICE_BYTES = 48 * 2**20


#: Where all samples together take no more than this, the trial is of all of them, and is not made again: most of the time of a
#: small kernel is spent on seeing which function is called on what. A capture holds inputs and clones beside what autograd saves.
SMALL_BYTES, _CAPTURED = 2**26, 4

#: Orders that go through pairs of samples, block by block.
_PAIRWISE = {"hybrid": add_hybrid, "lookup": add_lookup, "tied": add_tied}


@dataclass(frozen=True)
class Step:
    """A term, the order chosen for it, and what that costs."""

    term: Term
    order: str
    cost: OrderCost


class Structured:
    """The plan of a job by uses, and its execution.

    Args:
        job: what to compute.

    Raises:
        NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
    """

    def __init__(self, job: KernelRequest) -> None:
        self.job = job
        self.leaves = {name: value.requires_grad_() for name, value in job.network.parameters.items()}
        small = _CAPTURED * len(job.x1) * job.network.activation_bytes(job.x1) <= min(SMALL_BYTES, self._free)
        with job.network.evaluating():
            outputs, uses = self._capture(job.x1 if small else job.x1.rows(0, 1))
            self.coverage: Coverage = cover(uses, self.leaves, outputs, job.metric)
        self._whole = (outputs, uses) if small else None
        self.sizes = [use.extent() for use in uses]
        self.rules = [use.rule for use in uses]
        self.signature = _signature(uses)
        self.steps = [self._step(term) for term in self.coverage.terms]
        self._shifts = self._merged_shifts(uses)
        self._sample_bytes = sample_bytes(job, uses, self.leaves, [step.term for step in self.steps])
        self._held_inputs = sum(use.held_inputs() for use in uses)

    def _capture(self, samples: Inputs) -> tuple[Tensor, list[Use]]:
        capture = Capture(RULES)
        return capture.run(self.job.network, self.leaves, samples), capture.uses

    def _step(self, term: Term) -> Step:
        job, sizes = self.job, [self.sizes[i] for i in term.uses]
        trace = job.reduction.kind == "trace"
        problem = ContractionSize(
            rows=len(job.x1) + (0 if job.x2 is None else job.columns),
            sample_pairs=job.sample_pairs,
            outputs=job.paired,
            planes=job.planes,
            groups=sizes[0].groups,
            outer=sizes[0].outer * (job.outputs if trace else 1),
            inner=sizes[0].inner,
            tokens=sum(s.tokens for s in sizes),
            item_bytes=job.dtype.itemsize,
        )
        if term.form == "tied":
            return Step(term, "tied", cost("tied", problem))
        if term.form in ("tokens", "lookup"):
            order, spent = choose(problem, lookup=term.form == "lookup")
            return Step(term, order, spent)
        if term.form == "features":
            problem = replace(problem, inner=1, tokens=1)
        else:
            entries = sum(self.leaves[name].numel() for name in term.names) * (job.outputs if trace else 1)
            problem = replace(problem, groups=1, outer=entries, inner=1)
        return Step(term, "gradient", cost("gradient", problem))

    @property
    def held_bytes(self) -> int:
        """Bytes that one sample's gradients and input rows have, and what is needed to obtain them."""
        return self._sample_bytes + self.job.dtype.itemsize * (self._held_inputs + self.job.outputs * self.widest)

    @property
    def widest(self) -> int:
        """Entries of the largest gradient of one sample and output."""
        return max((size.gradients for size in self.sizes), default=1)

    @property
    def key(self) -> tuple[object, ...]:
        """What an audit of this plan depends on."""
        return self.signature, tuple((step.term, step.order) for step in self.steps), tuple(self.uncovered)

    @property
    def uncovered(self) -> dict[str, str]:
        """Parameters that plain autodiff must do, and why."""
        return self.coverage.uncovered

    def uses(self) -> list[PlanLine]:
        """The lines of the plan; a tied table's three steps are one."""
        together: dict[tuple[str, ...], list[Step]] = {}
        for step in self.steps:
            together.setdefault(step.term.names, []).append(step)
        return [
            PlanLine(
                parameters=names,
                layer=layer_of(names[0]),
                rule=self._rule(max(steps, key=lambda s: len(s.term.uses)).term),
                order="+".join(dict.fromkeys(s.order for s in steps)),
                flops=sum(s.cost.flops for s in steps),
                bytes=sum(s.cost.bytes for s in steps),
            )
            for names, steps in together.items()
        ]

    def _rule(self, term: Term) -> str:
        if not term.has_factors:
            return term.form
        return "+".join(dict.fromkeys(self.rules[i] for i in term.uses))

    def workspace(self) -> int:
        """Bytes of the slices and tiles beside the blocks."""
        return int(min(SLICE_BYTES, max(2**12, self._free // 8)))

    @property
    def _free(self) -> int:
        return max(0, self.job.budget - self.job.result_bytes)

    def block_rows(self) -> int:
        """Samples for one block: all of them if they fit, else as many as two blocks can have."""
        job = self.job
        free = self._free - 4 * self.workspace()
        total = len(job.x1) + (0 if job.x2 is None else job.columns)
        if total * self._sample_bytes <= free:
            return max(len(job.x1), job.columns)
        return max(1, free // (2 * self._sample_bytes))

    @property
    def least_bytes(self) -> int:
        """The least that two blocks of one sample need beside the result.

        Half of what is free is for blocks.
        """
        return 4 * self._sample_bytes + 2**16

    @property
    def working_bytes(self) -> int:
        """The most that is held beside the result."""
        job = self.job
        total = len(job.x1) + (0 if job.x2 is None else job.columns)
        return min(total, 2 * self.block_rows()) * self._sample_bytes + 4 * self.workspace()

    def run(self, into: Mapping[str, Tensor], advance: Callable[[int], None], other: Structured | None = None) -> None:
        """Adds the covered parameters' kernel on and above the diagonal (everywhere, if rectangular).

        Args:
            into: layer → (B, N1·Q, N2·Q).
            advance: told how many pairs of samples each step has done.
            other: the same plan of the network in another state, of which the second samples' side is taken.
        """
        job, size, q = self.job, self.block_rows(), self.job.paired
        right_inputs = job.x1 if job.x2 is None else job.x2
        with job.network.evaluating():
            for i, chunk1 in job.x1.chunks(size):
                left = self.side(chunk1)
                for j, chunk2 in right_inputs.chunks(size):
                    if job.x2 is None and j.start < i.start:
                        continue
                    same = job.x2 is None and i == j
                    right = left if same else (other or self).side(chunk2)
                    for layer, matrix in into.items():
                        part = matrix[:, i.start * q : i.stop * q, j.start * q : j.stop * q]
                        self._contract(
                            part, left, right, same, [s for s in self.steps if job.key(s.term.names[0]) == layer]
                        )
                    advance(len(chunk1) * (len(chunk1) + 1) // 2 if same else len(chunk1) * len(chunk2))

    def side(self, samples: Inputs) -> SampleBlock:
        """Captures a block of samples.

        Raises:
            NotCapturable: its forward pass does something else than the trial's.
        """
        outputs, uses = self._taken(samples) or self._capture(samples)
        if _signature(uses) != self.signature:
            raise NotCapturable("the forward pass does different things for different samples")
        refuse_not_finite(outputs, "the inputs")
        wanted = {i for step in self.steps for i in step.term.uses}
        return SampleBlock(collect(outputs, uses, wanted, self.job.dtype), self.job.reduction.kind)

    def _taken(self, samples: Inputs) -> tuple[Tensor, list[Use]] | None:
        """The trial, where it was of just these samples; its graph can be used once."""
        whole, self._whole = self._whole, None
        own = zip(samples.tensors, self.job.x1.tensors, strict=True)
        return whole if all(a.shape == b.shape and a.data_ptr() == b.data_ptr() for a, b in own) else None

    def _contract(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, same: bool, steps: Sequence[Step]
    ) -> None:
        tokens = [s.term for s in steps if s.order == "token"]
        if tokens:
            layers = [token_layer(u, left, right, self._shifts[u].scale if u in self._shifts else 0.0) for u in tokens]
            add_tokens(theta, layers, left.count, right.count, self.job.paired, same)
        for step in steps:
            if step.order in _PAIRWISE:
                _PAIRWISE[step.order](theta, left, right, step.term, same, self.workspace() // self.job.dtype.itemsize)
        merged = set(self._shifts.values())
        terms = [s.term for s in steps if s.order == "gradient" and s.term not in merged]
        for plane in range(self.job.planes):
            self._add_gradients(theta[plane], left, right, same, terms, plane)

    def _merged_shifts(self, uses: Sequence[Use]) -> dict[Term, Term]:
        """Biases that ride along with their weight in the token order: weight's term → bias's term."""

        def single(step: Step) -> tuple[Record, str]:
            return uses[step.term.uses[0]].record, self.job.key(step.term.names[0])

        shifts = {single(s): s.term for s in self.steps if s.term.form == "features" and len(s.term.uses) == 1}
        return {s.term: shifts[single(s)] for s in self.steps if s.order == "token" and single(s) in shifts}

    def _add_gradients(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, same: bool, terms: Sequence[Term], plane: int
    ) -> None:
        """Gram matrices of per-sample gradients.

        Narrow ones are joined first, so that Θ is read and written less often.
        """
        rows = max(theta.shape)
        width = max(1, min(SLICE_COLUMNS, self.workspace() // (self.job.dtype.itemsize * rows)))
        buffers = (
            [theta.new_empty(width * size) for size in (theta.shape[:1] if same else theta.shape)]
            if any(u.form == "tokens" for u in terms)
            else []
        )
        small: list[tuple[Tensor, Tensor]] = []
        for term in terms:
            own = self._slice_width(term, width, rows, max(left.count, right.count))
            ours = self._features(left, term, plane, own, buffers[:1])
            pairs = (
                ((f, f) for f in ours)
                if same
                else zip(ours, self._features(right, term, plane, own, buffers[1:]), strict=True)
            )
            for mine, other in pairs:
                if mine.shape[1] >= min(NARROW, width) // 4:
                    add_gram(theta, mine, other, same, term.scale)
                    continue
                small.append((_scaled(mine, term.scale), _scaled(other, term.scale)))
                if sum(f.shape[1] for f, _ in small) >= min(NARROW, width):
                    _flush(theta, small, same)
        _flush(theta, small, same)

    def _slice_width(self, term: Term, width: int, rows: int, count: int) -> int:
        """Columns of a slice of a term: few, where the inputs of ``count`` samples stay in a cache."""
        sizes, item = [self.sizes[i] for i in term.uses], self.job.dtype.itemsize
        inputs = count * sum(size.inputs for size in sizes) * item
        return min(width, max(NARROW, NARROW_BYTES // (rows * item))) if inputs <= CACHED_BYTES else width

    def _features(
        self, side: SampleBlock, term: Term, plane: int, width: int, buffers: Sequence[Tensor]
    ) -> Iterable[Tensor]:
        if term.form == "tokens":
            return token_features(side, term, plane, width, buffers[0])
        if term.form == "features":
            return [shift_features(side, term, plane)]
        return dense_features(
            side, term, plane, self.leaves, self.job.metric, self.workspace() // self.job.dtype.itemsize
        ).values()


def _scaled(features: Tensor, scale: float) -> Tensor:
    """√scale times a narrow slice, as a copy: the buffer behind it is used again."""
    return features.clone() if scale == 1.0 else features * scale**0.5


def _flush(theta: Tensor, small: list[tuple[Tensor, Tensor]], same: bool) -> None:
    if small:
        left = torch.cat([f for f, _ in small], 1)
        add_gram(theta, left, left if same else torch.cat([f for _, f in small], 1), same)
        small.clear()


def _signature(uses: Sequence[Use]) -> tuple[object, ...]:
    return tuple(use.signature() for use in uses)
