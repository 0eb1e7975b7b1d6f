"""The order "token" where launches count: layers of one shape are multiplied together, over tiles as large as memory admits.

Θ[no, mp] = Σ_l (scale a_ln · a_lm + shift) (g_lno · g_lmp)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.gram import row_blocks
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.machine import Machine


@dataclass(frozen=True)
class TokenGroup:
    """L layers of one shape, scale and shift.

    Attributes:
        inputs: of both sides (L, n, i), or (L, n, i + 1) with a last column whose products are the shift.
        gradients: of both sides, for each plane (L, n·Q, e).
    """

    inputs: tuple[Tensor, Tensor]
    gradients: list[tuple[Tensor, Tensor]]

    def row_operations(self, samples: int, outputs: int) -> int:
        """What one row of Θ takes, of so many samples with ``outputs`` each."""
        overlap, product = self.inputs[0].shape[2] // outputs, self.gradients[0][0].shape[2] * outputs
        return 2 * samples * len(self.inputs[0]) * (overlap + product)

    def add(self, part: Tensor, rows: slice, columns: slice) -> None:
        """Adds to a part of every plane, (B, n·Q, m·Q), the samples ``rows`` and ``columns``."""
        overlap = self.inputs[0][:, rows] @ self.inputs[1][:, columns].transpose(1, 2)
        length, n, m = overlap.shape
        for plane, (left, right) in zip(part, self.gradients, strict=True):
            q = plane.shape[0] // n
            ours, theirs = (slice(place.start * q, place.stop * q) for place in (rows, columns))
            product = left[:, ours] @ right[:, theirs].transpose(1, 2)
            paired, wide = product.view(length, n, q, m, q), overlap.view(length, n, 1, m, 1)
            if length == 1:
                plane.view(n, q, m, q).addcmul_(paired[0], wide[0])
            else:
                paired.mul_(wide)
                plane.add_(product.sum(0))


def add_groups(
    theta: Tensor,
    left: SampleBlock,
    right: SampleBlock,
    terms: Sequence[Term],
    symmetric: bool,
    entries: int,
    machine: Machine,
) -> None:
    """Adds the terms to theta (B, n1·Q, n2·Q); a tile has about ``entries`` numbers beside it."""
    q = theta.shape[1] // left.count
    pairs = theta.shape[2] * q + right.count  # numbers beside one sample's rows of Θ, for each layer
    for together in _alike(terms, left, right, most=max(1, entries // (pairs * left.count))):
        group = _group(together, left, right, symmetric)
        size = left.count
        if symmetric:
            operations, launches = group.row_operations(left.count, q), 3 if len(together) == 1 else 5
            size = -(-left.count // len(row_blocks(theta.shape[1], operations, launches, machine)))
        size = max(1, min(size, entries // (pairs * len(together))))
        for start in range(0, left.count, size):
            rows = slice(start, min(start + size, left.count))
            columns = slice(start if symmetric else 0, right.count)
            group.add(theta[:, rows.start * q : rows.stop * q, columns.start * q :], rows, columns)


def _alike(terms: Sequence[Term], left: SampleBlock, right: SampleBlock, most: int) -> list[list[Term]]:
    """Terms of one shape, scale and shift, up to ``most`` together."""
    groups: dict[tuple[object, ...], list[Term]] = {}
    for term in terms:
        key = left.inputs(term, 0, 1).shape, left.uses(term)[0].extent(), term.scale, term.shift
        groups.setdefault(key, []).append(term)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]


def _group(terms: Sequence[Term], left: SampleBlock, right: SampleBlock, symmetric: bool) -> TokenGroup:
    blocks = [left] if symmetric else [left, right]
    rows = [
        _stacked([block.inputs(term, 0, block.count).reshape(block.count, -1) for term in terms]) for block in blocks
    ]
    scale, shift = terms[0].scale, terms[0].shift
    ours = rows[0] if scale == 1.0 else rows[0] * scale
    theirs = rows[-1]
    if shift:
        same = ours is theirs and shift == 1.0
        ours = F.pad(ours, (0, 1), value=shift)
        theirs = ours if same else F.pad(theirs, (0, 1), value=1.0)
    planes = [[block.stacked(term) for term in terms] for block in blocks]
    gradients = [
        [_stacked([stacked[plane].flatten(2) for stacked in side]).flatten(1, 2) for plane in range(len(side[0]))]
        for side in planes
    ]
    return TokenGroup((ours, theirs), list(zip(gradients[0], gradients[-1], strict=True)))


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(list(parts))
