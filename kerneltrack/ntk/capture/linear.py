"""Linear maps: linear layers, and matrix products, einsums and bilinear forms that are one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.bias import BiasUse
from kerneltrack.ntk.capture.capture import Capture, detached, is_batched, is_weight
from kerneltrack.ntk.capture.record import Record
from kerneltrack.ntk.capture.use import Extent, Use


@dataclass(frozen=True)
class EinsumAxes:
    """A product of x and W written as an einsum.

    Letters of both operands and of the result, sample axis left out.
    """

    x: str
    weight: str
    y: str

    @property
    def group(self) -> str:
        """Axes that x, W and y share."""
        return "".join(c for c in self.weight if c in self.x and c in self.y)

    @property
    def inner(self) -> str:
        """Axes that are summed."""
        return "".join(c for c in self.weight if c in self.x and c not in self.y)

    @property
    def outer(self) -> str:
        """Axes that only W and y have."""
        return "".join(c for c in self.weight if c not in self.x)

    @property
    def token(self) -> str:
        """Axes that only x and y have: the T rows."""
        return "".join(c for c in self.x if c not in self.weight)

    @property
    def is_linear_map(self) -> bool:
        """No axis is summed in one operand alone, repeated, or made up."""
        return (
            set(self.outer) <= set(self.y)
            and set(self.token) <= set(self.y)
            and set(self.y) <= set(self.x + self.weight)
            and all(len(set(s)) == len(s) for s in (self.x, self.weight, self.y))
        )


@dataclass(eq=False)
class LinearUse(Use):
    """A linear map of rows: ∂f/∂W = Σ_t g_t ⊗ a_t.

    Attributes:
        axes: the map as an einsum.
    """

    axes: EinsumAxes

    rule = "linear"
    form = "tokens"

    def extent(self) -> Extent:
        sizes = dict(zip(self.axes.y, self.record.shape[1:], strict=True))
        groups, outer, tokens = (
            prod(sizes[c] for c in letters) for letters in (self.axes.group, self.axes.outer, self.axes.token)
        )
        return Extent(groups, outer, self.weight.numel() // (groups * outer), tokens)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        size = self.extent()
        order = [self.axes.y.index(c) + 1 for c in self.axes.group + self.axes.outer + self.axes.token]
        return gradient.permute(0, *order).reshape(gradient.shape[0], size.groups, size.outer, size.tokens)

    def input_rows(self, start: int, stop: int) -> Tensor:
        size = self.extent()
        order = [self.axes.x.index(c) + 1 for c in self.axes.group + self.axes.token + self.axes.inner]
        rows = self.record.operands[0][start:stop].permute(0, *order)
        return rows.reshape(stop - start, size.groups, size.tokens, size.inner)

    def joins(self, other: Use) -> bool:
        return isinstance(other, LinearUse) and self.roles == other.roles

    @property
    def roles(self) -> str:
        """What each axis of the weight is: "g" of a group, "o" of the output, "i" of the input."""
        axes = self.axes
        return "".join("g" if c in axes.group else "o" if c in axes.outer else "i" for c in axes.weight)

    def weight_layout(self, gradient: Tensor) -> Tensor:
        lead, letters = gradient.shape[:-3], self.axes.group + self.axes.outer + self.axes.inner
        sizes = [self.weight.shape[self.axes.weight.index(c)] for c in letters]
        order = [letters.index(c) + len(lead) for c in self.axes.weight]
        return gradient.reshape(*lead, *sizes).permute(*range(len(lead)), *order).flatten(len(lead))


_LETTERS = "abcdefghijklmnopqrstuvw"


def linear(capture: Capture, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The linear layer y = x Wᵀ + b."""
    if not is_batched(input) or is_batched(weight) or (bias is not None and is_batched(bias)):
        return NotImplemented
    y = _linear(input, detached(weight), detached(bias))
    batch = _LETTERS[: input.dim() - 1]
    axes = EinsumAxes(batch + "x", "yx" if weight.dim() == 2 else "x", batch + ("y" if weight.dim() == 2 else ""))
    return _keep_product(capture, y, input, weight, bias, axes)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b of all samples by one operation; vmap's own rule takes three, product, scaling and sum."""
    functorch: Any = torch._C._functorch
    level, axis = functorch.maybe_get_level(x), functorch.maybe_get_bdim(x)
    if bias is None or weight.dim() != 2 or level != functorch.maybe_current_level():
        return F.linear(x, weight, bias)
    rows: Tensor = functorch.get_unwrapped(x).movedim(axis, 0)
    if functorch.is_functorch_wrapped_tensor(rows):
        return F.linear(x, weight, bias)
    flat = F.linear(rows.flatten(0, -2), weight, bias)
    batched: Tensor = functorch._add_batch_dim(flat.view(*rows.shape[:-1], -1), 0, level)
    return batched


