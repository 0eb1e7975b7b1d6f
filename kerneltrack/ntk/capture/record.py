"""What was recorded where a weight was used, and the refusal where nothing can be."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge


class NotCapturable(Exception):
    """The forward pass does something that uses cannot describe; plain autodiff must do the whole model."""


#: What torch raises where vmap or autograd refuses a model.
REFUSALS = (NotCapturable, RuntimeError, NotImplementedError, TypeError, ValueError)


def first_line(refusal: BaseException) -> str:
    """Why, in one line: what torch says first."""
    return str(refusal).strip().partition("\n")[0] or type(refusal).__name__


@dataclass(eq=False)
class Record:
    """One recorded result y: physical tensors with the sample axis first.

    Attributes:
        operands: the per-sample tensors (N, …) that the rule asked to keep.
        shape: shape of y, (N, …).
        edge: where autograd delivers ∂f/∂y.
        versions: of the operands when they were recorded.
        copies: whether the model gets a copy of y, into which it may write.
        watched: whether it is to be known that it does.
        handed: what the model got, and its version then, where that is watched.
    """

    operands: list[Tensor] = field(default_factory=list)
    shape: torch.Size = field(default_factory=torch.Size)
    edge: GradientEdge | None = None
    versions: list[int] = field(default_factory=list)
    copies: bool = True
    watched: bool = False
    handed: tuple[Tensor, int] | None = None

    def hand(self, y: Tensor) -> Tensor:
        """What the model gets of y: itself, or a copy. Autograd lets nobody write into a leaf."""
        handed = y.clone() if self.copies or y.is_leaf else y
        if self.watched:
            self.handed = handed, handed._version
        return handed

    def check_unchanged(self) -> None:
        """Raises NotCapturable where the forward pass changed a recorded input in place afterwards."""
        if [t._version for t in self.operands] != self.versions:
            raise NotCapturable("the input of a layer is changed in place after the layer used it")

    def was_written(self) -> bool:
        """Whether the model has changed in place what it got; asked once, and known where it was watched."""
        handed, self.handed = self.handed, None
        return handed is not None and handed[0]._version != handed[1]
