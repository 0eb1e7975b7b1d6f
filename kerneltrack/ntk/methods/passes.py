"""How outputs go through backward passes: several at once or one by one, decided once for each plan by a trial.

Several at once are faster on an accelerator, and as exact. Some operations cannot: a backward pass of the model's own that
looks at numbers, one for which torch has no batching rule. A model that hangs hooks on its tensors is not captured at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kerneltrack.ntk.capture import first_line
from kerneltrack.ntk.contraction import UNBATCHED, Ordinary, equal_but_for_rounding, gradients_by
from kerneltrack.ntk.methods.forward_pass import ForwardPass
from kerneltrack.ntk.methods.request import KernelRequest

#: Outputs that are tried.
_TRIED = 2


@dataclass(frozen=True)
class Passes:
    """The decision.

    Attributes:
        at_once: outputs in one pass, before memory is asked.
        ordinary: what is found of passes of several.
        looped: why there is one output in each pass; "" where there are several, or only one.
    """

    at_once: int
    ordinary: Ordinary = field(compare=False)
    looped: str = ""

    @classmethod
    def of(cls, request: KernelRequest, trial: ForwardPass) -> Passes:
        """Of the trial that a plan is made from; where launches cost nothing, the sizes of each pass decide."""
        eps = request.network.sight(trial.samples).eps
        if not request.machine.counts_launches or request.outputs == 1 or not trial.outputs.requires_grad:
            return cls(request.outputs, Ordinary(eps))
        if trial.batched is None:
            return cls._tried(request.outputs, trial, eps)
        asked = trial.program, len(trial.samples), request.outputs
        if asked not in trial.batched.passes:  # a batch's plan is made in every call, and a trial costs several passes
            trial.batched.passes[asked] = cls._tried(request.outputs, trial, eps)
        found: Passes = trial.batched.passes[asked]
        return found

    @classmethod
    def _tried(cls, outputs: int, trial: ForwardPass, eps: float) -> Passes:
        looped = _why_looped(trial, eps)
        return cls(1 if looped else outputs, Ordinary(eps), looped)

    def __str__(self) -> str:
        if self.looped:
            return f"outputs go backward one by one: {self.looped}"
        return f"{self.at_once} outputs go backward in one pass" if self.at_once > 1 else "one output goes backward"


def _why_looped(trial: ForwardPass, eps: float) -> str:
    try:
        together, seconds = _timed(trial, at_once=True)
    except UNBATCHED as refusal:
        return f"an operation cannot be batched ({first_line(refusal)})"
    singly, others = _timed(trial, at_once=False)
    if len(together) != len(singly) or not equal_but_for_rounding(together, singly, eps):
        return "batched gradients are not those of single outputs"
    if seconds > others:
        return f"batched they take {seconds / others:.1f} times as long"
    return ""


def _timed(trial: ForwardPass, *, at_once: bool) -> tuple[list[Tensor], float]:
    """Gradients of a few outputs, and the seconds of a second run on an accelerator; 0 on a CPU, which stands for one."""
    outputs, uses, count = trial.outputs, trial.uses, min(_TRIED, trial.outputs.shape[1])
    found = gradients_by(outputs, uses, count, at_once=at_once)
    if outputs.device.type == "cpu":
        return found, 0.0
    torch.accelerator.synchronize(outputs.device)
    began = time.perf_counter()
    gradients_by(outputs, uses, count, at_once=at_once)
    torch.accelerator.synchronize(outputs.device)
    return found, time.perf_counter() - began
