"""Rules of norms, and of PReLU: a scale and a shift become per-sample tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.capture.capture import Capture, is_weight


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
    """With running statistics: (x − mean) · (w / √(var + ε)) + b.

    The fixed scale goes into the weight's, so that the backward pass multiplies once. The mean is taken off before: of x alone
    ∂f/∂w would be a difference of two large sums where the mean is large.
    """
    statistics = [tensor for tensor in (running_mean, running_var, weight) if tensor is not None]
    if training or len(statistics) < 3 or any(tensor.dtype != input.dtype for tensor in statistics):
        y = torch.batch_norm(input, None, None, running_mean, running_var, training, momentum, eps, cudnn_enabled)
        return _affine(capture, y, weight, bias, 1)
    mean, variance, scale = statistics
    behind = input.dim() - 2
    factor = _operand(capture, scale, input, behind) * _behind((variance + eps).rsqrt(), behind)
    y = (input - _behind(mean, behind)) * factor
    return y if bias is None else y + _operand(capture, bias, y, behind)


def instance_norm(
    capture: Capture, input: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any, **options: Any
) -> Any:
    """Normalise each sample's channels, then scale and shift them."""
    return _affine(capture, torch.instance_norm(input, None, None, *rest, **options), weight, bias, 1)


def _affine(capture: Capture, y: Tensor, weight: Any, bias: Any, channel: int | None) -> Tensor:
    """y·w + b, w and b on the last axes or on the channel axis."""
    for value, apply in ((weight, torch.mul), (bias, torch.add)):
        if value is not None:
            behind = 0 if channel is None else y.dim() - channel - 1
            y = apply(y, _operand(capture, value, y, behind))
    return y


def prelu(capture: Capture, input: Tensor, weight: Tensor) -> Any:
    """Keeps x where positive, else w·x, w for each channel."""
    behind = input.dim() - 2 if weight.numel() != 1 else 0
    slope = capture.expand(weight, input, behind) if is_weight(weight) else _behind(weight, behind)
    return torch.where(input > 0, input, input * slope)


def _operand(capture: Capture, value: Tensor, like: Tensor, behind: int) -> Tensor:
    """``value`` with so many axes of size 1 behind it, and for each sample where it is a weight."""
    if is_weight(value):
        return capture.expand(value, like, behind)
    return _behind(value, behind)


def _behind(value: Tensor, behind: int) -> Tensor:
    return value.reshape(*value.shape, *(1,) * behind)
