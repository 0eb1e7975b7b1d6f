"""A weight that is repeated for every sample, so that autograd itself forms ∂f_n/∂w."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
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
    """``weight`` with the sample axis of ``like``, as a leaf that ``record`` finds again."""
    return _Expand.apply(record, weight.detach(), like)  # type: ignore[no-untyped-call, no-any-return]


class _Expand(torch.autograd.Function):
    """A weight, repeated for every sample as a leaf of autograd's graph."""

    @staticmethod
    def forward(record: Record, weight: Tensor, like: Tensor) -> Tensor:
        raise NotCapturable("a use without a per-sample operand")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Never reached: under vmap the rule below runs instead."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], record: Record, weight: Tensor, like: Tensor
    ) -> tuple[Tensor, int]:
        repeated = weight.expand(info.batch_size, *weight.shape).requires_grad_()
        record.shape, record.edge = repeated.shape, get_gradient_edge(repeated)
        return repeated.view_as(repeated), 0
