"""The execution of a structured plan: blocks of samples are captured and contracted pair by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kerneltrack.ntk.capture import NotCapturable
from kerneltrack.ntk.contraction import (
    ORDERS,
    KroneckerFactors,
    SampleBlock,
    Term,
    collect,
    isometry_gaps,
    mirror,
    whole_entries,
)
from kerneltrack.ntk.methods.batched import differing
from kerneltrack.ntk.methods.comparison import Comparison
from kerneltrack.ntk.methods.forward_pass import ForwardPass, looked_for
from kerneltrack.ntk.methods.kept_plans import Outdated, keep_plan, kept_plan
from kerneltrack.ntk.methods.preference import is_small, plain_is_faster
from kerneltrack.ntk.methods.recording import Made, replayed, watched
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.structured_plan import Step, StructuredPlan
from kerneltrack.ntk.network import Captured, Inputs, refuse_not_finite


class Execution:
    """A plan at work on its network.

    Args:
        plan: what to do.
        request: what was asked.
        trial: the pass that the plan was made from; used again for the block that it was of. None for a plan that was kept.
        outputs_alone: whether nothing but outputs is noted of the samples that are looked at.

    Attributes:
        compares: one for x1, one for x2 where that is another, while samples are looked at beside the kernel; else none.
        keeps: whether the capture is to stay where one holds all samples, beside the kernel of these with themselves.
        whole: that capture, once the kernel was formed; else None.
        kept: whether the plan is an earlier call's.
        replayed: whether the kernel was made by the recording of an earlier call.
        plain: in words, that the plain Jacobian of everything is faster; "" where it is not, and of a plan that was kept.
    """

    def __init__(
        self,
        plan: StructuredPlan,
        request: KernelRequest,
        trial: ForwardPass | None = None,
        *,
        outputs_alone: bool = False,
    ) -> None:
        self.plan, self.request = plan, replace(request, machine=plan.machine)
        self._given = None if trial is None else trial.leaves
        self.kept, self.replayed = trial is None, False
        # A pass of another kind has other bits, and every call of a plan is to have the same.
        serves = trial is not None and len(trial.samples) == len(request.x1) and trial.looks == looked_for(self.request)
        self._trial = trial if serves else None
        self._gaps = list[Tensor]()
        self._outputs: dict[int, tuple[Tensor, bool]] = {}
        self.keeps, self.whole = False, cast(SampleBlock | None, None)
        self.plain = "" if trial is None else plain_is_faster(self.request, trial, plan)
        self.compares: list[Comparison] = []
        if not request.looked:
            named = (request.x1, "x1"), (request.x2, "x2")
            how = 0 if outputs_alone else plan.machine.compared, bool(plan.batched)
            self.compares = [Comparison(request.network, one, name, *how) for one, name in named if one is not None]

    @classmethod
    def of(cls, request: KernelRequest, *, only_planned: bool = False, again: bool = False) -> Execution:
        """Tries, plans, and is ready to run; where it is ``only_planned``, it tries one sample.

        A small kernel that may be asked for ``again`` is planned as one that is recorded.

        Raises:
            NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
        """
        with request.network.evaluating():
            trial = ForwardPass.trial(request, of_one=only_planned)
            plan = StructuredPlan.of(request, trial)
            if again and is_small(request, trial, plan):
                plan = StructuredPlan.of(replace(request, machine=request.machine.small), trial)
            return cls(plan, request, trial)

    @classmethod
    def again(cls, request: KernelRequest) -> Execution:
        """By the plan of an earlier call for the same, with no trial; where there is none, :meth:`of`, which is kept.

        It is not where the plain Jacobian is the faster way: whoever asks for that needs no plan.

        Raises:
            NotCapturable, RuntimeError: as :meth:`of`.
            Outdated: the samples were not looked at, and there is no plan beside which they could be.
        """
        with request.network.evaluating():
            plan = kept_plan(request)
            if plan is not None:
                return cls(plan.within(request), request)
            if not request.looked:
                raise Outdated("no plan of an earlier call is left")
            execution = cls.of(request, again=True)
            if not execution.plain:
                keep_plan(request, execution.plan)
            return execution

    @cached_property
    def _leaves(self) -> Mapping[str, Tensor]:
        """The parameters that all passes are run with; a recording brings its own."""
        return ForwardPass.leaves_of(self.request.network, self.request.x1) if self._given is None else self._given

    def add_to(
        self, into: Mapping[str, Tensor], advance: Callable[[int], None], against: Execution | None = None
    ) -> None:
        """Adds the covered parameters' kernel on and above the diagonal (everywhere, if rectangular).

        Args:
            into: layer → (B, N1·Q, N2·Q).
            advance: told how many pairs of samples each step has done.
            against: an equal plan at work on the network in another state; the second samples' side is taken of it.
        """
        request = self.request
        with request.network.evaluating():
            records = self.kept and bool(self.compares) and not self.keeps and against is None and not self.plan.batched
            made = replayed(request, into, self._again, self._recorded_bytes) if records else None
            if made is None:
                with watched(request) if records else nullcontext():
                    self._form(into, advance, against)
            else:
                self.replayed, self._gaps = True, made.gaps
                for compared, notes, said in zip(self.compares, made.notes, made.said, strict=True):
                    compared.follow(notes, said)
                advance(request.sample_pairs)
            for compared in self.compares:
                compared.compare()

    @property
    def _recorded_bytes(self) -> int:
        """What everything between the first launch and the kernel takes at its peak: factors, passes, and Θ twice."""
        plan, request = self.plan, self.request
        passes = request.network.activation_bytes(request.x1) * min(plan.block_samples, len(request.x1))
        return plan.working_bytes + plan.outputs_at_once * passes + 2 * request.result_bytes

    def _again(self, samples: list[Inputs], into: dict[str, Tensor], outputs_alone: bool) -> Made:
        """The same on other memory."""
        asked = replace(self.request, x1=samples[0], x2=samples[1] if len(samples) > 1 else None)
        one = Execution(self.plan, asked, outputs_alone=outputs_alone)
        one._form(into, lambda pairs: None)
        one.mirror(into)
        return Made([compared.notes for compared in one.compares], one._gaps)

    def mirror(self, into: Mapping[str, Tensor]) -> None:
        """Copies what is above the diagonal of a symmetric kernel below it; a recording has done that."""
        if self.request.x2 is None and not self.replayed:
            for matrix in into.values():
                mirror(matrix, self.request.machine.mirror_rows)

    def _form(
        self, into: Mapping[str, Tensor], advance: Callable[[int], None], against: Execution | None = None
    ) -> None:
        request, size, q = self.request, self.plan.block_samples, self.request.paired
        symmetric = request.x2 is None
        ours, theirs = [*self.compares, None, None][:2]
        for i, first in request.x1.chunks(size):
            left = self.block(first, i, ours)
            for j, second in (request.x1 if request.x2 is None else request.x2).chunks(size):
                if symmetric and j.start < i.start:
                    continue
                same = symmetric and i == j
                self.whole = left if self.keeps and same and len(first) == len(request.x1) else None
                if self.whole is not None and request.metric is None and not request.machine.counts_launches:
                    left.form(*self._formable(), self.plan.workspace)
                right = left if same else (against or self).block(second, j, theirs if i.start == 0 else None)
                for layer, matrix in into.items():
                    part = matrix[:, i.start * q : i.stop * q, j.start * q : j.stop * q]
                    self._contract(part, left, right, self._steps(layer), same)
                advance(len(first) * (len(first) + 1) // 2 if same else len(first) * len(second))

    def block(self, samples: Inputs, place: slice = slice(0, 0), compared: Comparison | None = None) -> SampleBlock:
        """Captures a block of samples, those at ``place``, and leaves with ``compared`` what they have alone.

        Raises:
            NotCapturable: its forward pass does something else than the trial's.
            Outdated: the plan was kept, and its forward pass does something else than it did.
        """
        request = self.request
        done = self._trial_of(samples)
        if done is None:
            done = ForwardPass.of(
                request.network, self._leaves, samples, copies=self.plan.copies, looks=looked_for(request)
            )
        if done.facts != self.plan.facts:
            if self.kept:
                raise Outdated("the forward pass does something else than in earlier calls")
            raise NotCapturable("the forward pass does different things for different samples")
        wanted = {index for term in self.plan.terms for index in term.uses}
        direction = None if compared is None else compared.direction(place, done.outputs)
        if compared is None:
            refuse_not_finite(done.outputs, "the inputs")
        if self.kept and not self._gaps:
            self._gaps = isometry_gaps(self.plan.terms, done.uses, self._leaves)
        factors = collect(
            done.outputs,
            done.uses,
            wanted,
            request.dtype,
            request.machine,
            most=self.plan.outputs_at_once,
            adjoining=self.keeps,
            beside=direction,
            ordinary=self.plan.passes.ordinary,
        )
        if request.first is not None:
            self._outputs[place.start] = done.outputs.detach(), done.batched is None
        self._compare_new(done, factors)
        block = SampleBlock(factors, request.reduction.kind, self._leaves, request.metric)
        if not request.machine.counts_launches:  # elsewhere the host would wait for the answer
            block.look(self.plan.terms)
        if compared is not None:
            compared.note(done.outputs, block, wanted, direction, {} if direction is None else self._formed(block))
        return block

    def _formed(self, block: SampleBlock) -> dict[int, Tensor]:
        """Use → F of a small kernel's convolutions and rows of tokens, which a recording forms once for Θ and for Jᵀu."""
        if not self.request.machine.counts_calls or block.kind == "diagonal":
            return {}
        alone, _ = self._formable()
        found = {term.uses[0]: term for term in alone if block.factors.uses[term.uses[0]].extent().tokens > 1}
        return {
            index: whole_entries(block, term, 0)
            for index, term in found.items()
            if block.factors.uses[index].record not in block.factors.stacks
        }

    @property
    def captured(self) -> Captured | None:
        """What the capture has of all samples, each alone or all in one batch; None where blocks were ordinary batches."""
        parts = [self._outputs[start] for start in sorted(self._outputs)]
        alone = all(own for _, own in parts)
        outputs = [own for own, _ in parts]
        whole = bool(parts) and sum(map(len, outputs)) == len(self.request.x1) and (alone or len(parts) == 1)
        return Captured(torch.cat(outputs), alone) if whole else None

    def settled(self) -> bool:
        """Whether all that was taken for granted holds, by one look at everything that stands on the device.

        Raises:
            Outdated: a weight is another expression of its parameters than the plan was made for.
        """
        gaps = [torch.stack(self._gaps).view(torch.int64)] if self._gaps else []
        parts = [*(compared.report for compared in self.compares), *gaps]
        if not parts:
            return True
        report = (torch.cat(parts) if len(parts) > 1 else parts[0]).cpu().numpy()
        ends = list(accumulate(part.numel() for part in parts))
        own = [report[start:end] for start, end in pairwise([0, *ends])]
        if gaps and not bool((own[-1].view(np.float64) <= 1).all()):
            raise Outdated("a weight is another expression of its parameters than in earlier calls")
        each = list(zip(self.compares, own, strict=False))
        holds = all(compared.holds(part) for compared, part in each)
        if self.replayed and not holds:
            raise Outdated("the network is another one than in the call that was recorded")
        return holds and all(compared.seen(part) for compared, part in each)

    def _compare_new(self, done: ForwardPass, factors: KroneckerFactors) -> None:
        """Raises NotCapturable where a batch's pass is of a new kind, and its uses are not what plain autodiff gives."""
        if done.batched is None or done.program in done.batched.programs:
            return
        request, first = self.request, self.request.first
        own = first if first is not None and len(done.samples) == len(first.samples) else None
        if own is not None:
            own.settle(self.captured)  # its plain pass is what the uses are compared with
        given = request.network, self._leaves, done.samples, done.uses, self.plan.terms, factors.gradients
        if (names := differing(*given, request.plain)) and own is not None:
            names = differing(*given, own.of_the_whole())
        if names:
            done.batched.leave(names)
            raise NotCapturable(f"a batch's uses of {names[:4]} are not the samples'")
        done.batched.remember(done.program)

    def _trial_of(self, samples: Inputs) -> ForwardPass | None:
        """The trial, where it was of just these samples; its graph can be used once."""
        trial, self._trial = self._trial, None
        return trial if trial is not None and trial.is_of(samples) else None

    def _formable(self) -> tuple[list[Term], list[Term]]:
        """The terms that are contracted by their per-sample gradients alone, which products with J want too, and the others."""
        ways = [(step.term, step.order.name == "gradient" and not step.merged) for step in self.plan.steps]
        shared = Counter(index for term in self.plan.terms for index in term.uses)
        alone = [
            term
            for term in self.plan.terms
            if term.form == "tokens"
            and [shared[index] for index in term.uses] == [1]
            and [way for other, way in ways if other is term] == [True]
        ]
        return alone, [term for term in self.plan.terms if term not in alone]

    def _steps(self, layer: str) -> list[Step]:
        return [step for step in self.plan.steps if self.request.key(step.term.names[0]) == layer]

    def _contract(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, steps: Sequence[Step], symmetric: bool
    ) -> None:
        for kind in ORDERS:
            own = [step for step in steps if isinstance(step.order, kind) and not step.merged]
            if own:
                terms = [step.term for step in own]
                own[0].order.add_many(theta, left, right, terms, symmetric=symmetric, workspace=self.plan.workspace)
