"""One kernel computed by several ranks: the pairs of samples are cut into tiles, and each rank computes its own.

The samples lie in R blocks on a circle, one for each rank. Rank r takes the pairs within its block, and those of its
block with the ⌊(R−1)/2⌋ blocks that follow; with an even R, blocks that face each other share their pairs by halves.
Then every pair is computed once, all ranks have equally many, and a rank differentiates few samples beyond its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kerneltrack.distributed import Ranks
from kerneltrack.memory_budget import available_bytes
from kerneltrack.ntk import empirical_ntk
from kerneltrack.snapshot import Array


@dataclass(frozen=True)
class Tile:
    """Pairs of samples: ``rows`` with ``columns``, or with each other where ``columns`` is None.

    Attributes:
        rows: indices of samples.
        columns: indices of other samples, or None.
    """

    rows: Array
    columns: Array | None = None

    @property
    def pairs(self) -> int:
        """Unordered pairs of samples in the tile."""
        n = len(self.rows)
        return n * (n + 1) // 2 if self.columns is None else n * len(self.columns)


def shares(count: int, ranks: int) -> list[list[Tile]]:
    """The tiles of each rank; together every unordered pair of ``count`` samples once."""
    # Spread evenly, so that adjacent ranks are balanced too, and rank 0 is never empty.
    ends = [-(-rank * count // ranks) for rank in range(ranks + 1)]
    blocks = [np.arange(start, end) for start, end in pairwise(ends)]
    return [[tile for tile in _share(blocks, rank) if tile.pairs] for rank in range(ranks)]


def _share(blocks: list[Array], rank: int) -> list[Tile]:
    size, own = len(blocks), blocks[rank]
    following = [blocks[(rank + step) % size] for step in range(1, (size - 1) // 2 + 1)]
    tiles = [Tile(own)]
    if following:
        tiles.append(Tile(own, np.concatenate(following)))
    if size % 2 == 0:
        tiles.append(_half(blocks, rank))
    return tiles


def _half(blocks: list[Array], rank: int) -> Tile:
    """Half of the pairs of two blocks that face each other: the earlier rank has the first rows of the earlier one."""
    first = rank % (len(blocks) // 2)
    rows, columns = blocks[first], blocks[first + len(blocks) // 2]
    # The later rank has the later block's own pairs, and that block may be one sample smaller: it gets the larger half.
    middle = len(rows) // 2
    return Tile(rows[:middle] if rank == first else rows[middle:], columns)


def shared_ntk(ranks: Ranks, module: nn.Module, inputs: Any, **options: Any) -> Any:
    """:func:`kerneltrack.empirical_ntk` of ``inputs`` with themselves, computed by all ranks.

    Every rank calls it with the same arguments and the same network. ``memory_budget`` is each rank's own; the leader
    holds the assembled kernel besides.

    Returns:
        The leader's kernel (or layer → kernel); on the other ranks, their tiles.

    Raises:
        RankError: another rank failed; otherwise as :func:`kerneltrack.empirical_ntk`.
    """
    if ranks.alone:
        return empirical_ntk(module, inputs, **options)
    device = next(module.parameters()).device
    if options.get("memory_budget") is None and device.type == "cpu":
        # Ranks on one machine share its memory; where they do not, they take a little less than they could.
        options = {**options, "memory_budget": max(1, available_bytes(device) // (2 * ranks.size))}
    count = len(pytree.tree_leaves(inputs)[0])
    plan = shares(count, ranks.size)
    parts = ranks.run_everywhere(lambda: [_computed(tile, module, inputs, options) for tile in plan[ranks.rank]])
    if not ranks.leads:
        for part in parts:
            for layer in part.values():
                ranks.send(layer)
        return parts
    kernels = {name: layer.new_empty(count, count, *layer.shape[2:]) for name, layer in parts[0].items()}
    for rank, tiles in enumerate(plan):
        for number, tile in enumerate(tiles):
            for name, kernel in kernels.items():
                _place(kernel, tile, parts[number][name] if rank == 0 else _received(ranks, rank, tile, kernel))
    return kernels if options.get("by_layer") else kernels[""]


def _computed(tile: Tile, module: nn.Module, inputs: Any, options: dict[str, Any]) -> dict[str, Tensor]:
    columns = None if tile.columns is None else _rows(inputs, tile.columns)
    kernel = empirical_ntk(module, _rows(inputs, tile.rows), columns, **options)
    return kernel if isinstance(kernel, dict) else {"": kernel}


def _rows(inputs: Any, indices: Array) -> Any:
    return pytree.tree_map(lambda leaf: leaf[torch.from_numpy(indices).to(leaf.device)], inputs)


def _received(ranks: Ranks, rank: int, tile: Tile, kernel: Tensor) -> Tensor:
    columns = tile.rows if tile.columns is None else tile.columns
    return ranks.receive(kernel.new_empty(len(tile.rows), len(columns), *kernel.shape[2:]), rank)


def _place(kernel: Tensor, tile: Tile, part: Tensor) -> None:
    """Put a tile where it belongs, and its transpose, outputs included, on the other side of the diagonal."""
    rows = torch.from_numpy(tile.rows).to(kernel.device)
    if tile.columns is None:
        kernel[rows[:, None], rows] = part
        return
    columns = torch.from_numpy(tile.columns).to(kernel.device)
    kernel[rows[:, None], columns] = part
    transposed = part.transpose(0, 1)
    kernel[columns[:, None], rows] = transposed.transpose(2, 3) if part.ndim == 4 else transposed
