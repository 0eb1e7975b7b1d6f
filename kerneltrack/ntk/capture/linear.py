"""Linear maps: linear layers, and bilinear forms that are one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.bias import BiasUse
from kerneltrack.ntk.capture.capture import Capture, detached, is_batched
from kerneltrack.ntk.capture.record import Record
from kerneltrack.ntk.capture.row_product import row_product
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


#: Names of axes; x, y and z are those of rows.
LETTERS = "abcdefghijklmnopqrstuvw"


def linear(capture: Capture, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The linear layer y = x Wᵀ + b."""
    if not is_batched(input) or is_batched(weight) or (bias is not None and is_batched(bias)):
        return NotImplemented
    y = _linear(capture, input, detached(weight), detached(bias))
    batch = LETTERS[: input.dim() - 1]
    axes = EinsumAxes(batch + "x", "yx" if weight.dim() == 2 else "x", batch + ("y" if weight.dim() == 2 else ""))
    return keep_product(capture, y, input, weight, bias, axes)


def _linear(capture: Capture, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b of all samples by one operation; vmap's own rule takes three, product, scaling and sum."""
    apart = capture.apart([x]) if weight.dim() == 2 and (bias is not None or capture.plain) else None
    if apart is None:
        return F.linear(x, weight, bias)
    multiply = row_product if capture.plain else F.linear
    rows = apart[0]

    def product() -> Tensor:
        if not capture.has_own_axis:
            return multiply(rows, weight, bias)
        return multiply(rows.flatten(0, -2), weight, bias).view(*rows.shape[:-1], -1)

    y: Tensor = capture.together(product)
    return y


def keep_product(
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


def bilinear(capture: Capture, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The bilinear form y = x1ᵀ W x2 + b: a linear map of the rows x1 ⊗ x2."""
    if is_batched(weight) or (bias is not None and is_batched(bias)) or not (is_batched(input1) or is_batched(input2)):
        return NotImplemented
    rows = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    capture.derive(rows, input1 if is_batched(input1) else input2, range(rows.dim()))
    return linear(capture, rows, weight.flatten(1), bias)
