"""Contraction orders: from inputs A and gradients G of two blocks of samples to their part of Θ.

For one weight, with T rows per sample (Novak et al. 2022, section 3; the names are ours):

    gradient   F_no = Σ_t g_not ⊗ a_nt, then F Fᵀ: per-sample gradients in slices, one matrix product each
    token      T = 1:  Θ[no, mp] = (a_n · a_m)(g_no · g_mp), tile by tile, all layers while the tile is in cache
    hybrid     T > 1:  Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),  K = A Aᵀ

Only entries on and above the diagonal are computed when both blocks are the same; :func:`mirror` fills the rest at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.side import Side
from kerneltrack.ntk.units import Unit

#: Entries of one tile of Θ that stays in a core's second-level cache while layers are added to it.
TILE = 2**18


def upper_panels(rows: int, same: bool, size: int) -> Iterator[tuple[slice, slice]]:
    """Row panels and the columns that they need: all, or from the diagonal on."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows)), slice(start if same else 0, None)


def add_gram(theta: Tensor, left: Tensor, right: Tensor, same: bool, scale: float = 1.0) -> None:
    """theta (r1, r2) += scale · left rightᵀ, rows above the diagonal only where both sides are the same."""
    size = max(64, -(-left.shape[0] // 8)) if same else left.shape[0]
    for rows, columns in upper_panels(left.shape[0], same, size):
        theta[rows, columns].addmm_(left[rows], right[columns].T, alpha=scale)


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
        fixed: for each plane g_o · g_p, (Q, Q), where gradients are the same for all samples: a linear last layer.
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
    """view (n, Q, m, Q) += overlap (n, m) ⊗ fixed (Q, Q), touching only entries where ``fixed`` is not zero."""
    if bool((fixed == fixed.diag().diag()).all()):
        for q in range(fixed.shape[0]):
            view[:, q, :, q].add_(overlap, alpha=float(fixed[q, q]))
    else:
        view.addcmul_(overlap[:, None, :, None], fixed[None, :, None, :])


def add_tokens(theta: Tensor, layers: Sequence[TokenLayer], n1: int, n2: int, q: int, same: bool) -> None:
    """theta (B, n1·Q, n2·Q) += Σ_layers K ∘ (G Gᵀ), tile by tile; each tile is read and written once."""
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


def token_layer(unit: Unit, left: Side, right: Side, shift: float) -> TokenLayer:
    """A "tokens" unit of one row for each sample, ready for :func:`add_tokens`."""
    same = left is right
    rows = [side.inputs(unit, 0, side.count).reshape(side.count, -1) for side in ([left] if same else [left, right])]
    ours = [plane.flatten(2) for plane in left.stacked(unit)]
    theirs = ours if same else [plane.flatten(2) for plane in right.stacked(unit)]
    fixed = [a[0] @ b[0].T for a, b in zip(ours, theirs, strict=True)] if _constant(ours) and _constant(theirs) else None
    return TokenLayer((rows[0], rows[-1]), list(zip(ours, theirs, strict=True)), unit.scale, shift, fixed)


def _constant(gradients: list[Tensor]) -> bool:
    """Whether every sample has the same gradients: the layer's output is a fixed linear map away from f."""
    return all(torch.equal(g[:1], g[-1:]) and bool((g == g[:1]).all()) for g in gradients)


def add_hybrid(theta: Tensor, left: Side, right: Side, unit: Unit, same: bool, workspace: int) -> None:
    """theta += the unit's kernel by K = A Aᵀ, then K G, then G · (K G); pairs of samples on and above the diagonal."""
    left_planes = left.stacked(unit)
    right_planes = left_planes if left is right else right.stacked(unit)
    n, q, g, e, t1 = left_planes[0].shape
    t2 = right_planes[0].shape[-1]
    pair = g * t1 * t2 + q * g * e * (t1 + t2)
    chunk = max(1, workspace // pair)
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        rows = left.inputs(unit, start, stop)
        for m in range(start if same else 0, right.count):
            last = min(stop, m + 1) if same else stop
            overlap = _overlap(rows[: last - start], right.inputs(unit, m, m + 1), unit, left)
            for plane in range(len(left_planes)):
                ours = left_planes[plane][start:last].transpose(1, 2)
                theirs = right_planes[plane][m].transpose(0, 1).reshape(1, g, q * e, t2)
                pushed = (theirs @ overlap.transpose(-1, -2)).view(last - start, g, q, e * t1)
                block = (ours.reshape(last - start, g, q, e * t1) @ pushed.transpose(-1, -2)).sum(1)
                theta[plane, start * q : last * q, m * q : (m + 1) * q].add_(block.flatten(0, 1), alpha=unit.scale)


def _overlap(rows: Tensor, other: Tensor, unit: Unit, side: Side) -> Tensor:
    """K of some samples with one other, (n, g, T1, T2)."""
    if rows.dim() == 4:
        n, g, t, i = rows.shape
        if g == 1:
            return (rows.reshape(n * t, i) @ other.reshape(-1, i).T).view(n, 1, t, -1)
        return rows @ other.transpose(-1, -2)
    padding = side.factors.sites[unit.sites[0]].geometry
    equal = rows.unsqueeze(2) == other.unsqueeze(1)
    if padding is not None:
        equal &= (rows != padding).unsqueeze(2)
    return equal.unsqueeze(1).to(side.factors.gradients(unit.sites[0])[0].dtype)
