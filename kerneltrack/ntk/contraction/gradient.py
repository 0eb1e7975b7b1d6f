"""The order "gradient": per-sample gradients F_no, then F Fᵀ.

Narrow ones are joined first, so that Θ is read and written less often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock, shift_features
from kerneltrack.ntk.contraction.dense_gradients import dense_features
from kerneltrack.ntk.contraction.gram import add_gram
from kerneltrack.ntk.contraction.order import ContractionSize, Order, OrderCost
from kerneltrack.ntk.contraction.per_sample_gradients import token_features
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.machine import Machine


class Gradient(Order):
    """For every term but lookups, of which it would expand the table."""

    name = "gradient"

    def applies(self, term: Term, size: ContractionSize) -> bool:
        return term.form not in ("lookup", "tied")

    def cost(self, size: ContractionSize) -> OrderCost:
        rows = size.rows * size.planes * size.outputs
        form = 2 * rows * size.tokens * size.features if size.tokens * size.inner > 1 else 0
        gram = 2 * size.sample_pairs * size.planes * size.outputs**2 * size.features
        moved = rows * (3 * size.features + size.groups * size.outer * size.tokens)
        return self._total(size.item_bytes * moved, form=form, gradient=gram)

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
        blocks = [left] if symmetric else [left, right]
        width = max(1, min(self.machine.slice_columns, workspace // (theta.element_size() * max(theta.shape[1:]))))
        for plane, part in enumerate(theta):
            buffers = [part.new_empty(0)] * len(blocks)
            if any(term.form == "tokens" for term in terms):
                buffers = [part.new_empty(width * rows) for rows in part.shape[: len(blocks)]]
            narrow = _Narrow(part, min(self.machine.narrow_columns, width), symmetric, self.machine)
            for term in terms:
                own = self._slice_width(term, width, part, blocks)
                slices = [
                    self._features(block, term, plane, own, buffer, workspace)
                    for block, buffer in zip(blocks, buffers, strict=True)
                ]
                for pair in zip(*slices, strict=True):
                    narrow.add(pair[0], pair[-1], term.scale)
            narrow.flush()

    def _slice_width(self, term: Term, width: int, theta: Tensor, blocks: Sequence[SampleBlock]) -> int:
        """Columns of a slice of a term: few, where the inputs of all samples stay in a cache."""
        item, machine = theta.element_size(), self.machine
        inputs = max(block.count for block in blocks) * sum(use.extent().inputs for use in blocks[0].uses(term)) * item
        if inputs > machine.cached_bytes:
            return width
        return min(width, max(machine.narrow_columns, machine.narrow_bytes // (max(theta.shape) * item)))

    def _features(
        self, block: SampleBlock, term: Term, plane: int, width: int, buffer: Tensor, workspace: int
    ) -> Iterable[Tensor]:
        """Per-sample gradients, slice by slice; those of a linear map in ``buffer``."""
        if term.form == "tokens":
            return token_features(block, term, plane, width, buffer, self.machine)
        if term.form == "features":
            return [shift_features(block, term, plane)]
        return dense_features(block, term, plane, workspace // buffer.element_size()).values()


class _Narrow:
    """Adds slices to one plane of Θ; narrow ones wait until there are ``columns`` of them together."""

    def __init__(self, theta: Tensor, columns: int, symmetric: bool, machine: Machine) -> None:
        self._theta, self._columns, self._symmetric, self._machine = theta, columns, symmetric, machine
        self._waiting = list[tuple[Tensor, Tensor]]()

    def add(self, left: Tensor, right: Tensor, scale: float) -> None:
        """Adds scale · left rightᵀ, now or with others."""
        if left.shape[1] >= self._columns // 4:
            self._add(left, right, scale)
            return
        ours = _scaled(left, scale)
        self._waiting.append((ours, ours if self._symmetric else _scaled(right, scale)))
        if sum(features.shape[1] for features, _ in self._waiting) >= self._columns:
            self.flush()

    def flush(self) -> None:
        """Adds what waits."""
        if self._waiting:
            left = torch.cat([ours for ours, _ in self._waiting], 1)
            self._add(left, left if self._symmetric else torch.cat([theirs for _, theirs in self._waiting], 1), 1.0)
            self._waiting.clear()

    def _add(self, left: Tensor, right: Tensor, scale: float) -> None:
        add_gram(self._theta, left, right, symmetric=self._symmetric, machine=self._machine, scale=scale)


def _scaled(features: Tensor, scale: float) -> Tensor:
    """√scale times a narrow slice, as a copy: the buffer behind it is used again."""
    return features.clone() if scale == 1.0 else features * scale**0.5
