"""What tensors hold, as a few integers on their devices that tell whether a bit has changed.

All tensors of a device are summed as if they were one, word by word, with a weight for each place, in integers that wrap
around: a network of many small tensors costs as few operations as one of a single tensor. A single changed word always
changes the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

#: Words of 64 bits in one row; each row, and each place in a row, has a weight of its own.
_WIDTH = 4096
_ROW_BYTES = 8 * _WIDTH
#: Bytes that are summed at a time: what a sum takes beside the tensors is two or three times as much.
TOGETHER = 2**25


def checksums(tensors: Iterable[Tensor]) -> dict[torch.device, Tensor]:
    """Device → sums of all that the ``tensors`` hold there, in their order, (s,): one for each :data:`TOGETHER` bytes.

    Equal for equal contents, however they lie in memory. Where shapes and types are the same, any one change of a word
    shows, and others but for one case in some 2⁶². Tensors of the device "meta" hold nothing.
    """
    held: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        for part in parts(tensor):
            held.setdefault(part.device, []).append(part)
    return {device: _joined([_sum(group) for group in _groups(map(_bytes, own))]) for device, own in held.items()}


def parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that hold the contents of ``tensor``."""
    if tensor.device.type == "meta":
        return []
    plain = tensor.detach()
    if plain.layout == torch.strided:
        return [plain]
    if plain.layout == torch.sparse_coo:
        return [plain._indices(), plain._values()]
    if plain.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [plain.crow_indices(), plain.col_indices(), plain.values()]
    if plain.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [plain.ccol_indices(), plain.row_indices(), plain.values()]
    return [plain.to_dense()]


def _bytes(tensor: Tensor) -> Tensor:
    """A view where the entries lie in their order already, else a copy."""
    whole = tensor.resolve_conj().resolve_neg().contiguous()
    return whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)  # of one entry, contiguous() leaves the stride


def _groups(pieces: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The bytes in their order, :data:`TOGETHER` of them in each group but the last."""
    group, room = list[Tensor](), TOGETHER
    for piece in pieces:
        while piece.numel() > room:
            yield [*group, piece[:room]]
            piece, group, room = piece[room:], [], TOGETHER
        group.append(piece)
        room -= piece.numel()
    yield group


def _sum(group: list[Tensor]) -> Tensor:
    """(1,), of pieces that are taken for one."""
    device, size = group[0].device, sum(piece.numel() for piece in group)
    rest = _zeros(device)[: -size % _ROW_BYTES]
    rows = _folded(torch.cat([*group, rest]).view(torch.int64).view(-1, _WIDTH))
    sums = _dot(rows, _weights(device, 0))
    return sums if len(rows) == 1 else _dot(sums.view(1, -1), _weights(device, 1)[: len(rows)])


def _folded(words: Tensor) -> Tensor:
    """Other words for other words, the upper bits folded into the lower ones.

    The last bit, a float64's sign, is the same in a product with any odd weight, and two changes of it would cancel. By 29
    places, so that the signs of two float32 do not meet.
    """
    return (words >> 29).bitwise_and_(2**35 - 1).bitwise_xor_(words)


def _dot(rows: Tensor, weights: Tensor) -> Tensor:
    """(r,), for each row (r, w); no CUDA device multiplies matrices of integers. The rows may be lost."""
    return torch.mv(rows, weights) if rows.device.type == "cpu" else rows.mul_(weights).sum(1)


def _joined(sums: list[Tensor]) -> Tensor:
    return sums[0] if len(sums) == 1 else torch.cat(sums)


@cache
def _zeros(device: torch.device) -> Tensor:
    return torch.zeros(_ROW_BYTES, dtype=torch.uint8, device=device)


@cache
def _weights(device: torch.device, seed: int) -> Tensor:
    """Odd numbers: a product with one is another for another factor."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-(2**62), 2**62, (_WIDTH,), generator=generator) * 2 + 1).to(device)
