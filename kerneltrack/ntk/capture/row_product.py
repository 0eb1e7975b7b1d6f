"""x Wᵀ + b, of whose gradient only rows that are not zero are multiplied on the way back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.segment import is_of_several
from kerneltrack.ntk.capture.zero_rows import bounded, few_rows, placed


def row_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b for x (…, i) and a W (e, i) that is not differentiated."""
    plain = torch.is_autocast_enabled(x.device.type) or x.dtype != weight.dtype
    if plain or x.dim() < 2 or not x.requires_grad:
        return F.linear(x, weight, bias)
    y: Tensor = _RowProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _RowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        if is_of_several(gradient):
            return gradient @ weight, None, None
        rows = gradient.reshape(-1, gradient.shape[-1])
        seen = few_rows(rows)
        skips = seen is not None and bounded(weight)
        pulled = placed(rows[seen] @ weight, seen, len(rows)) if seen is not None and skips else rows @ weight
        return pulled.view(*gradient.shape[:-1], weight.shape[1]), None, None
