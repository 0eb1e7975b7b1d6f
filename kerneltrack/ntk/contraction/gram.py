"""Contraction orders: from inputs A and gradients G of two blocks of samples to their part of Θ.

For one weight, with T rows per sample (Novak et al. 2022, section 3; the names are ours):

    gradient   F_no = Σ_t g_not ⊗ a_nt, then F Fᵀ: per-sample gradients in slices, one matrix product each
    token      T = 1:  Θ[no, mp] = (a_n · a_m)(g_no · g_mp), tile by tile, all layers while the tile is in
    cache hybrid     T > 1:  Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),  K = A Aᵀ

Only entries on and above the diagonal are computed when both blocks are the same; :func:`mirror` fills the
rest at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: Rows of the smallest square on the diagonal of a symmetric product, computed whole. Smaller squares waste
#: less below the diagonal, larger ones multiply faster. On CPUs, 40 to 160 measured at 640 and 2,560 rows, 80
#: best: 0.85 of the rate of a rectangular product, where panels of 128 rows gave 0.75. On accelerators every
#: product is a launch; 512 is an estimate.
SQUARE = {"cpu": 80}
SQUARE_ELSEWHERE = 512

#: Columns of per-sample gradients in one pass over theta: what some hundred rows of them need of a core's cache.
DEPTH = 4096

#: A small product leaves a core idle; its depth is split into products of so many columns, one batch. Measured
#: with 64 to 640 rows: up to a fifth faster. Larger products keep all cores busy by themselves.
SPLIT, SPLIT_ROWS = 1024, 640


def upper_blocks(start: int, stop: int, square: int) -> Iterator[tuple[slice, slice]]:
    """Blocks that cover the upper triangle of rows start ≤ r < stop once.

    Halved recursively, so that most of the work is in few large products.
    """
    if stop - start <= square:
        yield slice(start, stop), slice(start, stop)
        return
    middle = (start + stop + 1) // 2
    yield slice(start, middle), slice(middle, stop)
    yield from upper_blocks(start, middle, square)
    yield from upper_blocks(middle, stop, square)


def add_gram(theta: Tensor, left: Tensor, right: Tensor, same: bool, scale: float = 1.0) -> None:
    """Adds to theta (r1, r2): scale · left rightᵀ, the upper triangle only if both sides are the same."""
    square = SQUARE.get(theta.device.type, SQUARE_ELSEWHERE)
    blocks = list(upper_blocks(0, theta.shape[0], square)) if same else [(slice(None), slice(None))]
    for start in range(0, left.shape[1], DEPTH):
        ours, theirs = left[:, start : start + DEPTH], right[:, start : start + DEPTH]
        for rows, columns in blocks:
            _add_product(theta[rows, columns], ours[rows], theirs[columns], scale)


def _add_product(block: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    parts = left.shape[1] // SPLIT
    if parts < 2 or left.shape[1] % SPLIT or max(block.shape) > SPLIT_ROWS or block.device.type != "cpu":
        block.addmm_(left, right.T, alpha=scale)
        return
    ours, theirs = (side.view(-1, parts, SPLIT).transpose(0, 1) for side in (left, right))
    block.add_(torch.bmm(ours, theirs.transpose(1, 2)).sum(0), alpha=scale)


def mirror(theta: Tensor) -> None:
    """Copies what is above the diagonal of each plane below it."""
    size = 512
    for plane in theta:
        for start in range(0, plane.shape[0], size):
            stop = start + size
            block = plane[start:stop, start:stop]
            block.copy_(block.triu() + block.triu(1).T)
            plane[stop:, start:stop] = plane[start:stop, stop:].T
