"""The order "lookup": an embedding's contribution by equality of indices, never a V × e gradient.

    ∂f_o(x_n)/∂E[v] = s_nov = Σ_{t: id_nt = v} g_not         Θ[no, mp] += Σ_v s_nov · s_mpv

Rows with the same sample and index are summed first, so that a pair of samples meets in at most T indices. An
index that most samples have is a column block of dense per-sample gradients; the others are met pair by pair.

Which indices there are is asked on the host. Where a device would stand still for longer than it takes to multiply every
row with every other, that is done, and products of rows with different indices are left out: by shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.capture import EmbeddingUse
from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.gram import add_gram
from kerneltrack.ntk.contraction.order import ContractionSize, OrderCost, TermByTerm
from kerneltrack.ntk.contraction.terms import Term


class Lookup(TermByTerm):
    """For embeddings."""

    name = "lookup"

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form == "lookup"

    def cost(self, size: ContractionSize) -> OrderCost:
        """Rows of one sample with one index are summed first: two samples meet in at most T indices."""
        pairs = size.planes * size.sample_pairs * (size.outputs * size.tokens) ** 2
        if self._multiplies_all(2 * pairs * size.outer):
            return self._total(3 * size.item_bytes * pairs, 8, token=2 * pairs * size.outer)
        width = size.planes * size.outputs * size.outer
        work = 2 * size.sample_pairs * size.tokens * width * size.outputs
        traffic = size.item_bytes * width * (2 * size.rows * size.tokens + size.sample_pairs * size.tokens)
        return self._total(
            traffic, 60, lookup=work
        )  # what the host reads in between stands still as long as some launches

    def add(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> None:
        """One table; ``entries`` numbers may be held beside theta and the rows."""
        if self.machine.counts_launches and self._added_whole(theta, left, right, term, symmetric, entries):
            return
        table = left.factors.uses[term.uses[0]].weight.shape[0]
        ours = lookup_rows(left, term)
        theirs = ours if symmetric else lookup_rows(right, term)
        meetings = ours.per_id(table) * theirs.per_id(table)
        often = meetings * self.machine.lookup_pair > ours.count * theirs.count
        frequent = often.nonzero().flatten()
        _, q, e = ours.sums[0].shape
        size = max(1, entries // ((ours.count + theirs.count) * q * e))
        for plane, part in enumerate(theta):
            for ids in torch.split(frequent, size) if len(frequent) else ():
                self._add_dense(part, ours.dense(plane, ids), None if symmetric else theirs.dense(plane, ids), term)
            grid = part.view(ours.count, q, theirs.count, q).permute(0, 2, 1, 3)
            for a, b in _pairs(ours, theirs, symmetric, often, max(1, entries // (2 * q * e + q * q))):
                products = ours.sums[plane][a] @ theirs.sums[plane][b].transpose(1, 2)
                place = ours.samples[a], theirs.samples[b]
                grid.index_put_(place, products * term.scale, accumulate=True)

    def _multiplies_all(self, operations: int) -> bool:
        return operations <= _ASKS * self.machine.launch_operations

    def _added_whole(
        self, theta: Tensor, left: SampleBlock, right: SampleBlock, term: Term, symmetric: bool, entries: int
    ) -> bool:
        """Adds every row's product with every other, where that is little; blocks on and above a symmetric diagonal."""
        (n, q, t, e), (m, _, s, _) = _extent(left, term), _extent(right, term)
        count, of_one = n * q * t * m * q * s * len(theta), 2 * q * t * m * q * s
        if not self._multiplies_all(2 * e * count) or of_one > entries:
            return False
        ours = _tokens(left, term)
        theirs = ours if symmetric else _tokens(right, term)
        pieces = self.machine.block_rows if symmetric and n * q * t > self.machine.triangle_rows else 1
        step = max(1, min(-(-n // pieces), entries // of_one))
        for part, a, b in zip(theta, ours.rows, theirs.rows, strict=True):
            grid = part.view(n, q, m, q)
            for start in range(0, n, step):
                rows, columns = slice(start, start + step), slice(start if symmetric else 0, m)
                products = (a[rows].flatten(0, 2) @ b[columns].flatten(0, 2).T).view(-1, q, t, m - columns.start, q, s)
                products.masked_fill_(_differ(ours.ids[rows], theirs.ids[columns], ours.padding), 0)
                grid[rows, :, columns].add_(products.sum((2, 5)), alpha=term.scale)
        return True

    def _add_dense(self, theta: Tensor, ours: Tensor, theirs: Tensor | None, term: Term) -> None:
        """Per-sample gradients of some of the table's rows; ``theirs`` None for the same block."""
        other = ours if theirs is None else theirs
        add_gram(theta, ours, other, symmetric=theirs is None, machine=self.machine, scale=term.scale)


#: What the host asks of a table's indices, in launches for which a device stands still.
_ASKS = 60


@dataclass(frozen=True)
class Tokens:
    """The rows of one block of samples, none summed.

    Attributes:
        ids: v of each row, (n, T).
        rows: for each plane g, (n, Q, T, e).
        padding: the index whose rows have no gradient, or None.
    """

    ids: Tensor
    rows: list[Tensor]
    padding: int | None


def _extent(block: SampleBlock, term: Term) -> tuple[int, int, int, int]:
    """Sizes of :attr:`Tokens.rows` (n, Q, T, e), before anything is copied."""
    uses = [block.planes(i)[0] for i in term.uses if isinstance(block.factors.uses[i], EmbeddingUse)]
    outputs, width, tokens = len(uses[0]), uses[0][0].shape[2], sum(parts[0].shape[-1] for parts in uses)
    return (block.count, 1, tokens, outputs * width) if block.kind == "trace" else (block.count, outputs, tokens, width)


def _tokens(block: SampleBlock, term: Term) -> Tokens:
    lookups = {i: use for i in term.uses if isinstance(use := block.factors.uses[i], EmbeddingUse)}
    ids = torch.cat([use.indices(0, block.count) for use in lookups.values()], 1)
    together = -1 if block.kind == "trace" else 1  # a trace is of outputs side by side
    rows = []
    for plane in range(len(block.planes(term.uses[0]))):
        uses = [[g.squeeze(1).transpose(1, 2).unsqueeze(1) for g in block.planes(i)[plane]] for i in lookups]
        rows.append(torch.cat([torch.cat(outputs, together) for outputs in uses], 2))
    return Tokens(ids, rows, lookups[term.uses[0]].padding)


def _differ(ours: Tensor, theirs: Tensor, padding: int | None) -> Tensor:
    """(n, 1, T, m, 1, S): whether two rows have different indices, or no gradient."""
    differ = ours[:, :, None, None] != theirs
    if padding is not None:
        differ |= (ours == padding)[:, :, None, None]
    return differ[:, None, :, :, None, :]


@dataclass(frozen=True)
class Rows:
    """Summed gradients of one block of samples, sorted by index, then sample.

    Attributes:
        ids: v of each row, (U,).
        samples: n of each row, (U,).
        sums: for each plane s, (U, Q, e).
        count: samples in the block.
    """

    ids: Tensor
    samples: Tensor
    sums: list[Tensor]
    count: int

    def per_id(self, entries: int) -> Tensor:
        """How many samples have each index, (V,)."""
        return torch.bincount(self.ids, minlength=entries)

    def dense(self, plane: int, ids: Tensor) -> Tensor:
        """Per-sample gradients by E[ids], (n·Q, |ids|·e); ``ids`` sorted."""
        place = torch.searchsorted(ids, self.ids).clamp_(max=len(ids) - 1)
        here = ids[place] == self.ids
        sums = self.sums[plane]
        table = sums.new_zeros(self.count, sums.shape[1], len(ids), sums.shape[2])
        table[self.samples[here], :, place[here]] = sums[here]
        return table.flatten(2).flatten(0, 1)


def lookup_rows(block: SampleBlock, term: Term) -> Rows:
    """The rows of a table that a term looks up, over all its lookups."""
    lookups = {i: use for i in term.uses if isinstance(use := block.factors.uses[i], EmbeddingUse)}
    padding = lookups[term.uses[0]].padding
    ids = torch.cat([use.indices(0, block.count) for use in lookups.values()], 1).long()
    samples = torch.arange(block.count, device=ids.device)[:, None].expand_as(ids)
    keys, row = torch.unique(ids * block.count + samples, return_inverse=True)
    found, owners = keys // block.count, keys % block.count
    keep = slice(None) if padding is None else found != padding
    sums = [
        _sum_rows([block.planes(i)[plane] for i in lookups], row, len(keys), block.kind == "trace")[keep]
        for plane in range(len(block.planes(term.uses[0])))
    ]
    return Rows(found[keep], owners[keep], sums, block.count)


def _sum_rows(uses: Sequence[Sequence[Tensor]], row: Tensor, size: int, trace: bool) -> Tensor:
    """s, (size, Q, e): gradients (n, 1, e, T) of each use and output, added where ``row`` (n, ΣT) says."""
    first = uses[0][0]
    sums = first.new_zeros(size, len(uses[0]), first.shape[2])
    start = 0
    for outputs in uses:
        places = row[:, start : start + outputs[0].shape[-1]].flatten()
        start += outputs[0].shape[-1]
        for o, part in enumerate(outputs):
            sums[:, o].index_add_(0, places, part.squeeze(1).transpose(1, 2).flatten(0, 1))
    return sums.flatten(1).unsqueeze(1) if trace else sums


def _pairs(ours: Rows, theirs: Rows, symmetric: bool, often: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of rows with one index, those ``often`` left out, about ``most`` at a time.

    If both are the same, each pair once, in the order of their samples. Rows are sorted by index: those that meet row a
    are a range, from ``starts[a]`` to ``stops[a]``. With ids (3, 3, 5) on both sides, starts are (0, 0, 2) and stops
    (2, 2, 3), so that counts are (2, 2, 1), their sums ``ends`` (2, 4, 5), and the pairs (0, 0), (0, 1), (1, 0), (1, 1),
    (2, 2): row a is repeated ``counts[a]`` times, and its partners count up from ``starts[a]``.
    """
    stops = torch.searchsorted(theirs.ids, ours.ids, right=True)
    starts = torch.arange(len(ours.ids), device=stops.device) if symmetric else torch.searchsorted(theirs.ids, ours.ids)
    counts = torch.where(often[ours.ids], 0, stops - starts)
    ends = counts.cumsum(0)
    first = 0
    while first < len(counts):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, done + most, right=True)))
        chunk = counts[first:last]
        a = torch.repeat_interleave(torch.arange(first, last, device=chunk.device), chunk)
        offset = torch.arange(len(a), device=chunk.device) + done - (ends[first:last] - chunk).repeat_interleave(chunk)
        if len(a):
            yield a, starts[a] + offset
        first = last
