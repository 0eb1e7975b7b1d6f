"""Rows of a gradient that are zeros alone: behind the token that a network reads, nearly all of them are.

They are exact zeros, because autograd scatters the one token's gradient into them, and what they are multiplied with comes out
as zeros again. It is multiplied all the same, by everything between the read token and the last attention. Here the gradient itself
is asked which rows it has; nothing is concluded from the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Rows are picked where they are at most this share: copies of many would take as long as their products.
_FEW = 0.25
#: With fewer there is little to gain.
_LEAST = 64
#: So many are looked at first; most gradients have no zeros, and are found out by these.
_FIRST = 256


def few_rows(gradient: Tensor) -> Tensor | None:
    """Indices of the rows of a gradient (R, e) outside of which it is zero; None where these are not few."""
    count, first = gradient.shape[0], min(_FIRST, gradient.shape[0])
    if count < _LEAST or not gradient.shape[1] or int(_seen(gradient[:first]).sum()) > _FEW * first:
        return None
    rows = _seen(gradient).nonzero().squeeze(1)
    return rows if len(rows) <= _FEW * count else None


def placed(part: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, …) with ``part`` at these rows, and zeros."""
    return part.new_zeros(count, *part.shape[1:]).index_copy_(0, rows, part)


def largest(tensor: Tensor) -> float:
    """The largest magnitude; NaN where there is one."""
    low, high = torch.stack([tensor.amin(), tensor.amax()]).tolist() if tensor.numel() else (0.0, 0.0)
    return max(-low, high) if low == low else low


def bounded(tensor: Tensor, bound: float = math.inf) -> bool:
    """Whether every entry is a number, of at most this size; 0 · ∞ is not 0."""
    return largest(tensor) <= min(bound, torch.finfo(tensor.dtype).max)


def _seen(rows: Tensor) -> Tensor:
    """(R,); what is not a number is seen."""
    return (rows.amax(1) != 0) | (rows.amin(1) != 0)
