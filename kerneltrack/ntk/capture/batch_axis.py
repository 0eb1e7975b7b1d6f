"""Where the samples are in a tensor of an ordinary batch: found by two batch sizes, and never guessed.

A forward pass runs on batches of two prime sizes. An axis belongs to the samples only if its size is k·N in both, with
one k: N itself, or N·T where rows are flattened. That N is then the slowest part of it is no matter of sizes: it is what
the comparison of every use with plain autodiff is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.record import NotCapturable


@dataclass(frozen=True)
class Layout:
    """Sizes of a tensor, and which of them counts samples.

    Attributes:
        sizes: of all axes; that of the samples' is k, as one sample has it.
        axis: the samples' axis; None where the tensor is the same for all batches.
    """

    sizes: tuple[int, ...]
    axis: int | None

    def shape(self, count: int) -> tuple[int, ...]:
        """The shape in a batch of so many samples."""
        return tuple(count * size if place == self.axis else size for place, size in enumerate(self.sizes))

    def apart(self, tensor: Tensor, count: int) -> Tensor:
        """A view with the sample axis first, (N, …), the rest as one sample alone would have it."""
        assert self.axis is not None
        shape = *tensor.shape[: self.axis], count, self.sizes[self.axis], *tensor.shape[self.axis + 1 :]
        return tensor.view(shape).movedim(self.axis, 0)

    def together(self, tensor: Tensor) -> Tensor:
        """The inverse of :meth:`apart`."""
        assert self.axis is not None
        return tensor.movedim(0, self.axis).flatten(self.axis, self.axis + 1)

    def placed(self, tensor: Tensor) -> Tensor:
        """Per-sample values (N, *w), w broadcast against the last axes of one sample, as values for the batch.

        Raises:
            NotCapturable: they have another size than 1 and k where the samples are.
        """
        assert self.axis is not None
        right, own = len(self.sizes) - self.axis, tensor.dim() - 1
        tensor = tensor.view(tensor.shape[0], *(1,) * (right - own), *tensor.shape[1:])
        axis, times = max(own, right) - right, self.sizes[self.axis]
        if tensor.shape[axis + 1] not in (1, times):
            raise NotCapturable("a weight has an axis where the samples are")
        spread = [-1] * tensor.dim()
        spread[axis + 1] = times
        return tensor.expand(spread).movedim(0, axis).flatten(axis, axis + 1)


@dataclass(frozen=True)
class Site:
    """A call that a weight takes part in.

    Attributes:
        function: which.
        given: the layouts of its tensors; None for one whose sizes follow no rule.
        made: the layouts of its results.
    """

    function: Any
    given: tuple[Layout | None, ...]
    made: tuple[Layout | None, ...]


@dataclass(frozen=True)
class Seen:
    """A site in one forward pass: its function, and the shapes that it was given and that it made."""

    function: Any
    given: tuple[torch.Size, ...]
    made: tuple[torch.Size, ...]


def compare(few: Sequence[Seen], many: Sequence[Seen], sizes: tuple[int, int]) -> list[Site]:
    """The sites of two passes of so many samples.

    Raises:
        NotCapturable: the passes do different things.
    """
    if [seen.function for seen in few] != [seen.function for seen in many]:
        raise NotCapturable("the forward pass calls its layers in another way for other batches")
    return [
        Site(a.function, _layouts(a.given, b.given, sizes), _layouts(a.made, b.made, sizes))
        for a, b in zip(few, many, strict=True)
    ]


def _layouts(
    few: Sequence[torch.Size], many: Sequence[torch.Size], sizes: tuple[int, int]
) -> tuple[Layout | None, ...]:
    if len(few) != len(many):
        raise NotCapturable("the forward pass calls its layers in another way for other batches")
    return tuple(layout(a, b, sizes) for a, b in zip(few, many, strict=True))


def layout(few: torch.Size, many: torch.Size, sizes: tuple[int, int]) -> Layout | None:
    """From the shapes of one tensor in batches of two ``sizes``; None where no axis, or more than one, would do."""
    if len(few) != len(many):
        return None
    places = [place for place, (a, b) in enumerate(zip(few, many, strict=True)) if a != b]
    if not places:
        return Layout(tuple(few), None)
    axis = places[0]
    times, rest = divmod(few[axis], sizes[0])
    if len(places) > 1 or rest or times == 0 or many[axis] != times * sizes[1]:
        return None
    return Layout((*few[:axis], times, *few[axis + 1 :]), axis)
