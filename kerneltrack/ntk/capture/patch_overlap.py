"""Overlaps of a convolution's patches, made of overlaps of pixels.

Neighbouring patches share pixels. With P[nu, mv] = Σ_c x_ncu x_mcv, u and v pixels, and a kernel that moves by one pixel,

    K[nt, ms] = Σ_τ P[n(t+τ), m(s+τ)],      τ the kernel's taps

which multiplies c numbers for each pair of pixels, where patches multiply c·|τ| for each pair of positions. The sum over taps
is one sum after the other along each axis: of a 3×3 kernel 6 additions, not 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

#: How long one addition takes beside one multiply-add of a large product: fitted on one core to 64 to 512 channels of 4×4 to
#: 16×16 pixels.
_ADDITION = 24


def pays(channels: int, kernel: Sequence[int], pixels: int, positions: int) -> bool:
    """Whether pixels take less than patches: products of pixels, one sum for each tap of an axis, and two copies."""
    by_pixels = pixels**2 * (channels + _ADDITION * (sum(kernel) + 2))
    return by_pixels < positions**2 * channels * prod(kernel)


def patch_overlaps(
    left: Tensor, right: Tensor, offsets: Sequence[Sequence[int]], positions: Sequence[int], groups: int
) -> Tensor:
    """K of samples with samples, (n, g, B·T, m, B·T).

    Args:
        left: images (n, B, g·c, *S).
        right: images (m, B, g·c, *S).
        offsets: for each axis of S, where its taps look from position 0; outside of the image are zeros.
        positions: T, how many there are along each axis.
        groups: g.
    """
    dims, (n, batch), m = len(positions), left.shape[:2], right.shape[0]
    rows, columns = _pixels_first(left, groups), _pixels_first(right, groups)
    # Samples last: what is added lies side by side, whatever the axis.
    overlaps = torch.bmm(rows, columns.transpose(1, 2)).view(groups, *left.shape[3:], batch * n, *right.shape[3:], -1)
    for axis, (taps, count) in enumerate(zip(offsets, positions, strict=True)):
        overlaps = _summed(overlaps, (1 + axis, 2 + dims + axis), taps, count)
    tokens = prod(positions)
    overlaps = overlaps.view(groups, tokens, batch, n, tokens, batch, m).permute(3, 0, 2, 1, 6, 5, 4)
    return overlaps.reshape(n, groups, batch * tokens, m, batch * tokens)


def _pixels_first(images: Tensor, groups: int) -> Tensor:
    """(n, B, g·c, *S) as (g, S·B·n, c)."""
    n, batch, channels = images.shape[:3]
    parts = images.reshape(n, batch, groups, channels // groups, -1)
    return parts.permute(2, 4, 1, 0, 3).reshape(groups, -1, channels // groups)


def _summed(overlaps: Tensor, axes: tuple[int, int], taps: Sequence[int], count: int) -> Tensor:
    """Along both axes S → T: Σ over taps δ of what lies at (t + δ, s + δ), zero outside."""
    size = overlaps.shape[axes[0]]
    if list(taps) == [0]:
        return overlaps
    shape = list(overlaps.shape)
    shape[axes[0]] = shape[axes[1]] = count
    total = overlaps.new_zeros(shape)
    for tap in taps:
        start, stop = max(0, -tap), min(count, size - tap)
        if start < stop:
            into, part = total, overlaps
            for axis in axes:
                into, part = into.narrow(axis, start, stop - start), part.narrow(axis, start + tap, stop - start)
            into.add_(part)
    return total
