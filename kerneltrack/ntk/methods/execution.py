"""The execution of a structured plan: blocks of samples are captured and contracted pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor

from kerneltrack.ntk.capture import NotCapturable
from kerneltrack.ntk.contraction import ORDERS, KroneckerFactors, SampleBlock, collect
from kerneltrack.ntk.methods.batched import differing
from kerneltrack.ntk.methods.forward_pass import ForwardPass
from kerneltrack.ntk.methods.preference import plain_is_faster
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.structured_plan import Step, StructuredPlan
from kerneltrack.ntk.network import Inputs, refuse_not_finite


class Execution:
    """A plan at work on its network.

    Args:
        plan: what to do.
        request: what was asked.
        trial: the pass that the plan was made from; used again for the block that it was of.

    Attributes:
        keeps: whether the capture is to stay where one holds all samples, beside the kernel of these with themselves.
        whole: that capture, once the kernel was formed; else None.
        plain: in words, that the plain Jacobian of everything is faster; "" where it is not.
    """

    def __init__(self, plan: StructuredPlan, request: KernelRequest, trial: ForwardPass) -> None:
        self.plan, self.request, self._leaves = plan, request, trial.leaves
        self._trial = trial if len(trial.samples) == len(request.x1) else None
        self.keeps, self.whole = False, cast(SampleBlock | None, None)
        self.plain = plain_is_faster(request, trial, plan)

    @classmethod
    def of(cls, request: KernelRequest, *, only_planned: bool = False) -> Execution:
        """Tries, plans, and is ready to run; where it is ``only_planned``, it tries one sample.

        Raises:
            NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
        """
        with request.network.evaluating():
            trial = ForwardPass.trial(request, of_one=only_planned)
            return cls(StructuredPlan.of(request, trial), request, trial)

    def add_to(
        self, into: Mapping[str, Tensor], advance: Callable[[int], None], against: Execution | None = None
    ) -> None:
        """Adds the covered parameters' kernel on and above the diagonal (everywhere, if rectangular).

        Args:
            into: layer → (B, N1·Q, N2·Q).
            advance: told how many pairs of samples each step has done.
            against: an equal plan at work on the network in another state; the second samples' side is taken of it.
        """
        request, size, q = self.request, self.plan.block_samples, self.request.paired
        symmetric = request.x2 is None
        with request.network.evaluating():
            for i, first in request.x1.chunks(size):
                left = self.block(first)
                for j, second in (request.x1 if request.x2 is None else request.x2).chunks(size):
                    if symmetric and j.start < i.start:
                        continue
                    same = symmetric and i == j
                    self.whole = left if self.keeps and same and len(first) == len(request.x1) else None
                    right = left if same else (against or self).block(second)
                    for layer, matrix in into.items():
                        part = matrix[:, i.start * q : i.stop * q, j.start * q : j.stop * q]
                        self._contract(part, left, right, self._steps(layer), same)
                    advance(len(first) * (len(first) + 1) // 2 if same else len(first) * len(second))

    def block(self, samples: Inputs) -> SampleBlock:
        """Captures a block of samples.

        Raises:
            NotCapturable: its forward pass does something else than the trial's.
        """
        request = self.request
        done = self._trial_of(samples) or ForwardPass.of(request.network, self._leaves, samples)
        if done.signature != self.plan.signature:
            raise NotCapturable("the forward pass does different things for different samples")
        refuse_not_finite(done.outputs, "the inputs")
        wanted = {index for term in self.plan.terms for index in term.uses}
        factors = collect(done.outputs, done.uses, wanted, request.dtype, request.machine, side_by_side=self.keeps)
        self._compare_new(done, factors)
        return SampleBlock(factors, request.reduction.kind, self._leaves, request.metric)

    def _compare_new(self, done: ForwardPass, factors: KroneckerFactors) -> None:
        """Raises NotCapturable where a batch's pass is of a new kind, and its uses are not what plain autodiff gives."""
        if done.batched is None or done.program in done.batched.programs:
            return
        given = self.request.network, self._leaves, done.samples, done.uses, self.plan.terms, factors.gradients
        if names := differing(*given):
            done.batched.leave(names)
            raise NotCapturable(f"a batch's uses of {names[:4]} are not the samples'")
        done.batched.remember(done.program)

    def _trial_of(self, samples: Inputs) -> ForwardPass | None:
        """The trial, where it was of just these samples; its graph can be used once."""
        trial, self._trial = self._trial, None
        return trial if trial is not None and trial.is_of(samples) else None

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
