"""Factors: a site's record as arrays of one form, whatever the rule was.

    gradients G: (N, O, g, e, T)      ∂f_o/∂y at the T output rows, in g groups of e channels
    inputs    A: (N, g, T, i)         the rows that the weight acted on; patches, where it is a convolution
    ∂f_o(x_n)/∂W[g, e, i] = Σ_t G[n, o, g, e, t] A[n, g, t, i]

The Gram matrix of the input rows, K = A Aᵀ, needs no arithmetic for an embedding: it is the equality of
indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.capture import ConvolutionGeometry, EinsumAxes, Site


@dataclass(frozen=True)
class Extent:
    """Sizes of one site: groups g, output channels e and input width i for each group, rows T."""

    groups: int
    outer: int
    inner: int
    tokens: int

    @property
    def features(self) -> int:
        """Entries of the weight that the site's gradient has."""
        return self.groups * self.outer * self.inner


def extent(site: Site) -> Extent:
    """The sizes of a site; read off shapes, no arithmetic on data."""
    shape, geometry = site.record.shape, site.geometry
    if site.rule == "expanded":
        return Extent(1, prod(shape[1:]), 1, 1)
    if site.rule == "embedding":
        return Extent(1, shape[-1], site.weight.shape[0], prod(shape[1:-1]))
    if isinstance(geometry, EinsumAxes):
        sizes = dict(zip(geometry.y, shape[1:], strict=True))
        rows = prod(sizes[c] for c in geometry.token)
        groups, outer = prod(sizes[c] for c in geometry.group), prod(sizes[c] for c in geometry.outer)
        if site.rule == "shift":
            return Extent(1, groups * outer, 1, rows)
        return Extent(groups, outer, site.weight.numel() // (groups * outer), rows)
    return _convolution_extent(site, geometry)


def _convolution_extent(site: Site, window: ConvolutionGeometry) -> Extent:
    dims = len(window.kernel)
    shape = site.record.shape
    channels, rows = shape[-dims - 1], prod(shape[1 : -dims - 1]) * prod(shape[-dims:])
    if site.rule == "shift":
        return Extent(1, channels, 1, rows)
    if window.transposed:
        operand = site.record.operands[0].shape
        rows, inner = (prod(operand[1 : -dims - 1]) * prod(operand[-dims:]), operand[-dims - 1] // window.groups)
        return Extent(window.groups, channels // window.groups * prod(window.kernel), inner, rows)
    return Extent(window.groups, channels // window.groups, prod(site.weight.shape[1:]), rows)


def gradient_rows(site: Site, gradient: Tensor) -> Tensor:
    """∂f_o/∂y as autograd delivers it, (N, …), as (N, g, e, T); a view wherever strides allow."""
    n, size, geometry = gradient.shape[0], extent(site), site.geometry
    if site.rule == "expanded":
        return gradient.reshape(n, 1, -1, 1)
    if site.rule == "embedding":
        return gradient.reshape(n, 1, size.tokens, size.outer).transpose(2, 3)
    if isinstance(geometry, EinsumAxes):
        order = [geometry.y.index(c) + 1 for c in geometry.group + geometry.outer + geometry.token]
        return gradient.permute(0, *order).reshape(n, size.groups, size.outer, size.tokens)
    if site.rule != "shift" and geometry.transposed:
        positions = site.record.operands[0].shape[-len(geometry.kernel) :]
        return _patches(gradient, geometry, positions).reshape(n, size.groups, size.outer, size.tokens)
    return _channels_first(gradient, len(geometry.kernel)).reshape(n, size.groups, size.outer, size.tokens)


def input_rows(site: Site, start: int, stop: int) -> Tensor:
    """A for samples start ≤ n < stop, (n, g, T, i); for an embedding the indices, (n, T)."""
    x, size, geometry = site.record.operands[0][start:stop], extent(site), site.geometry
    n = stop - start
    if site.rule == "embedding":
        return x.reshape(n, -1)
    if isinstance(geometry, EinsumAxes):
        order = [geometry.x.index(c) + 1 for c in geometry.group + geometry.token + geometry.inner]
        return x.permute(0, *order).reshape(n, size.groups, size.tokens, size.inner)
    if geometry.transposed:
        return _channels_first(x, len(geometry.kernel)).reshape(n, size.groups, size.inner, size.tokens).transpose(2, 3)
    positions = site.record.shape[-len(geometry.kernel) :]
    return _patches(x, geometry, positions).reshape(n, size.groups, size.inner, size.tokens).transpose(2, 3)


def _channels_first(x: Tensor, dims: int) -> Tensor:
    """(N, C, *S) or (N, B, C, *S) as (N, C, B·S)."""
    x = x.flatten(-dims)
    return x if x.dim() == 3 else x.transpose(1, 2).flatten(2)


def _patches(x: Tensor, window: ConvolutionGeometry, positions: torch.Size) -> Tensor:
    """(N, [B,] C, *S) → (N, C·kernel, B·positions): what the kernel sees at each position."""
    dims = len(window.kernel)
    batch = x.shape[: -dims - 1]
    x = x.flatten(0, len(batch) - 1)
    pads = [p for pair in reversed(window.padding) for p in pair]
    # The last positions of a transposed convolution with output padding look beyond the padded edge.
    for axis in range(dims):
        need = (positions[axis] - 1) * window.stride[axis] + window.dilation[axis] * (window.kernel[axis] - 1) + 1
        pads[2 * (dims - 1 - axis) + 1] += max(0, need - x.shape[2 + axis] - sum(window.padding[axis]))
    x = (F.pad(x, pads) if any(pads) else x).contiguous()
    steps = x.stride()[2:]
    strides = (
        x.stride(0),
        x.stride(1),
        *(d * s for d, s in zip(window.dilation, steps, strict=True)),
        *(k * s for k, s in zip(window.stride, steps, strict=True)),
    )
    view = x.as_strided((x.shape[0], x.shape[1], *window.kernel, *positions), strides)
    patches = view.reshape(batch[0], -1, x.shape[1] * prod(window.kernel), prod(positions))
    return patches.transpose(1, 2).flatten(2) if patches.shape[1] > 1 else patches.squeeze(1)


def weight_layout(site: Site, gradient: Tensor) -> Tensor:
    """A gradient (…, g, e, i) with its last axes in the weight's own order, flat: (…, |W|)."""
    geometry = site.geometry
    lead = gradient.shape[:-3]
    if isinstance(geometry, EinsumAxes) and site.rule == "linear":
        letters = geometry.group + geometry.outer + geometry.inner
        sizes = [site.weight.shape[geometry.weight.index(c)] for c in letters]
        order = [letters.index(c) + len(lead) for c in geometry.weight]
        return gradient.reshape(*lead, *sizes).permute(*range(len(lead)), *order).flatten(len(lead))
    if isinstance(geometry, ConvolutionGeometry) and geometry.transposed and site.rule == "convolution":
        return gradient.transpose(-1, -2).flatten(-3)
    return gradient.flatten(-3)