def _keep_product(
    capture: Capture, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, axes: EinsumAxes
) -> Tensor:
    """Keeps y; a transposed parameter is the parameter itself, whatever else it is used for."""
    base = weight._base
    if (
        base is not None
        and base.is_leaf
        and weight.dim() == 2
        and (base.shape, base.stride()) == (weight.shape[::-1], weight.stride()[::-1])
    ):
        weight, axes = base, replace(axes, weight=axes.weight[::-1])
    record = Record()
    uses: list[Use] = [LinearUse(record, weight, axes)]
    if bias is not None:
        uses.append(BiasUse(record, bias, tuple(axes.y.index(c) for c in axes.group + axes.outer)))
    return capture.keep(record, y, [x], uses)


def matmul(capture: Capture, input: Tensor, other: Tensor, **options: Any) -> Any:
    """The products y = x W or y = W x, for a W of one or two axes."""
    if options or is_batched(input) == is_batched(other):
        return NotImplemented
    left = is_batched(input)
    x, weight = (input, other) if left else (other, input)
    if weight.dim() > 2 or x.dim() == 0 or (x.dim() == 1 and not left and weight.dim() == 1):
        return NotImplemented
    y = torch.matmul(x, weight.detach()) if left else torch.matmul(weight.detach(), x)
    return _keep_product(capture, y, x, weight, None, _matmul_axes(x.dim(), weight.dim(), left))


def _matmul_axes(x_dim: int, weight_dim: int, left: bool) -> EinsumAxes:
    if left:
        batch = _LETTERS[: x_dim - 1]
        return EinsumAxes(batch + "x", "xy"[:weight_dim], batch + "y"[: weight_dim - 1])
    if x_dim == 1:
        return EinsumAxes("x", "yx"[2 - weight_dim :], "y"[: weight_dim - 1])
    batch = _LETTERS[: x_dim - 2]
    return EinsumAxes(batch + "xz", "yx"[2 - weight_dim :], batch + "y"[: weight_dim - 1] + "z")


def rmatmul(capture: Capture, input: Tensor, other: Tensor) -> Any:
    """The reflected operator: other @ input."""
    return matmul(capture, other, input)


def addmm(
    capture: Capture, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, **options: Any
) -> Any:
    """The sum y = b + x W, as some implementations write a linear layer."""
    if options or beta != 1 or alpha != 1 or not is_batched(mat1) or is_batched(mat2):
        return NotImplemented
    product = matmul(capture, mat1, mat2) if is_weight(mat2) else torch.matmul(mat1, mat2)
    if product is NotImplemented:
        return product
    return product + (capture.expand(input, mat1) if is_weight(input) else input)


def einsum(capture: Capture, equation: str, *operands: Any) -> Any:
    """An einsum of one per-sample operand and one weight that is a linear map of rows."""
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    text = equation.replace(" ", "") if isinstance(equation, str) else "."
    if len(tensors) != 2 or "." in text or "->" not in text or is_batched(tensors[0]) == is_batched(tensors[1]):
        return NotImplemented
    sources, y_axes = text.split("->")
    first, second = sources.split(",")
    swap = is_batched(tensors[1])
    (x, x_axes), (weight, w_axes) = (
        ((tensors[1], second), (tensors[0], first)) if swap else ((tensors[0], first), (tensors[1], second))
    )
    axes = EinsumAxes(x_axes, w_axes, y_axes)
    sizes = dict(zip(x_axes, x.shape, strict=False))
    if not axes.is_linear_map or any(sizes.get(c, n) != n for c, n in zip(w_axes, weight.shape, strict=False)):
        return NotImplemented
    y = torch.einsum(f"{x_axes},{w_axes}->{y_axes}", x, weight.detach())
    return _keep_product(capture, y, x, weight, None, axes)


def bilinear(capture: Capture, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The bilinear form y = x1ᵀ W x2 + b: a linear map of the rows x1 ⊗ x2."""
    if is_batched(weight) or (bias is not None and is_batched(bias)) or not (is_batched(input1) or is_batched(input2)):
        return NotImplemented
    rows = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    return linear(capture, rows, weight.flatten(1), bias)
