"""A weight that is repeated for every sample, so that autograd itself forms ∂f_n/∂w."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.autograd.graph import get_gradient_edge

from kerneltrack.ntk.capture.record import NotCapturable, Record
from kerneltrack.ntk.capture.use import Extent, FormedUse


@dataclass(eq=False)
class ExpandedUse(FormedUse):
    """Any use that no rule explains: the gradient at the repeated weight is ∂f/∂w."""

    rule = "expanded"

    def extent(self) -> Extent:
        return Extent(1, prod(self.record.shape[1:]), 1, 1)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(gradient.shape[0], 1, -1, 1)


def expanded(record: Record, weight: Tensor, like: Tensor) -> Tensor:
    """``weight`` with the sample axis of ``like``, as a leaf that ``record`` finds again.

    It is made below the vmap that runs the samples (as :func:`.capture.Capture.keep` has it): a ``torch.autograd.Function`` with a
    rule of its own gives the same by way of more Python.

    Raises:
        NotCapturable: ``like`` is the same for all samples.
    """
    interpreter: Any = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    if torch._C._functorch._unwrap_batched(like, level)[1] is None:
        raise NotCapturable("a use without a per-sample operand")
    with interpreter.lower():
        repeated = weight.detach().expand(interpreter.batch_size(), *weight.shape).requires_grad_()
        record.shape, record.edge = repeated.shape, get_gradient_edge(repeated)
        handed = repeated.view_as(repeated)
    return torch._C._functorch._add_batch_dim(handed, 0, level)
