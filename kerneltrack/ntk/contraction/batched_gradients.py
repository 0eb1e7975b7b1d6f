"""Gradients of several outputs, from one pass or from one each, with the outputs along an axis of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import Tensor

from kerneltrack.ntk.capture import side_by_side


class Batched(Sequence[Tensor]):
    """Gradients of several outputs from one pass: (O, n, g, e, T), and as a sequence one (n, g, e, T) for each output."""

    def __init__(self, together: Tensor) -> None:
        self.together = together

    def __len__(self) -> int:
        return self.together.shape[0]

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Batched: ...
    def __getitem__(self, place: int | slice) -> Tensor | Batched:
        if isinstance(place, slice):
            return Batched(self.together[place])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.together[place]


def together(gradients: Sequence[Tensor], axis: int = 1) -> Tensor:
    """G of every output, (n, g, e, T) each, with the outputs along ``axis``; a view wherever they lie in one array."""
    if isinstance(gradients, Batched):
        return gradients.together.movedim(0, axis)
    return side_by_side(gradients, axis)
