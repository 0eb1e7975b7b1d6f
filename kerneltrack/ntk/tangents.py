"""Tangents of the operations that hold a network's parameters, each as one sum made in place.

torch's own forward mode takes an operation with two moving arguments apart: it writes every summand, and a batch norm's in a dozen
passes over its input. Products are the same here and as many; what is spared are the passes between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

#: What an operation gives for arguments some of which move; NotImplemented: torch's own forward mode is to do it.
Rule = Callable[..., Any]


def dual(primal: Tensor, tangent: Tensor) -> Tensor:
    """A tensor that moves, by torch's own bare function: ``forward_ad.make_dual`` first imports, and scripts, ten formulas."""
    made: Tensor = torch._VF._make_dual(primal, tangent, level=0)
    return made


def parts(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """A tensor as it stands, and its tangent, where it has one."""
    primal, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]  # torch's own function is untyped
    return primal, tangent


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """x Wᵀ + b along (ẋ, Ẇ, ḃ): x Ẇᵀ + ḃ + ẋ Wᵀ."""
    if not _apply(input, weight, bias) or input.dim() < 2:
        return NotImplemented
    (x, dx), (w, dw), (b, db) = map(_parts, (input, weight, bias))
    if dw is None:
        return NotImplemented
    moved = F.linear(x, dw, db)
    if dx is not None and moved.is_contiguous():
        moved.view(-1, moved.shape[-1]).addmm_(dx.reshape(-1, dx.shape[-1]), w.t())
    elif dx is not None:
        moved += F.linear(dx, w)
    return dual(F.linear(x, w, b), moved)


def convolution(function: Callable[..., Tensor]) -> Rule:
    """x ∗ W + b along (ẋ, Ẇ, ḃ): x ∗ Ẇ + ḃ + ẋ ∗ W."""

    def rule(input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any) -> Any:
        if not _apply(input, weight, bias):
            return NotImplemented
        (x, dx), (w, dw), (b, db) = map(_parts, (input, weight, bias))
        if dw is None:
            return NotImplemented
        moved = function(x, dw, db, *rest, **options)
        if dx is not None:
            moved += function(dx, w, None, *rest, **options)
        return dual(function(x, w, b, *rest, **options), moved)

    return rule


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """With running statistics, x̂ = (x − mean)/√(var + ε): x̂ w + b along (ẋ, ẇ, ḃ) is x̂ ẇ + ḃ + ẋ w/√(var + ε)."""
    if training or running_mean is None or running_var is None or weight is None or bias is None:
        return NotImplemented
    if not _apply(input, running_mean, running_var, weight, bias):
        return NotImplemented
    (x, dx), (w, dw), (b, db) = map(_parts, (input, weight, bias))
    still = all(_parts(one)[1] is None for one in (running_mean, running_var))
    if dw is None or db is None or not still:
        return NotImplemented
    fixed = False, momentum, eps
    moved = F.batch_norm(x, running_mean, running_var, dw, db, *fixed)
    if dx is not None:
        scale = w * (running_var + eps).rsqrt()
        moved.addcmul_(dx, scale.view(-1, *(1,) * (x.dim() - 2)))
    return dual(F.batch_norm(x, running_mean, running_var, w, b, *fixed), moved)


#: Operation → its rule.
TANGENTS: dict[Any, Rule] = {
    F.linear: linear,
    F.batch_norm: batch_norm,
    **{function: convolution(function) for function in (torch.conv1d, torch.conv2d, torch.conv3d)},
}


def _apply(*given: Tensor | None) -> bool:
    """Whether these are plain tensors of one dtype, none of which somebody differentiates by in reverse mode meanwhile."""
    tensors = [tensor for tensor in given if tensor is not None]
    plain = all(type(tensor) is Tensor or type(tensor) is torch.nn.Parameter for tensor in tensors)
    return plain and len({tensor.dtype for tensor in tensors}) == 1 and not any(t.requires_grad for t in tensors)


def _parts(tensor: Tensor | None) -> tuple[Any, Any]:
    """The tensor as it stands, and its tangent, where it has one."""
    return (None, None) if tensor is None else parts(tensor)
