"""Columns of J that belong to one use of a weight, held as factors, with their products.

For k vectors at once:

    Jᵀ V:   W = Σ_nt (Σ_o V_no g_not) ⊗ a_nt          J W:   Σ_t g_not · (W a_nt)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: Bytes of G and A from which columns are formed at a time.
_TOGETHER = 2**24


class JacobianBlock(Protocol):
    """A block of columns of J.

    ``outputs`` selects rows of J; V is (n, O, k) of these rows.
    """

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """Jᵀ V of the block, in the weight's shape and k."""

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""


@dataclass(frozen=True)
class KroneckerBlock:
    """A linear map: G (n, O, g, e, T), or (n, O, g, T, e) if ``rows_last``; A (n, g, T, i)."""

    gradients: Tensor
    inputs: Tensor
    rows_last: bool

    @classmethod
    def of(cls, gradients: Sequence[Tensor], inputs: Tensor) -> KroneckerBlock:
        """From G of every output, (n, g, e, T), in the memory order that autograd gave it."""
        inputs = inputs.contiguous()  # patches come as columns; every product would copy them
        together = side_by_side(gradients)
        if together.stride(3) == 1 or together.shape[4] == 1:
            return cls(together.transpose(3, 4).contiguous(), inputs, rows_last=True)
        return cls(together.contiguous(), inputs, rows_last=False)

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (g, k·e, i)."""
        mixed = mix(v, self.gradients[:, outputs])
        if self.rows_last:
            mixed = mixed.transpose(3, 4)
        left = mixed.transpose(1, 2).flatten(2, 3)
        (n, g, rows, t), i = left.shape, self.inputs.shape[-1]
        # A product for each sample writes rows · i numbers, one of all samples copies t · rows, and A of groups.
        if rows * i <= t * (rows + (g > 1) * i):
            return (left @ self.inputs).sum(0)
        return left.permute(1, 2, 0, 3).reshape(g, rows, n * t) @ self.inputs.transpose(0, 1).reshape(g, n * t, i)

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        gradients = self.gradients[:, outputs]
        n, _, g, *last = gradients.shape
        e = last[self.rows_last]
        if not self.rows_last:
            images = (w @ self.inputs.transpose(2, 3)).view(n, g, -1, e, last[1]).transpose(1, 2)
        elif g == 1:
            images = (self.inputs.flatten(0, 2) @ w[0].T).view(n, 1, last[0], -1, e).permute(0, 3, 1, 2, 4)
        else:
            images = (self.inputs @ w.transpose(1, 2)).view(n, g, last[0], -1, e).permute(0, 3, 1, 2, 4)
        return match(gradients, images)


@dataclass(frozen=True)
class FormedBlock:
    """A linear map of many rows and few entries: the columns of J themselves, (n, O, g, e, i), are fewer numbers than G."""

    columns: Tensor

    @classmethod
    def of(cls, gradients: Sequence[Tensor], input_rows: Callable[[int, int], Tensor]) -> FormedBlock:
        """From G of every output, (n, g, e, T), and A of samples start ≤ n < stop, (n, g, T, i).

        The rows of all outputs are one product for each sample (one product each has e rows, too few where e is 16), a few
        samples at a time: patches of all, and G in the order of the product, would be written to memory and read again.
        """
        together, first = side_by_side(gradients), input_rows(0, 1)
        (n, o, g, e, t), i = together.shape, first.shape[-1]
        columns = together.new_empty(n, o, g, e, i)
        size = max(1, _TOGETHER // (together.element_size() * g * t * (o * e + i)))
        for start in range(0, n, size):
            stop = min(start + size, n)
            left = together[start:stop].transpose(1, 2).reshape(-1, o * e, t)
            formed = torch.bmm(left, input_rows(start, stop).flatten(0, 1))
            columns[start:stop] = formed.view(-1, g, o, e, i).transpose(1, 2)
        return cls(columns)

    def pull(self, v: Tensor, outputs: slice) -> Tensor:
        """W, (g, k·e, i)."""
        columns = self.columns[:, outputs]
        rows = v.flatten(0, 1).T @ columns.flatten(0, 1).flatten(1)
        return rows.view(-1, *columns.shape[2:]).transpose(0, 1).flatten(1, 2)

    def push(self, w: Tensor, outputs: slice) -> Tensor:
        """J W, (n, O, k)."""
        columns = self.columns[:, outputs]
        n, o, g, e, i = columns.shape
        rows = w.view(g, -1, e, i).transpose(0, 1).flatten(1)
        return (columns.flatten(0, 1).flatten(1) @ rows.T).view(n, o, -1)


def side_by_side(gradients: Sequence[Tensor], axis: int = 1) -> Tensor:
    """G of every output, (n, g, e, T) each, with the outputs along ``axis``: a view where they lie in one array already."""
    first, item = gradients[0], gradients[0].element_size()
    step = (gradients[1].data_ptr() - first.data_ptr()) // item if len(gradients) > 1 else 0
    evenly = step > 0 and all(
        part.stride() == first.stride()
        and part.data_ptr() == first.data_ptr() + k * step * item
        and part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        for k, part in enumerate(gradients)
    )
    if not evenly:
        return torch.stack(list(gradients), axis)
    sizes, strides = list(first.shape), list(first.stride())
    sizes.insert(axis, len(gradients))
    strides.insert(axis, step)
    return first.as_strided(sizes, strides)


def mix(v: Tensor, gradients: Tensor) -> Tensor:
    """Σ_o V_no g_no: (n, k, …)."""
    n, o = gradients.shape[:2]
    return (v.transpose(1, 2) @ gradients.reshape(n, o, -1)).view(n, v.shape[2], *gradients.shape[2:])


def match(gradients: Tensor, images: Tensor) -> Tensor:
    """g_no · y_nk: (n, O, k)."""
    return gradients.flatten(2) @ images.flatten(2).transpose(1, 2)
