"""Rules of convolutions: linear maps of patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, Rule, detached, is_batched, is_weight


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
