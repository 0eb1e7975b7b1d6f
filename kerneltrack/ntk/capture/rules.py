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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, Rule, detached, is_batched, is_weight
from kerneltrack.ntk.capture.embedding import embedding, embedding_bag
from kerneltrack.ntk.capture.linear import addmm, bilinear, einsum, linear, matmul, rmatmul
from kerneltrack.ntk.capture.recurrent import RECURRENT


@dataclass(frozen=True)
class ConvolutionGeometry:
    """A convolution's geometry: the kernel's extent, and how it slides."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False


def _convolution(dims: int, transposed: bool) -> Rule:
    convolve: Callable[..., Tensor] = getattr(torch, f"conv_transpose{dims}d" if transposed else f"conv{dims}d")

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
        if transposed and is_weight(bias):  # its weight wants patches of the gradient, its bias the gradient itself
            y, bias = capture.keep("shift", y, [input], None, bias, window), None
        return (
            capture.keep("convolution", y, [input], weight, bias, window) if is_weight(weight) or is_weight(bias) else y
        )

    rule.__doc__ = f"The {dims}-dimensional {'transposed ' if transposed else ''}convolution: a linear map of patches."
    return rule


def _window(
    dims: int, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool
) -> ConvolutionGeometry:
    kernel = tuple(weight.shape[2:])
    dilation = _per_axis(dilation, dims)
    if padding == "valid":
        pads = ((0, 0),) * dims
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _per_axis(padding, dims))
    return ConvolutionGeometry(kernel, _per_axis(stride, dims), pads, dilation, groups, transposed)


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
    capture: Capture, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
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
    return _affine(capture, torch.group_norm(input, num_groups, None, None, eps, cudnn_enabled), weight, bias, 1)


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
    **RECURRENT,
    **{getattr(torch, f"conv{d}d"): _convolution(d, False) for d in (1, 2, 3)},
    **{getattr(torch, f"conv_transpose{d}d"): _convolution(d, True) for d in (1, 2, 3)},
}
