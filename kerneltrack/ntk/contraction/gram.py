"""Contraction orders: from inputs A and gradients G of two blocks of samples to their part of Θ.

For one weight, with T rows per sample (Novak et al. 2022, section 3; the names are ours):

    gradient   F_no = Σ_t g_not ⊗ a_nt, then F Fᵀ: per-sample gradients in slices, one matrix product each
    token      T = 1:  Θ[no, mp] = (a_n · a_m)(g_no · g_mp), tile by tile, all layers while the tile is in
    cache hybrid     T > 1:  Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),  K = A Aᵀ

Only entries on and above the diagonal are computed when both blocks are the same; :func:`mirror` fills the
rest at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.terms import Term

#: Entries of one tile of Θ that stays in a core's second-level cache while layers are added to it.
TILE = 2**18


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


def add_tokens(theta: Tensor, layers: Sequence[TokenLayer], n1: int, n2: int, q: int, same: bool) -> None:
    """Adds to theta (B, n1·Q, n2·Q): Σ_layers K ∘ (G Gᵀ), tile by tile, each read and written once."""
    size = max(1, int(TILE**0.5) // q)
    scratch = theta.new_empty(min(size, n1) * q * min(size, n2) * q)
    for i in range(0, n1, size):
        rows = slice(i, min(i + size, n1))
        for j in range(i if same else 0, n2, size):
            columns = slice(j, min(j + size, n2))
            place = (slice(None), slice(i * q, rows.stop * q), slice(j * q, columns.stop * q))
            tile = theta[place].contiguous()
            for layer in layers:
                layer.add(tile, rows, columns, scratch)
            theta[place] = tile


def token_layer(unit: Term, left: SampleBlock, right: SampleBlock, shift: float) -> TokenLayer:
    """A "tokens" unit of one row for each sample, ready for :func:`add_tokens`."""
    same = left is right
    rows = [side.inputs(unit, 0, side.count).reshape(side.count, -1) for side in ([left] if same else [left, right])]
    ours = [plane.flatten(2) for plane in left.stacked(unit)]
    theirs = ours if same else [plane.flatten(2) for plane in right.stacked(unit)]
    fixed = (
        [a[0] @ b[0].T for a, b in zip(ours, theirs, strict=True)] if _constant(ours) and _constant(theirs) else None
    )
    return TokenLayer((rows[0], rows[-1]), list(zip(ours, theirs, strict=True)), unit.scale, shift, fixed)


def _constant(gradients: list[Tensor]) -> bool:
    """Whether every sample has the same gradients: the layer's output is a fixed linear map away from f."""
    return all(torch.equal(g[:1], g[-1:]) and bool((g == g[:1]).all()) for g in gradients)


def add_hybrid(theta: Tensor, left: SampleBlock, right: SampleBlock, unit: Term, same: bool, workspace: int) -> None:
    """Adds to theta (B, n1·Q, n2·Q): Σ_t g_not · (Σ_s K[nt, ms] g_mps).

    Only for pairs of samples on and above the diagonal.

    Args:
        theta: where to add.
        left: first block of samples.
        right: second block.
        unit: a "tokens" unit.
        same: whether both blocks are one.
        workspace: entries that K and K G may have together.
    """
    ours = left.stacked(unit)
    theirs = ours if same else right.stacked(unit)
    n, q, g, e, t1 = ours[0].shape
    t2 = theirs[0].shape[-1]
    chunk = _chunk(workspace, g * t1 * t2, q * g * e * (t1 + t2))
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        rows = left.inputs(unit, start, stop)
        for first in range(start if same else 0, right.count, chunk):
            last = min(first + chunk, right.count)
            columns = rows if same and first == start else right.inputs(unit, first, last)
            overlap = _overlap(rows, columns)
            for m in range(first, last):
                end = min(stop, m + 1) if same else stop
                turned = overlap[: end - start, :, :, m - first].transpose(-1, -2)
                for plane, mine in enumerate(ours):
                    pushed = theirs[plane][m].transpose(0, 1).reshape(1, g, q * e, t2) @ turned
                    block = (
                        mine[start:end].transpose(1, 2).reshape(end - start, g, q, e * t1)
                        @ pushed.view(end - start, g, q, e * t1).transpose(-1, -2)
                    ).sum(1)
                    theta[plane, start * q : end * q, m * q : (m + 1) * q].add_(block.flatten(0, 1), alpha=unit.scale)


def _chunk(workspace: int, per_pair: int, per_sample: int) -> int:
    """The largest b with b² per_pair + b per_sample ≤ workspace."""
    return max(1, int(((per_sample**2 + 4 * per_pair * workspace) ** 0.5 - per_sample) / (2 * per_pair)))


def _overlap(rows: Tensor, columns: Tensor) -> Tensor:
    """K of samples with samples, (n, g, T1, m, T2): products of input rows."""
    n, g, t, i = rows.shape
    left, right = rows.transpose(0, 1).reshape(g, n * t, i), columns.transpose(0, 1).reshape(g, -1, i)
    return (left @ right.transpose(1, 2)).view(g, n, t, columns.shape[0], -1).transpose(0, 1)
