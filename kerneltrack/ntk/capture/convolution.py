"""Convolutions: linear maps of patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture.bias import BiasUse
from kerneltrack.ntk.capture.capture import Capture, Rule, detached, is_batched, is_weight
from kerneltrack.ntk.capture.patch_overlap import patch_overlaps, pays
from kerneltrack.ntk.capture.record import Record
from kerneltrack.ntk.capture.use import Extent, Use, row_overlaps


@dataclass(frozen=True)
class ConvolutionGeometry:
    """A convolution's geometry: the kernel's extent, and how it slides."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def dims(self) -> int:
        """How many axes the kernel slides along."""
        return len(self.kernel)

    @property
    def offsets(self) -> list[list[int]]:
        """For each axis, where the taps look from position 0; below 0 is padding."""
        axes = zip(self.kernel, self.dilation, self.padding, strict=True)
        return [[tap * step - before for tap in range(taps)] for taps, step, (before, _) in axes]


@dataclass(eq=False)
class ConvolutionUse(Use):
    """A convolution: its input rows are patches of x.

    Attributes:
        geometry: how the kernel slides.
    """

    geometry: ConvolutionGeometry

    rule = "convolution"
    form = "tokens"

    def extent(self) -> Extent:
        channels, tokens = _channels_and_positions(self.record.shape, self.geometry.dims)
        return Extent(self.geometry.groups, channels // self.geometry.groups, prod(self.weight.shape[1:]), tokens)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        size = self.extent()
        rows = _channels_first(gradient, self.geometry.dims)
        return rows.reshape(gradient.shape[0], size.groups, size.outer, size.tokens)

    def input_rows(self, start: int, stop: int) -> Tensor:
        return self.input_rows_in(start, stop, None)

    def input_rows_in(self, start: int, stop: int, room: Tensor | None) -> Tensor:
        size, positions = self.extent(), self.record.shape[-self.geometry.dims :]
        patches = _patches(self.record.operands[0][start:stop], self.geometry, positions, room)
        return patches.reshape(stop - start, size.groups, size.inner, size.tokens).transpose(2, 3)

    def joins(self, other: Use) -> bool:
        """Each use may slide in its own way: patches are rows of the same map."""
        return type(other) is type(self) and other.geometry.groups == self.geometry.groups

    def copied_inputs(self) -> int:
        return self.extent().inputs

    def overlap_rows(self, start: int, stop: int) -> Tensor:
        if not self._overlaps_by_pixels():
            return self.input_rows(start, stop)
        images = self.record.operands[0][start:stop]
        return images if images.dim() == self.geometry.dims + 3 else images.unsqueeze(1)

    def overlaps(self, left: Tensor, right: Tensor) -> Tensor:
        if not self._overlaps_by_pixels():
            return row_overlaps(left, right)
        positions = self.record.shape[-self.geometry.dims :]
        return patch_overlaps(left, right, self.geometry.offsets, positions, self.geometry.groups)

    def pixel_work(self) -> tuple[int, int]:
        if not self._overlaps_by_pixels():
            return 0, 0
        channels, pixels = _channels_and_positions(self.record.operands[0].shape, self.geometry.dims)
        return pixels**2 * channels, pixels**2 * self.geometry.groups * sum(self.geometry.kernel)

    def _overlaps_by_pixels(self) -> bool:
        """Whether K takes less by way of pixels: where the kernel moves by one, and patches share them."""
        geometry = self.geometry
        if any(step != 1 for step in geometry.stride) or prod(geometry.kernel) == 1:
            return False
        channels, pixels = _channels_and_positions(self.record.operands[0].shape, geometry.dims)
        return pays(channels // geometry.groups, geometry.kernel, pixels, self.extent().tokens)


class TransposedConvolutionUse(ConvolutionUse):
    """A transposed convolution: the patches are of the gradient, at the positions of x."""

    def _overlaps_by_pixels(self) -> bool:
        return False

    def extent(self) -> Extent:
        geometry, (channels, _) = self.geometry, _channels_and_positions(self.record.shape, self.geometry.dims)
        inner, tokens = _channels_and_positions(self.record.operands[0].shape, geometry.dims)
        outer = channels // geometry.groups * prod(geometry.kernel)
        return Extent(geometry.groups, outer, inner // geometry.groups, tokens)

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        size, positions = self.extent(), self.record.operands[0].shape[-self.geometry.dims :]
        patches = _patches(gradient, self.geometry, positions)
        return patches.reshape(gradient.shape[0], size.groups, size.outer, size.tokens)

    def input_rows_in(self, start: int, stop: int, room: Tensor | None) -> Tensor:
        size = self.extent()
        rows = _channels_first(self.record.operands[0][start:stop], self.geometry.dims)
        return rows.reshape(stop - start, size.groups, size.inner, size.tokens).transpose(2, 3)

    def weight_layout(self, gradient: Tensor) -> Tensor:
        return gradient.transpose(-1, -2).flatten(-3)


def _channels_and_positions(shape: torch.Size, dims: int) -> tuple[int, int]:
    """C and B·S of (N, C, *S) or (N, B, C, *S)."""
    return shape[-dims - 1], prod(shape[1 : -dims - 1]) * prod(shape[-dims:])


def _channels_first(x: Tensor, dims: int) -> Tensor:
    """(N, C, *S) or (N, B, C, *S) as (N, C, B·S)."""
    x = x.flatten(-dims)
    return x if x.dim() == 3 else x.transpose(1, 2).flatten(2)


def _patches(x: Tensor, geometry: ConvolutionGeometry, positions: torch.Size, room: Tensor | None = None) -> Tensor:
    """(N, [B,] C, *S) → (N, C·kernel, B·positions): what the kernel sees at each position; in ``room`` where that is given."""
    dims = geometry.dims
    batch = x.shape[: -dims - 1]
    x = x.flatten(0, len(batch) - 1)
    pads = [p for pair in reversed(geometry.padding) for p in pair]
    # The last positions of a transposed convolution with output padding look beyond the padded edge.
    for axis in range(dims):
        need = (positions[axis] - 1) * geometry.stride[axis] + geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1
        pads[2 * (dims - 1 - axis) + 1] += max(0, need - x.shape[2 + axis] - sum(geometry.padding[axis]))
    x = (F.pad(x, pads) if any(pads) else x).contiguous()
    steps = x.stride()[2:]
    strides = (
        x.stride(0),
        x.stride(1),
        *(d * s for d, s in zip(geometry.dilation, steps, strict=True)),
        *(k * s for k, s in zip(geometry.stride, steps, strict=True)),
    )
    view = x.as_strided((x.shape[0], x.shape[1], *geometry.kernel, *positions), strides)
    if room is not None and prod(geometry.kernel) > 1:
        view = room[: view.numel()].view(view.shape).copy_(view)
    patches = view.reshape(batch[0], -1, x.shape[1] * prod(geometry.kernel), prod(positions))
    return patches.transpose(1, 2).flatten(2) if patches.shape[1] > 1 else patches.squeeze(1)


def convolution(dims: int, transposed: bool) -> Rule:
    """The rule of torch's convolution along so many axes."""
    kind = TransposedConvolutionUse if transposed else ConvolutionUse
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
        geometry = _geometry(dims, weight, stride, padding, options.get("dilation", 1), options.get("groups", 1))
        y = convolve(input, detached(weight), detached(bias), stride, padding, **options)
        channels, record = (y.dim() - dims - 1,), Record()
        if transposed and is_weight(bias):  # its weight wants patches of the gradient, its bias the gradient itself
            y, bias = capture.keep(record, y, [input], [BiasUse(record, bias, channels)]), None
            record = Record()
        uses: list[Use] = [kind(record, weight, geometry)] if is_weight(weight) else []
        uses += [BiasUse(record, bias, channels)] if is_weight(bias) else []
        return capture.keep(record, y, [input], uses) if uses else y

    rule.__doc__ = f"The {dims}-dimensional {'transposed ' if transposed else ''}convolution: a linear map of patches."
    return rule


def _geometry(dims: int, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> ConvolutionGeometry:
    kernel = tuple(weight.shape[2:])
    dilation = _per_axis(dilation, dims)
    if padding == "valid":
        pads = ((0, 0),) * dims
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    else:
        pads = tuple((p, p) for p in _per_axis(padding, dims))
    return ConvolutionGeometry(kernel, _per_axis(stride, dims), pads, dilation, groups)


def _per_axis(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(int(v) for v in (values * dims if len(values) == 1 else values))
