"""The order "token": one row for each sample, so that Θ is a product of two small Gram matrices.

Θ[no, mp] = (a_n · a_m)(g_no · g_mp)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.gram import row_blocks
from kerneltrack.ntk.contraction.order import ContractionSize, Order, OrderCost
from kerneltrack.ntk.contraction.terms import Term


class Token(Order):
    """For linear maps of one row: all layers are added to a tile of Θ while it is in cache."""

    name = "token"
    takes_bias = True

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form == "tokens" and size.is_one_row

    def cost(self, size: ContractionSize) -> OrderCost:
        paired = size.planes * size.sample_pairs * size.outputs**2
        work = 2 * size.sample_pairs * size.inner + paired * (2 * size.outer + 2)
        return self._total(size.item_bytes * paired // 4, 4 * size.planes, token=work)

    def add_many(
        self,
        theta: Tensor,
        left: SampleBlock,
        right: SampleBlock,
        terms: Sequence[Term],
        *,
        symmetric: bool,
        workspace: int,
    ) -> None:
        # An accelerator's tiles stay where they are, and whether gradients are constant would take the host a look at them.
        fixes = not self.machine.counts_launches
        layers = [_layer(term, left, right, symmetric, fixes) for term in terms]
        outputs = theta.shape[1] // left.count
        if self.machine.counts_launches:
            most = workspace // (theta.element_size() * theta.shape[2])
            tiles = self._block_rows(layers, left.count, right.count, outputs, max(1, most // outputs), symmetric)
        else:
            size = max(1, int(self.machine.tile_entries**0.5) // outputs)
            tiles = _squares(left.count, right.count, size, symmetric)
        _add_tiles(theta, layers, outputs, tiles, cached=fixes)

    def _block_rows(
        self, layers: Sequence[TokenLayer], count: int, others: int, outputs: int, most: int, symmetric: bool
    ) -> list[tuple[slice, slice]]:
        """Tiles as large as they can be: ``most`` samples of one side, all of the other or those from the diagonal on."""
        size = count
        if symmetric:
            operations = sum(layer.row_operations(count, outputs) for layer in layers)
            size = -(-count // len(row_blocks(count * outputs, operations, 3 * len(layers), self.machine)))
        pieces = [slice(i, min(i + min(size, most), count)) for i in range(0, count, min(size, most))]
        return [(piece, slice(piece.start if symmetric else 0, others)) for piece in pieces]


@dataclass
class TokenLayer:
    """One layer with T = 1 in the token order: Θ[no, mp] += (scale a_n · a_m + shift) (g_no · g_mp).

    Attributes:
        inputs: A of both sides, (n, i).
        gradients: G of both sides, for each plane (n, Q, e).
        scale: c² of the weight.
        shift: c² of the layer's bias, whose input is the constant 1; 0 without a bias.
        fixed: for each plane g_o · g_p, (Q, Q), where gradients are the same for all samples: a linear last
            layer.
    """

    inputs: tuple[Tensor, Tensor]
    gradients: list[tuple[Tensor, Tensor]]
    scale: float
    shift: float
    fixed: list[Tensor] | None

    def row_operations(self, samples: int, outputs: int) -> int:
        """What one row of Θ takes, of so many samples with ``outputs`` each."""
        overlap, product = self.inputs[0].shape[1] // outputs, self.gradients[0][0].shape[2] * outputs
        return 2 * samples * (overlap + product)

    def add(self, tile: Tensor, rows: slice, columns: slice, scratch: Tensor) -> None:
        """Adds to one tile of every plane, (B, n·Q, m·Q)."""
        overlap = self.inputs[0][rows] @ self.inputs[1][columns].T
        if self.scale != 1.0:
            overlap *= self.scale
        if self.shift:
            overlap += self.shift
        n, m = overlap.shape
        wide = overlap.view(n, 1, m, 1)
        for plane, part in enumerate(tile):
            q = part.shape[0] // n
            view = part.view(n, q, m, q)
            if self.fixed is not None:
                _add_fixed(view, overlap, self.fixed[plane])
            else:
                left, right = self.gradients[plane]
                product = scratch[: part.numel()].view(part.shape)
                torch.mm(left[rows].flatten(0, 1), right[columns].flatten(0, 1).T, out=product)
                view.addcmul_(product.view(n, q, m, q), wide)


def _add_fixed(view: Tensor, overlap: Tensor, fixed: Tensor) -> None:
    """Adds overlap (n, m) ⊗ fixed (Q, Q) to view (n, Q, m, Q).

    It touches only entries where ``fixed`` is not zero.
    """
    if bool((fixed == fixed.diag().diag()).all()):
        for q in range(fixed.shape[0]):
            view[:, q, :, q].add_(overlap, alpha=float(fixed[q, q]))
    else:
        view.addcmul_(overlap[:, None, :, None], fixed[None, :, None, :])


def _squares(n1: int, n2: int, size: int, symmetric: bool) -> list[tuple[slice, slice]]:
    """Tiles of ``size`` samples on each side."""
    return [
        (slice(i, min(i + size, n1)), slice(j, min(j + size, n2)))
        for i in range(0, n1, size)
        for j in range(i if symmetric else 0, n2, size)
    ]


def _add_tiles(
    theta: Tensor, layers: Sequence[TokenLayer], q: int, tiles: Sequence[tuple[slice, slice]], *, cached: bool
) -> None:
    """Adds to theta (B, n1·Q, n2·Q): Σ_layers K ∘ (G Gᵀ), tile by tile; a ``cached`` one is read and written once."""
    places = [tuple(slice(s.start * q, s.stop * q) for s in tile) for tile in tiles]
    scratch = theta.new_empty(max(theta[0][place].numel() for place in places))
    for (rows, columns), place in zip(tiles, places, strict=True):
        part = theta[(slice(None), *place)]
        tile = part.contiguous() if cached else part
        for layer in layers:
            layer.add(tile, rows, columns, scratch)
        if tile is not part:
            part.copy_(tile)


def _layer(term: Term, left: SampleBlock, right: SampleBlock, symmetric: bool, fixes: bool) -> TokenLayer:
    """A term, ready to be added tile by tile."""
    blocks = [left] if symmetric else [left, right]
    rows = [block.inputs(term, 0, block.count).reshape(block.count, -1) for block in blocks]
    ours = [plane.flatten(2) for plane in left.stacked(term)]
    theirs = ours if symmetric else [plane.flatten(2) for plane in right.stacked(term)]
    constant = fixes and _constant(ours) and _constant(theirs)
    fixed = [a[0] @ b[0].T for a, b in zip(ours, theirs, strict=True)] if constant else None
    return TokenLayer((rows[0], rows[-1]), list(zip(ours, theirs, strict=True)), term.scale, term.shift, fixed)


def _constant(gradients: list[Tensor]) -> bool:
    """Whether every sample has the same gradients: the layer's output is a fixed linear map away from f."""
    return all(torch.equal(g[:1], g[-1:]) and bool((g == g[:1]).all()) for g in gradients)
