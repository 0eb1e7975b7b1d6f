"""J v, three ways: forward mode, two reverse passes, or one reverse pass for each output.

The first that the model's operations admit is used; each is exact. Only the last works for everything that
autograd differentiates once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jvp
from torch.overrides import TorchFunctionMode

#: (parameters, then) → then(outputs), with the parameters in place while ``then`` runs.
Function = Callable[[Mapping[str, Tensor], Callable[[Tensor], Tensor]], Tensor]


def pushforward(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    """d/dε function(values + ε direction) at ε = 0, (n, O).

    Args:
        function: parameters by name → (n, O), handed to a continuation.
        values: where to differentiate.
        direction: a tangent for each of ``values``.
    """
    refusals = (RuntimeError, NotImplementedError)
    try:
        return _forward_mode(function, values, direction)
    except refusals:
        try:
            return _two_reverse_passes(function, values, direction)
        except refusals:
            return _row_by_row(function, values, direction)


class _NoGradMeansConstant(TorchFunctionMode):
    """Makes forward mode respect ``torch.no_grad`` blocks of the model as reverse mode does.

    By itself it looks through them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        with forward_ad._set_fwd_grad_enabled(False):
            return func(*args, **(kwargs or {}))


def _forward_mode(
    function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> Tensor:
    def watched(parameters: Mapping[str, Tensor]) -> Tensor:
        with _NoGradMeansConstant():
            return function(parameters, lambda outputs: outputs)

    with torch.enable_grad():
        pushed: Tensor = jvp(watched, (dict(values),), (dict(direction),))[1]
    return pushed.detach()


def _two_reverse_passes(
    function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> Tensor:
    """J v as d/du ⟨Jᵀu, v⟩, for operations without a forward-mode rule."""
    leaves = {k: v.detach().requires_grad_() for k, v in values.items()}

    def push(outputs: Tensor) -> Tensor:
        u = torch.zeros_like(outputs, requires_grad=True)
        if not outputs.requires_grad:
            return u.detach()
        pulled = torch.autograd.grad(outputs, list(leaves.values()), u, create_graph=True, allow_unused=True)
        along = u.sum() * 0
        for name, part in zip(leaves, pulled, strict=True):
            if part is not None:
                along = along + (part.to_dense() * direction[name]).sum()
        return torch.autograd.grad(along, u)[0].detach()

    with torch.enable_grad():
        return function(leaves, push)


def _row_by_row(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    """⟨∂f_o(x_n)/∂θ, v⟩ for each n and o, for operations that can be differentiated once only."""
    leaves = {k: v.detach().requires_grad_() for k, v in values.items()}

    def push(outputs: Tensor) -> Tensor:
        return torch.stack([along(output) for output in outputs.flatten()]).view(outputs.shape).detach()

    def along(output: Tensor) -> Tensor:
        if not output.requires_grad:
            return torch.zeros_like(output)
        rows = torch.autograd.grad(output, list(leaves.values()), retain_graph=True, allow_unused=True)
        products = [
            (row.to_dense() * direction[k]).sum()
            for k, row in zip(leaves, rows, strict=True)
            if row is not None
        ]
        return torch.stack(products).sum() if products else torch.zeros_like(output)

    with torch.enable_grad():
        return function(leaves, push)
