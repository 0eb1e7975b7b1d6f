"""One block of samples as the orders of contraction read it: reduced gradients, input rows, per-sample gradients.

Reductions are decided here, before anything is expanded. The trace over outputs is the same as counting
outputs as channels (Q = 1 paired output, e = O·e channels); the diagonal is one plane for each output; the
full kernel pairs all (Q = O).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kerneltrack.ntk.capture import FormedBlock, Use, row_overlaps
from kerneltrack.ntk.contraction.batched_gradients import Batched, together
from kerneltrack.ntk.contraction.output_gradients import KroneckerFactors
from kerneltrack.ntk.contraction.seen_rows import picked, seen_rows
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.network import Preconditioner
from kerneltrack.ntk.reduction import Kind


@dataclass
class SampleBlock:
    """One block of samples and the reduction it is read with.

    Attributes:
        factors: what was captured.
        kind: which outputs are paired.
        leaves: the parameters that the pass was run with.
        metric: P.
        columns: use → its columns of J, (n, O, g, e, i), where they are formed before anything is contracted.
        seen: use → the few of its rows that outputs see, (n, T'), and G of every output there, where there are few.
    """

    factors: KroneckerFactors
    kind: Kind
    leaves: Mapping[str, Tensor]
    metric: Preconditioner | None
    columns: dict[int, FormedBlock] = field(default_factory=dict)
    seen: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict)

    def look(self, terms: Sequence[Term]) -> None:
        """Finds the linear maps of which outputs see few rows: no others are contracted from here on.

        Not where such a row's input is not finite: 0 · ∞ is no zero. Patches of a convolution are not formed to ask.
        """
        for index in (i for term in terms if term.form == "tokens" for i in term.uses):
            use, gradients = self.factors.uses[index], self.factors.gradients(index)
            if use.extent().tokens == 1 or use.copied_inputs() or (rows := seen_rows(gradients)) is None:
                continue
            if bool(use.input_rows(0, self.count).sum().isfinite()):
                self.seen[index] = rows, [picked(gradient, rows, 3) for gradient in gradients]

    def copied_inputs(self, terms: Sequence[Term]) -> int:
        """Entries of the input rows of the largest of these terms, of those that are copied, with one use each."""
        uses = [self.factors.uses[t.uses[0]] for t in terms if len(t.uses) == 1 and t.uses[0] not in self.columns]
        return self.count * max((use.copied_inputs() for use in uses), default=0)

    def has_one_row(self, term: Term) -> bool:
        """Whether outputs see one row of a linear map, of several, in each sample."""
        rows = [self.seen[index][0].shape[1] for index in term.uses if index in self.seen]
        return rows == [1] and len(term.uses) == 1 and self.factors.uses[term.uses[0]].extent().groups == 1

    def form(self, chosen: Sequence[Term], others: Sequence[Term], room: int) -> None:
        """Forms the columns of J of ``chosen`` terms, for the kernel and for products with J, and drops their gradients.

        Args:
            chosen: terms of one use each.
            others: those whose gradients stay.
            room: bytes that columns may take beside the gradients.
        """
        needed = [index for term in others for index in term.uses]
        for place, term in enumerate(chosen):
            (index,), (use,) = term.uses, self.uses(term)
            gradients = self.factors.gradients(index)
            taken = self.count * use.held_entries(len(gradients)) * gradients[0].element_size()
            if use.is_formed(len(gradients)) and taken <= room:
                block = use.jacobian_block(gradients)
                assert isinstance(block, FormedBlock)  # is_formed() says so
                self.columns[index] = block
                del gradients
                before = self.factors.bytes_of([index])
                later = [one for term in chosen[place + 1 :] for one in term.uses]
                self.factors.keep([*needed, *later])
                room -= taken - (before - self.factors.bytes_of([index]))
            else:
                needed.append(index)

    def formed(self, term: Term, plane: int) -> Tensor | None:
        """Per-sample gradients (n·Q, columns) of a term whose columns of J are formed; else None."""
        found = self.columns.get(term.uses[0])
        if found is None:
            return None
        if self.kind == "diagonal":
            return found.columns[:, plane].flatten(1)
        return found.columns.flatten(1) if self.kind == "trace" else found.columns.flatten(0, 1).flatten(1)

    @property
    def count(self) -> int:
        """n, the samples of the block."""
        return self.factors.count

    def uses(self, term: Term) -> list[Use]:
        """The uses of a term."""
        return [self.factors.uses[i] for i in term.uses]

    def planes(self, index: int) -> list[Sequence[Tensor]]:
        """For each plane the outputs that belong to it, each (n, g, e, T)."""
        return self.planes_of(self.factors.gradients(index))

    def row_planes(self, index: int) -> list[Sequence[Tensor]]:
        """The same of a linear map, of the rows that :meth:`input_rows` has."""
        return self.planes_of(self.seen[index][1]) if index in self.seen else self.planes(index)

    def input_rows(self, index: int, start: int, stop: int, room: Tensor | None = None) -> Tensor:
        """A of a linear map, (n, g, T, i): all rows, or those that outputs see where they were found to be few.

        What is copied for them lies in ``room`` where that is given.
        """
        rows = self.factors.uses[index].input_rows_in(start, stop, room)
        return picked(rows, self.seen[index][0][start:stop], 2) if index in self.seen else rows

    def planes_of(self, outputs: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """What there is for each output, as it belongs to planes."""
        return [outputs[o : o + 1] for o in range(len(outputs))] if self.kind == "diagonal" else [outputs]

    def stacked(self, term: Term) -> list[Tensor]:
        """Planes of G as one array (n, Q, g, e, T) each, the rows of all uses of the weight side by side."""
        planes = []
        for parts in zip(*(self.row_planes(i) for i in term.uses), strict=True):
            uses = [together(outputs, 2 if self.kind == "trace" else 1) for outputs in parts]
            rows = uses[0] if len(uses) == 1 else torch.cat(uses, -1)
            planes.append(rows.flatten(2, 3).unsqueeze(1) if self.kind == "trace" else rows)
        return planes

    def inputs(self, term: Term, start: int, stop: int) -> Tensor:
        """A, (n, g, T, i), the rows of all uses of the weight side by side."""
        parts = [self.input_rows(index, start, stop) for index in term.uses]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def overlap_rows(self, term: Term, start: int, stop: int) -> Tensor:
        """What :meth:`overlaps` is made of, for samples start ≤ n < stop."""
        if self._has_own_overlaps(term):
            return self.uses(term)[0].overlap_rows(start, stop)
        return self.inputs(term, start, stop)

    def overlaps(self, term: Term, left: Tensor, right: Tensor) -> Tensor:
        """K = A Aᵀ of samples with samples, (n, g, T, m, T), from the :meth:`overlap_rows` of both."""
        return self.uses(term)[0].overlaps(left, right) if self._has_own_overlaps(term) else row_overlaps(left, right)

    def pixel_sums(self, term: Term) -> int:
        """Entries that are added up for K of a pair of samples, where it is made of pixels; else 0."""
        return self.uses(term)[0].pixel_work()[1] if self._has_own_overlaps(term) else 0

    def _has_own_overlaps(self, term: Term) -> bool:
        """Whether K is what its use makes it: of one use, all of whose rows count."""
        return len(term.uses) == 1 and term.uses[0] not in self.seen

    def outputs(self, plane: int, term: Term) -> int:
        """How many outputs one plane has."""
        return len(self.planes(term.uses[0])[plane])

    def rows(self, plane: int, term: Term) -> int:
        """Rows of a plane's features: n·Q."""
        return self.count * (1 if self.kind == "trace" else self.outputs(plane, term))


def shift_features(block: SampleBlock, term: Term, plane: int) -> Tensor:
    """Gradients of a "features" term, (n, Q, p): sums over rows and over all uses."""
    total: Tensor | None = None
    for index in term.uses:
        sums = block.planes_of(block.factors.sums(index))[plane]
        if isinstance(sums, Batched):
            rows = sums.together.flatten(2).movedim(0, 1)
        else:
            rows = torch.stack([part.flatten(1) for part in sums], 1)
        total = rows if total is None else total + rows
    assert total is not None
    return total.flatten(1).unsqueeze(1) if block.kind == "trace" else total
