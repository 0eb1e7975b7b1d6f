"""J v, three ways: forward mode, two reverse passes, or one reverse pass for each output.

The first method that the model supports is used; all are exact. Only the last works for everything that
autograd differentiates once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jvp
from torch.overrides import TorchFunctionMode

from kerneltrack.ntk.tangents import TANGENTS, dual, parts

#: f(θ, x) and J v, (n, O) each.
Pushed = tuple[Tensor, Tensor]
#: (parameters, then) → then(outputs), with the parameters in place while ``then`` runs.
Function = Callable[[Mapping[str, Tensor], Callable[[Tensor], Any]], Any]


def pushforward(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Pushed:
    """function(values) and d/dε function(values + ε direction) at ε = 0, (n, O).

    Args:
        function: parameters by name → (n, O), handed to a continuation.
        values: where to differentiate.
        direction: a tangent for each of ``values``.
    """
    try:
        return forward_mode(function, values, direction)
    except (RuntimeError, NotImplementedError):
        return reverse_mode(function, values, direction)


def reverse_mode(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Pushed:
    """The same without forward mode, which looks through what a forward pass differentiates by itself."""
    try:
        return _two_reverse_passes(function, values, direction)
    except (RuntimeError, NotImplementedError):
        return row_by_row(function, values, direction)


class _AsReverseMode(TorchFunctionMode):
    """Makes forward mode the derivative that reverse mode is.

    By itself it looks through ``torch.no_grad`` blocks, and moves the padding row of an embedding, to which
    reverse mode gives no gradient.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return _constant(func, args, kwargs)
        if func in _PADDED:
            padding, indices = _PADDED[func](*args, **kwargs)
            if padding is not None:
                still = (indices == padding).unsqueeze(-1)
                return torch.where(still, _constant(func, args, kwargs), func(*args, **kwargs))
        found = TANGENTS[func](*args, **kwargs) if func in TANGENTS else NotImplemented
        return func(*args, **kwargs) if found is NotImplemented else found


def _constant(func: Any, args: Any, kwargs: Any) -> Any:
    with forward_ad._set_fwd_grad_enabled(False):
        return func(*args, **kwargs)


def _layer_padding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *_: Any, **__: Any
) -> tuple[int | None, Tensor]:
    return None if padding_idx is None else padding_idx % weight.shape[0], input


def _table_padding(weight: Tensor, indices: Tensor, padding_idx: int = -1, *_: Any) -> tuple[int | None, Tensor]:
    return None if padding_idx < 0 else padding_idx, indices


#: Lookups with a padding row → how to read it and the indices off the arguments.
_PADDED: dict[Any, Callable[..., tuple[int | None, Tensor]]] = {
    F.embedding: _layer_padding,
    torch.embedding: _table_padding,
}


def forward_mode(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Pushed:
    """Both by dual numbers, made the derivative that reverse mode is.

    torch.func.jvp begins by scripting ten decompositions, a quarter of a second of a process. Few operations need them, so it is
    asked where dual numbers alone do not do, and by whoever comes after that.
    """

    def watched(parameters: Mapping[str, Tensor]) -> Any:
        with _AsReverseMode():
            return function(parameters, lambda outputs: outputs)

    with torch.enable_grad():
        if _DECOMPOSITIONS not in sys.modules:
            try:
                return _by_dual_numbers(watched, values, direction)
            except (RuntimeError, NotImplementedError):
                pass  # an operation that wants them, or a forward pass that has such a transform itself
        outputs, pushed = jvp(watched, (dict(values),), (dict(direction),))[:2]
    return outputs.detach(), pushed.detach()


#: What torch.func.jvp imports.
_DECOMPOSITIONS = "torch._decomp.decompositions_for_jvp"


def _by_dual_numbers(
    function: Callable[[Mapping[str, Tensor]], Tensor], values: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> Pushed:
    # Inside an autograd.Function, as of kt.linearize, torch switches forward mode off, and no tangent would come out.
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        outputs, pushed = parts(function({name: dual(v, direction[name]) for name, v in values.items()}))
        return outputs.detach(), torch.zeros_like(outputs) if pushed is None else pushed.detach()


def _two_reverse_passes(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Pushed:
    """J v as d/du ⟨Jᵀu, v⟩, for operations without a forward-mode rule."""
    leaves = {k: v.detach().requires_grad_() for k, v in values.items()}

    def push(outputs: Tensor) -> Pushed:
        u = torch.zeros_like(outputs, requires_grad=True)
        if not outputs.requires_grad:
            return outputs.detach(), u.detach()
        pulled = torch.autograd.grad(outputs, list(leaves.values()), u, create_graph=True, allow_unused=True)
        along = u.sum() * 0
        for name, part in zip(leaves, pulled, strict=True):
            if part is not None:
                along = along + (part.to_dense() * direction[name]).sum()
        return outputs.detach(), torch.autograd.grad(along, u)[0].detach()

    with torch.enable_grad():
        found: Pushed = function(leaves, push)
    return found


def row_by_row(function: Function, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Pushed:
    """⟨∂f_o(x_n)/∂θ, v⟩ for each n and o, for operations that can be differentiated once only.

    ``values`` that require grad are differentiated by as they are, with the hooks on them.
    """
    leaves = {k: v if v.requires_grad else v.detach().requires_grad_() for k, v in values.items()}

    def push(outputs: Tensor) -> Pushed:
        rows = torch.stack([along(output) for output in outputs.flatten()]).view(outputs.shape)
        return outputs.detach(), rows.detach()

    def along(output: Tensor) -> Tensor:
        if not output.requires_grad:
            return torch.zeros_like(output)
        rows = torch.autograd.grad(output, list(leaves.values()), retain_graph=True, allow_unused=True)
        products = [
            (row.to_dense() * direction[k]).sum() for k, row in zip(leaves, rows, strict=True) if row is not None
        ]
        return torch.stack(products).sum() if products else torch.zeros_like(output)

    with torch.enable_grad():
        found: Pushed = function(leaves, push)
    return found
