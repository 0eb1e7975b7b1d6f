"""The order "hybrid": overlaps of the input rows first, then the gradients of one side pushed through them."""

from __future__ import annotations

from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.terms import Term


def add_hybrid(theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, same: bool, workspace: int) -> None:
    """Adds to theta (B, n1·Q, n2·Q): Σ_t g_not · (Σ_s K[nt, ms] g_mps).

    Only for pairs of samples on and above the diagonal.

    Args:
        theta: where to add.
        left: first block of samples.
        right: second block.
        term: a "tokens" term.
        same: whether both blocks are one.
        workspace: entries that K and K G may have together.
    """
    ours = left.stacked(term)
    theirs = ours if same else right.stacked(term)
    n, q, g, e, t1 = ours[0].shape
    t2 = theirs[0].shape[-1]
    chunk = _chunk(workspace, g * t1 * t2, q * g * e * (t1 + t2))
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        rows = left.inputs(term, start, stop)
        for first in range(start if same else 0, right.count, chunk):
            last = min(first + chunk, right.count)
            columns = rows if same and first == start else right.inputs(term, first, last)
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
                    theta[plane, start * q : end * q, m * q : (m + 1) * q].add_(block.flatten(0, 1), alpha=term.scale)


def _chunk(workspace: int, per_pair: int, per_sample: int) -> int:
    """The largest b with b² per_pair + b per_sample ≤ workspace."""
    return max(1, int(((per_sample**2 + 4 * per_pair * workspace) ** 0.5 - per_sample) / (2 * per_pair)))


def _overlap(rows: Tensor, columns: Tensor) -> Tensor:
    """K of samples with samples, (n, g, T1, m, T2): products of input rows."""
    n, g, t, i = rows.shape
    left, right = rows.transpose(0, 1).reshape(g, n * t, i), columns.transpose(0, 1).reshape(g, -1, i)
    return (left @ right.transpose(1, 2)).view(g, n, t, columns.shape[0], -1).transpose(0, 1)
