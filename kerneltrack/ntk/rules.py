"""Rules: which torch functions have a structured derivative by their weight.

Each rule also says how a call is recorded.

Every rule here reduces to one form. With T rows per sample, input rows a_t and gradients g_t at the output
rows,

    ∂f/∂W = Σ_t g_t ⊗ a_t          ("tokens": linear maps, convolutions as linear maps on patches, bilinear
    forms) ∂f/∂E[v] = Σ_{t: id_t = v} g_t  ("lookup": embeddings)
    ∂f/∂b = Σ_t g_t                 ("shift": biases)

Whatever is not listed becomes "expanded": the weight is repeated for every sample and autograd forms ∂f_n/∂W
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture import Capture, Rule, detached, is_batched, is_weight
from kerneltrack.ntk.tables import embedding, embedding_bag


@dataclass(frozen=True)
class Axes:
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


@dataclass(frozen=True)
class Window:
    """A convolution's geometry: the kernel's extent, and how it slides."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False


_LETTERS = "abcdefghijklmnopqrstuvw"


def linear(capture: Capture, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The linear layer y = x Wᵀ + b."""
    if not is_batched(input) or is_batched(weight) or (bias is not None and is_batched(bias)):
        return NotImplemented
    y = F.linear(input, detached(weight), detached(bias))
    batch = _LETTERS[: input.dim() - 1]
    axes = Axes(batch + "x", "yx" if weight.dim() == 2 else "x", batch + ("y" if weight.dim() == 2 else ""))
    return _keep_product(capture, y, input, weight, bias, axes)


def _keep_product(
    capture: Capture, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, axes: Axes
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
    return capture.keep("linear", y, [x], weight, bias, axes)


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


def _matmul_axes(x_dim: int, weight_dim: int, left: bool) -> Axes:
    if left:
        batch = _LETTERS[: x_dim - 1]
        return Axes(batch + "x", "xy"[:weight_dim], batch + "y"[: weight_dim - 1])
    if x_dim == 1:
        return Axes("x", "yx"[2 - weight_dim :], "y"[: weight_dim - 1])
    batch = _LETTERS[: x_dim - 2]
    return Axes(batch + "xz", "yx"[2 - weight_dim :], batch + "y"[: weight_dim - 1] + "z")


def rmatmul(capture: Capture, input: Tensor, other: Tensor) -> Any:
    """The reflected operator: other @ input."""
    return matmul(capture, other, input)


def addmm(
    capture: Capture,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
    **options: Any,
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
    tensors = (
        list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    )
    text = equation.replace(" ", "") if isinstance(equation, str) else "."
    if (
        len(tensors) != 2
        or "." in text
        or "->" not in text
        or is_batched(tensors[0]) == is_batched(tensors[1])
    ):
        return NotImplemented
    sources, y_axes = text.split("->")
    first, second = sources.split(",")
    swap = is_batched(tensors[1])
    (x, x_axes), (weight, w_axes) = (
        ((tensors[1], second), (tensors[0], first)) if swap else ((tensors[0], first), (tensors[1], second))
    )
    axes = Axes(x_axes, w_axes, y_axes)
    sizes = dict(zip(x_axes, x.shape, strict=False)) | {}
    if not axes.is_linear_map or any(
        sizes.get(c, n) != n for c, n in zip(w_axes, weight.shape, strict=False)
    ):
        return NotImplemented
    y = torch.einsum(f"{x_axes},{w_axes}->{y_axes}", x, weight.detach())
    return _keep_product(capture, y, x, weight, None, axes)


def bilinear(
    capture: Capture, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    """The bilinear form y = x1ᵀ W x2 + b: a linear map of the rows x1 ⊗ x2."""
    if (
        is_batched(weight)
        or (bias is not None and is_batched(bias))
        or not (is_batched(input1) or is_batched(input2))
    ):
        return NotImplemented
    rows = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    return linear(capture, rows, weight.flatten(1), bias)


def _convolution(dims: int, transposed: bool) -> Rule:
    convolve: Callable[..., Tensor] = getattr(
        torch, f"conv_transpose{dims}d" if transposed else f"conv{dims}d"
    )

    def rule(
        capture: Capture,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        *rest: Any,
        **options: Any,
    ) -> Any:
        if not is_batched(input) or is_batched(weight) or (bias is not None and is_batched(bias)):
            return NotImplemented
        names = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
        options = dict(zip(names, rest, strict=False)) | options
        window = _window(
            dims, weight, stride, padding, options.get("dilation", 1), options.get("groups", 1), transposed
        )
        y = convolve(input, detached(weight), detached(bias), stride, padding, **options)
        if transposed and is_weight(
            bias
        ):  # its weight wants patches of the gradient, its bias the gradient itself
            y, bias = capture.keep("shift", y, [input], None, bias, window), None
        return (
            capture.keep("convolution", y, [input], weight, bias, window)
            if is_weight(weight) or is_weight(bias)
            else y
        )

    rule.__doc__ = (
        f"The {dims}-dimensional {'transposed ' if transposed else ''}convolution: a linear map of patches."
    )
    return rule


def _window(
    dims: int, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool
) -> Window:
    kernel = tuple(weight.shape[2:])
    dilation = _per_axis(dilation, dims)
    if padding == "valid":
        pads = ((0, 0),) * dims
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _per_axis(padding, dims))
    return Window(kernel, _per_axis(stride, dims), pads, dilation, groups, transposed)


def _per_axis(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(v) for v in (values * dims if len(values) == 1 else values))


def layer_norm(
    capture: Capture,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """Normalise, then scale and shift."""
    y = torch.layer_norm(input, normalized_shape, None, None, eps, cudnn_enable)
    return _affine(capture, y, weight, bias, None)


def rms_norm(
    capture: Capture,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """Normalise, then scale."""
    return _affine(capture, torch.rms_norm(input, normalized_shape, None, eps), weight, None, None)


def group_norm(
    capture: Capture,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Normalise, then scale and shift each channel."""
    return _affine(
        capture, torch.group_norm(input, num_groups, None, None, eps, cudnn_enabled), weight, bias, 1
    )


def batch_norm(
    capture: Capture,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """With running statistics: a fixed scale and shift, then the trainable ones."""
    y = torch.batch_norm(input, None, None, running_mean, running_var, training, momentum, eps, cudnn_enabled)
    return _affine(capture, y, weight, bias, 1)


def instance_norm(
    capture: Capture, input: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any, **options: Any
) -> Any:
    """Normalise each sample's channels, then scale and shift them."""
    return _affine(capture, torch.instance_norm(input, None, None, *rest, **options), weight, bias, 1)


def _affine(capture: Capture, y: Tensor, weight: Any, bias: Any, channel: int | None) -> Tensor:
    """y·w + b, w and b on the last axes or on the channel axis."""
    for value, apply in ((weight, torch.mul), (bias, torch.add)):
        if value is not None:
            operand = capture.expand(value, y) if is_weight(value) else value
            if channel is not None:
                operand = operand.reshape(-1, *(1,) * (y.dim() - channel - 1))
            y = apply(y, operand)
    return y


def prelu(capture: Capture, input: Tensor, weight: Tensor) -> Any:
    """Keeps x where positive, else w·x, w for each channel."""
    slope = capture.expand(weight, input) if is_weight(weight) else weight
    if slope.numel() != 1:
        slope = slope.reshape(-1, *(1,) * (input.dim() - 2))
    return torch.where(input > 0, input, input * slope)


#: Where torch keeps what its Python wrappers call; the stubs do not list all of it.
_VARIABLE_FUNCTIONS: Any = torch._C._VariableFunctions

RULES: dict[Any, Rule] = {
    torch._C._nn.linear: linear,
    torch.matmul: matmul,
    Tensor.matmul: matmul,
    Tensor.__matmul__: matmul,
    Tensor.__rmatmul__: rmatmul,
    torch.mm: matmul,
    Tensor.mm: matmul,
    torch.mv: matmul,
    Tensor.mv: matmul,
    torch.addmm: addmm,
    Tensor.addmm: addmm,
    _VARIABLE_FUNCTIONS.einsum: einsum,
    torch.bilinear: bilinear,
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
    torch.group_norm: group_norm,
    torch.batch_norm: batch_norm,
    torch.instance_norm: instance_norm,
    torch.prelu: prelu,
    torch.embedding: embedding,
    torch.embedding_bag: embedding_bag,
    **{getattr(torch, f"conv{d}d"): _convolution(d, False) for d in (1, 2, 3)},
    **{getattr(torch, f"conv_transpose{d}d"): _convolution(d, True) for d in (1, 2, 3)},
}
