"""The order "token": one row for each sample, so that Θ is a product of two small Gram matrices.

Θ[no, mp] = (a_n · a_m)(g_no · g_mp)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.order import ContractionSize, Order, OrderCost
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.contraction.token_group import add_groups


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
        if self.machine.counts_launches:
            add_groups(theta, left, right, terms, symmetric, workspace // theta.element_size(), self.machine)
            return
        layers = [_layer(term, left, right, symmetric) for term in terms]
        outputs = theta.shape[1] // left.count
        size = max(1, int(self.machine.tile_entries**0.5) // outputs)
        _add_tiles(theta, layers, left.count, right.count, outputs, size, symmetric)


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


def _add_tiles(
    theta: Tensor, layers: Sequence[TokenLayer], n1: int, n2: int, q: int, size: int, symmetric: bool
) -> None:
    """Adds to theta (B, n1·Q, n2·Q): Σ_layers K ∘ (G Gᵀ), in tiles of ``size`` samples, each read and written once."""
    scratch = theta.new_empty(min(size, n1) * q * min(size, n2) * q)
    for i in range(0, n1, size):
        rows = slice(i, min(i + size, n1))
        for j in range(i if symmetric else 0, n2, size):
            columns = slice(j, min(j + size, n2))
            place = (slice(None), slice(i * q, rows.stop * q), slice(j * q, columns.stop * q))
            tile = theta[place].contiguous()
            for layer in layers:
                layer.add(tile, rows, columns, scratch)
            theta[place] = tile


def _layer(term: Term, left: SampleBlock, right: SampleBlock, symmetric: bool) -> TokenLayer:
    """A term, ready to be added tile by tile."""
    blocks = [left] if symmetric else [left, right]
    rows = [block.inputs(term, 0, block.count).reshape(block.count, -1) for block in blocks]
    ours = [plane.flatten(2) for plane in left.stacked(term)]
    theirs = ours if symmetric else [plane.flatten(2) for plane in right.stacked(term)]
    fixed = (
        [a[0] @ b[0].T for a, b in zip(ours, theirs, strict=True)] if _constant(ours) and _constant(theirs) else None
    )
    return TokenLayer((rows[0], rows[-1]), list(zip(ours, theirs, strict=True)), term.scale, term.shift, fixed)


def _constant(gradients: list[Tensor]) -> bool:
    """Whether every sample has the same gradients: the layer's output is a fixed linear map away from f."""
    return all(torch.equal(g[:1], g[-1:]) and bool((g == g[:1]).all()) for g in gradients)
