"""Gram products of per-sample gradients, and the triangle of a symmetric kernel.

Only entries on and above the diagonal are computed when both blocks are the same; :func:`mirror` fills the rest at the
end.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kerneltrack.ntk.machine import Machine


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


def row_blocks(rows: int, operations: int, launches: int, machine: Machine) -> list[slice]:
    """Block rows, each to be multiplied from its own diagonal on: all rows as one where more would not pay.

    Args:
        rows: of a symmetric product.
        operations: that one row of the product with all others takes.
        launches: that one block row takes.
        machine: what runs it.
    """
    count = machine.block_rows
    if rows < machine.triangle_rows:
        return [slice(0, rows)]
    saved = rows * operations * (1 - 1 / count) / 2
    if saved <= (count - 1) * launches * machine.launch_operations:
        return [slice(0, rows)]
    size = -(-rows // count)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def add_gram(
    theta: Tensor, left: Tensor, right: Tensor, *, symmetric: bool, machine: Machine, scale: float = 1.0
) -> None:
    """Adds to theta (r1, r2): scale · left rightᵀ, the upper triangle only if both sides are the same."""
    blocks = [(slice(None), slice(None))]
    if symmetric and machine.counts_launches:
        blocks = [(rows, slice(rows.start, None)) for rows in row_blocks(theta.shape[0], 2 * left.numel(), 1, machine)]
    elif symmetric:
        blocks = list(upper_blocks(0, theta.shape[0], machine.gram_square))
    for start in range(0, left.shape[1], machine.gram_depth):
        columns = slice(start, start + machine.gram_depth)
        ours, theirs = left[:, columns], right[:, columns]
        for mine, other in blocks:
            _add_product(theta[mine, other], ours[mine], theirs[other], scale, machine)


def _add_product(block: Tensor, left: Tensor, right: Tensor, scale: float, machine: Machine) -> None:
    parts, rest = divmod(left.shape[1], machine.split_columns)
    if parts < 2 or rest or max(block.shape) > machine.split_rows:
        if block.numel() <= machine.added_entries:
            block.add_(torch.addmm(block.new_zeros(1), left, right.T, beta=0, alpha=scale))
        else:
            block.addmm_(left, right.T, alpha=scale)
        return
    ours, theirs = (side.view(-1, parts, machine.split_columns).transpose(0, 1) for side in (left, right))
    block.add_(torch.bmm(ours, theirs.transpose(1, 2)).sum(0), alpha=scale)


def mirror(theta: Tensor, size: int) -> None:
    """Copies what is above the diagonal of each plane below it, ``size`` rows at a time."""
    for plane in theta:
        for start in range(0, plane.shape[0], size):
            stop = start + size
            block = plane[start:stop, start:stop]
            above = block.triu(1)
            block.triu_().add_(above.T)
            if stop < plane.shape[0]:
                plane[stop:, start:stop] = plane[start:stop, stop:].T
