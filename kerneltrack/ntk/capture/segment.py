"""A piece of a captured forward pass with a graph of its own, so that its backward pass can do less than autograd's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Outcome:
    """What is known of a forward pass once it is over: O, the number of its outputs; 0 before."""

    outputs: int = 0


class Segment:
    """y of some sources.

    Args:
        outcome: of the pass that this is a piece of.
        leaves: the sources, cut off from the graph; those that require grad are differentiated.
        value: y, with a graph that ends in the leaves.
    """

    def __init__(self, outcome: Outcome, leaves: Sequence[Tensor], value: Tensor) -> None:
        self.outcome, self.leaves, self.made = outcome, list(leaves), value._version
        self._value: Tensor | None = value
        self._versions = [leaf._version for leaf in leaves]
        self._pulls = 0

    @property
    def value(self) -> Tensor:
        """y, until the last output has been passed back."""
        if self._value is None:
            raise RuntimeError("a captured forward pass is differentiated more often than it has outputs")
        return self._value

    def joined(self, sources: Sequence[Tensor]) -> Tensor:
        """y as a part of the graph of its sources."""
        joined: Tensor = _Joined.apply(self, *sources)  # type: ignore[no-untyped-call]
        return joined

    def pulled(self, gradient: Tensor) -> Sequence[Tensor | None]:
        """The gradient at each source for one at y."""
        parts = self.differentiated(gradient)
        if self.is_last(gradient):
            self.release()
        return parts

    def differentiated(self, gradient: Tensor) -> Sequence[Tensor | None]:
        """As autograd has it."""
        asked = [leaf for leaf in self.leaves if leaf.requires_grad]
        parts = iter(torch.autograd.grad(self.value, asked, gradient, retain_graph=True, allow_unused=True))
        return [next(parts) if leaf.requires_grad else None for leaf in self.leaves]

    def is_last(self, gradient: Tensor) -> bool:
        """Whether this is the pass of the last output: what is held for others can go."""
        if is_of_several(gradient):
            return False
        self._pulls += 1
        return self._pulls >= self.outcome.outputs > 0

    def release(self) -> None:
        """Lets go of the graph; another segment may have it still."""
        self._value, self.leaves = None, []

    @property
    def is_unchanged(self) -> bool:
        """Whether nobody wrote into the sources since."""
        return [leaf._version for leaf in self.leaves] == self._versions


def is_of_several(gradient: Tensor) -> bool:
    """Whether several outputs go through one pass: then nothing can be read off a gradient."""
    return torch._C._functorch.is_batchedtensor(gradient)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segment: Segment, *sources: Tensor) -> Tensor:
        ctx.segment = segment
        return segment.value.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, *ctx.segment.pulled(gradient)
