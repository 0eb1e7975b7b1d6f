"""Rows of a linear map that some output sees, where these are few.

A network that reads its outputs off one token (a language model its last, a classifier the token in front) has gradients
that are zero at all other tokens of its last layer. They are exact zeros: autograd scatters the one row's gradient into
them. Per-sample gradients then need the few rows alone, and of a single row Θ needs no per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Rows are picked where that leaves at most this share of them: copies of many would take memory, and gain little.
_FEW = 0.25


def seen_rows(gradients: Sequence[Tensor]) -> Tensor | None:
    """Indices of rows, (n, T'), outside of which every G (n, g, e, T) is zero; None where they are not few.

    A sample that has fewer than T' such rows has others among them, each row once.
    """
    n, _, _, t = gradients[0].shape
    most = int(_FEW * t)
    if not n or not most or _count(_seen(gradients[0][:1])) > most:
        return None
    seen = _seen(gradients[0])
    for other in gradients[1:]:
        if _count(seen) > most:
            return None
        seen |= _seen(other)
    count = max(1, _count(seen))
    return seen.byte().argsort(1, descending=True)[:, :count] if count <= most else None


def _seen(gradient: Tensor) -> Tensor:
    """(n, T); what is not a number is seen."""
    return ((gradient.amax(2) != 0) | (gradient.amin(2) != 0)).any(1)


def _count(seen: Tensor) -> int:
    """Rows of the sample that has most of them."""
    return int(seen.sum(1).max())


def picked(rows: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The rows ``indices`` (n, T') of each sample, along ``axis`` of (n, …)."""
    shape = [1] * rows.dim()
    shape[0], shape[axis] = indices.shape
    return torch.gather(rows, axis, indices.view(shape).expand(*rows.shape[:axis], -1, *rows.shape[axis + 1 :]))
