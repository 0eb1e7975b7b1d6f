"""Products of a weight and per-sample values that are linear maps of rows: matrix products, einsums, tensordot.

Each is written as an einsum of x and W. An axis that one of the two broadcasts along is one that only the other has.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, is_batched, is_weight
from kerneltrack.ntk.capture.linear import LETTERS, EinsumAxes, keep_product
from kerneltrack.ntk.capture.row_product import row_product


def matmul(capture: Capture, input: Tensor, other: Tensor, **options: Any) -> Any:
    """The products y = x W or y = W x, for a W of any number of axes."""
    if options or is_batched(input) == is_batched(other):
        return NotImplemented
    left = is_batched(input)
    x, weight = (input, other) if left else (other, input)
    if x.dim() == 0 or (x.dim() == 1 and not left and weight.dim() == 1):
        return NotImplemented
    y = _times(capture, x, weight.detach()) if left else torch.matmul(weight.detach(), x)
    if weight.dim() <= 2:
        return keep_product(capture, y, x, weight, None, _matmul_axes(x.dim(), weight.dim(), left))
    if x.dim() == 1:
        return _keep_broadcast(capture, y, x, weight, EinsumAxes("x", "xy" if left else "yx", "y"))
    last = EinsumAxes("zx", "xy", "zy") if left else EinsumAxes("xz", "yx", "yz")
    return _keep_broadcast(capture, y, x, weight, last)


def _times(capture: Capture, x: Tensor, weight: Tensor) -> Tensor:
    """x W of all samples."""
    apart = capture.apart([x]) if capture.plain and weight.dim() == 2 and x.dim() > 1 else None
    if apart is None:
        return torch.matmul(x, weight)
    y: Tensor = capture.together(lambda: row_product(apart[0], weight.mT))
    return y


def _matmul_axes(x_dim: int, weight_dim: int, left: bool) -> EinsumAxes:
    if left:
        batch = LETTERS[: x_dim - 1]
        return EinsumAxes(batch + "x", "xy"[:weight_dim], batch + "y"[: weight_dim - 1])
    if x_dim == 1:
        return EinsumAxes("x", "yx"[2 - weight_dim :], "y"[: weight_dim - 1])
    batch = LETTERS[: x_dim - 2]
    return EinsumAxes(batch + "xz", "yx"[2 - weight_dim :], batch + "y"[: weight_dim - 1] + "z")


def rmatmul(capture: Capture, input: Tensor, other: Tensor) -> Any:
    """The reflected operator: other @ input."""
    return matmul(capture, other, input)


def addmm(
    capture: Capture, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, **options: Any
) -> Any:
    """The sum y = b + x W, as some implementations write a linear layer; ``baddbmm`` is that of many."""
    if options or beta != 1 or alpha != 1 or not (is_batched(mat1) or is_batched(mat2)):
        return NotImplemented
    product = matmul(capture, mat1, mat2) if is_weight(mat1) or is_weight(mat2) else torch.matmul(mat1, mat2)
    if product is NotImplemented:
        return product
    return product + (capture.expand(input, product) if is_weight(input) else input)


def _keep_broadcast(capture: Capture, y: Tensor, x: Tensor, weight: Tensor, last: EinsumAxes) -> Any:
    """Keeps a product of many matrices, the ``last`` axes of which are named; the first ones broadcast."""
    of_x, of_weight = x.shape[: x.dim() - len(last.x)], weight.shape[: weight.dim() - len(last.weight)]
    total = max(len(of_x), len(of_weight))
    own_x, own_w, dropped_x, dropped_w = "", "", list[int](), list[int]()
    for place, letter in enumerate(LETTERS[:total]):
        i, j = place - total + len(of_x), place - total + len(of_weight)
        only_x = i >= 0 and (j < 0 or of_weight[j] == 1)
        only_w = not only_x and (i < 0 or of_x[i] == 1)
        own_x, own_w = own_x + letter * (not only_w), own_w + letter * (not only_x)
        dropped_x += [i] * (only_w and i >= 0)
        dropped_w += [j] * (only_x and j >= 0)
    rows = x.squeeze(dropped_x) if dropped_x else x
    if dropped_x:
        capture.derive(rows, x, [i for i in range(x.dim()) if i not in dropped_x])
    axes = EinsumAxes(own_x + last.x, own_w + last.weight, LETTERS[:total] + last.y)
    return keep_product(capture, y, rows, weight.squeeze(dropped_w) if dropped_w else weight, None, axes)


def tensordot(capture: Capture, a: Tensor, b: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Any:
    """Sums over some axes of both; the others stand side by side."""
    if is_batched(a) == is_batched(b):
        return NotImplemented
    names_a, names_b = list(string.ascii_lowercase[: a.dim()]), list(string.ascii_uppercase[: b.dim()])
    for i, j in zip(dims_self, dims_other, strict=True):
        names_b[j] = names_a[i]
    y = "".join(c for c in names_a if c not in names_b) + "".join(c for c in names_b if c not in names_a)
    return einsum(capture, f"{''.join(names_a)},{''.join(names_b)}->{y}", a, b)


def einsum(capture: Capture, equation: str, *operands: Any) -> Any:
    """An einsum of one per-sample operand and one weight that is a linear map of rows."""
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    if len(tensors) != 2 or not isinstance(equation, str) or is_batched(tensors[0]) == is_batched(tensors[1]):
        return NotImplemented
    sources, y_axes = _spelt_out(equation.replace(" ", ""), [tensor.dim() for tensor in tensors])
    if [len(source) for source in sources] != [tensor.dim() for tensor in tensors]:
        return NotImplemented
    order = slice(None, None, -1) if is_batched(tensors[1]) else slice(None)
    (x, weight), (x_axes, w_axes) = tensors[order], sources[order]
    axes = EinsumAxes(x_axes, w_axes, y_axes)
    sizes = dict(zip(x_axes, x.shape, strict=True))
    if not axes.is_linear_map or any(sizes.get(c, n) != n for c, n in zip(w_axes, weight.shape, strict=True)):
        return NotImplemented
    y = torch.einsum(f"{x_axes},{w_axes}->{y_axes}", x, weight.detach())
    return keep_product(capture, y, x, weight, None, axes)


def _spelt_out(text: str, dims: Sequence[int]) -> tuple[list[str], str]:
    """The letters of the operands and of the result, those that an ellipsis stands for and an implicit result included."""
    left, arrow, right = text.partition("->")
    given = left.split(",")
    widths = [dim - len(source) + 3 if "..." in source else 0 for source, dim in zip(given, dims, strict=False)]
    names = "".join(c for c in string.ascii_letters if c not in text)[: max(0, *widths)]
    sources = [source.replace("...", names[len(names) - width :]) for source, width in zip(given, widths, strict=False)]
    letters = left.replace("...", "").replace(",", "")
    once = "".join(c for c in sorted(letters) if letters.count(c) == 1)
    return sources, right.replace("...", names) if arrow else names + once
