"""The order "gradient": per-sample gradients F_no, then F Fᵀ.

Narrow ones are joined first, so that Θ is read and written less often. Linear maps of which outputs see one row of each
sample need no per-sample gradients: they are added in the order "token".
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
from kerneltrack.ntk.contraction.token import Token
from kerneltrack.ntk.contraction.whole_features import stacked_features, whole_features
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
        return self._total(size.item_bytes * moved, 4 * size.planes, form=form, gradient=gram)

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
        single = [term for term in terms if all(block.has_one_row(term) for block in blocks)]
        if single:
            Token(self.machine).add_many(theta, left, right, single, symmetric=symmetric, workspace=workspace)
            terms = [term for term in terms if term not in single]
        width = max(1, min(self.machine.slice_columns, workspace // (theta.element_size() * max(theta.shape[1:]))))
        for plane, part in enumerate(theta):
            whole = [term for term in terms if self._is_whole(term, width, blocks[0])]
            buffers = patches = [part.new_empty(0)] * len(blocks)
            sliced = [term for term in terms if term.form == "tokens" and term not in whole]
            if sliced:
                patches = [part.new_empty(block.copied_inputs(sliced)) for block in blocks]
                buffers = [part.new_empty(width * rows) for rows in part.shape[: len(blocks)]]
            narrow = _Narrow(part, min(self.machine.narrow_columns, width), symmetric, self.machine)
            for group in _groups(whole, blocks[0], width):
                formed = [_together(block, group, plane) for block in blocks]
                for term, *sides in zip(group, *formed, strict=True):
                    narrow.add(sides[0], sides[-1], term.scale, shared=False)
            for term in (term for term in terms if term not in whole):
                own = self._slice_width(term, width, part, blocks)
                slices = [
                    self._features(block, term, plane, own, buffer, room, workspace)
                    for block, buffer, room in zip(blocks, buffers, patches, strict=True)
                ]
                for pair in zip(*slices, strict=True):
                    narrow.add(pair[0].unsqueeze(1), pair[-1].unsqueeze(1), term.scale, shared=True)
            narrow.flush()

    def _is_whole(self, term: Term, width: int, block: SampleBlock) -> bool:
        """Whether a term's gradients are formed at once, of all its columns: where launches count, and there is room."""
        if not self.machine.counts_launches or term.form not in ("tokens", "features"):
            return False
        size = block.factors.uses[term.uses[0]].extent()
        outputs = len(block.factors.gradients(term.uses[0])) if block.kind == "trace" else 1
        return term.form == "features" or size.features * outputs <= width

    def _slice_width(self, term: Term, width: int, theta: Tensor, blocks: Sequence[SampleBlock]) -> int:
        """Columns of a slice of a term: few, where the inputs of all samples stay in a cache."""
        item, machine = theta.element_size(), self.machine
        inputs = max(block.count for block in blocks) * sum(use.extent().inputs for use in blocks[0].uses(term)) * item
        if inputs > machine.cached_bytes:
            return width
        return min(width, max(machine.narrow_columns, machine.narrow_bytes // (max(theta.shape) * item)))

    def _features(
        self, block: SampleBlock, term: Term, plane: int, width: int, buffer: Tensor, room: Tensor, workspace: int
    ) -> Iterable[Tensor]:
        """Per-sample gradients, slice by slice; those of a linear map in ``buffer``, what it copies of inputs in ``room``."""
        if (formed := block.formed(term, plane)) is not None:
            return [formed]
        if term.form == "tokens":
            return token_features(block, term, plane, width, buffer, self.machine, room)
        if term.form == "features":
            return [shift_features(block, term, plane).flatten(0, 1)]
        return dense_features(block, term, plane, workspace // buffer.element_size()).values()


def _groups(terms: Sequence[Term], block: SampleBlock, width: int) -> list[list[Term]]:
    """Terms that are formed together: those of a whole stack, where there is room for it, and the others one by one."""
    stacked: dict[int, list[Term]] = {}
    for term in terms:
        stack, _ = block.factors.stacks.get(block.factors.uses[term.uses[0]].record, (None, 0))
        stacked.setdefault(id(term) if stack is None or term.form != "tokens" else id(stack), []).append(term)
    return [
        part for group in stacked.values() for part in ([group] if _fit(group, block, width) else [[t] for t in group])
    ]


def _fit(group: Sequence[Term], block: SampleBlock, width: int) -> bool:
    """Whether a group is all of a stack, each weight used once, and its columns are no more than ``width``."""
    use = block.factors.uses[group[0].uses[0]]
    stack, _ = block.factors.stacks.get(use.record, (None, 0))
    if stack is None or len(group) == 1 or [block.factors.uses[i] for t in group for i in t.uses] != list(stack.uses):
        return False
    outputs = len(block.factors.gradients(group[0].uses[0])) if block.kind == "trace" else 1
    return len(group) * use.extent().features * outputs <= width


def _together(block: SampleBlock, group: Sequence[Term], plane: int) -> list[Tensor]:
    if len(group) == 1:
        return [whole_features(block, group[0], plane)]
    return stacked_features(block, group[0], plane)


class _Narrow:
    """Adds slices to one plane of Θ; narrow ones wait until there are ``columns`` of them together."""

    def __init__(self, theta: Tensor, columns: int, symmetric: bool, machine: Machine) -> None:
        self._theta, self._columns, self._symmetric, self._machine = theta, columns, symmetric, machine
        self._waiting = list[tuple[Tensor, Tensor]]()

    def add(self, left: Tensor, right: Tensor, scale: float, *, shared: bool) -> None:
        """Adds scale · left rightᵀ, now or with others.

        Args:
            left: (…, columns), whose leading axes are the rows of Θ.
            right: the other side's.
            scale: c².
            shared: whether the memory behind them is used again.
        """
        if left.shape[-1] >= self._columns // 4:
            self._add(left.flatten(0, 1), right.flatten(0, 1), scale)
            return
        ours = _scaled(left, scale, shared)
        self._waiting.append((ours, ours if self._symmetric else _scaled(right, scale, shared)))
        if sum(features.shape[-1] for features, _ in self._waiting) >= self._columns:
            self.flush()

    def flush(self) -> None:
        """Adds what waits."""
        if self._waiting:
            left = _joined([ours for ours, _ in self._waiting])
            self._add(left, left if self._symmetric else _joined([theirs for _, theirs in self._waiting]), 1.0)
            self._waiting.clear()

    def _add(self, left: Tensor, right: Tensor, scale: float) -> None:
        add_gram(self._theta, left, right, symmetric=self._symmetric, machine=self._machine, scale=scale)


def _scaled(features: Tensor, scale: float, shared: bool) -> Tensor:
    """√scale times a narrow slice; a copy where the buffer behind it is used again."""
    if scale != 1.0:
        scaled: Tensor = features * scale**0.5
        return scaled
    return features.clone() if shared else features


def _joined(slices: Sequence[Tensor]) -> Tensor:
    """Side by side, (rows, Σ columns): some have their rows as one axis, some as samples and outputs."""
    most = max(slices, key=lambda features: features.shape[1])
    parts = [features.reshape(*most.shape[:2], features.shape[-1]) for features in slices]
    joined: Tensor = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return joined.flatten(0, 1)
