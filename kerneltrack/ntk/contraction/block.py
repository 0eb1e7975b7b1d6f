"""One block of samples as the orders of contraction read it: reduced gradients, input rows, per-sample gradients.

Reductions are decided here, before anything is expanded. The trace over outputs is the same as counting
outputs as channels (Q = 1 paired output, e = O·e channels); the diagonal is one plane for each output; the
full kernel pairs all (Q = O).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Use
from kerneltrack.ntk.contraction.batched_gradients import Batched, together
from kerneltrack.ntk.contraction.output_gradients import KroneckerFactors
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
    """

    factors: KroneckerFactors
    kind: Kind
    leaves: Mapping[str, Tensor]
    metric: Preconditioner | None

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

    def planes_of(self, outputs: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """What there is for each output, as it belongs to planes."""
        return [outputs[o : o + 1] for o in range(len(outputs))] if self.kind == "diagonal" else [outputs]

    def stacked(self, term: Term) -> list[Tensor]:
        """Planes of G as one array (n, Q, g, e, T) each, the rows of all uses of the weight side by side."""
        planes = []
        for parts in zip(*(self.planes(i) for i in term.uses), strict=True):
            uses = [together(outputs, 2 if self.kind == "trace" else 1) for outputs in parts]
            rows = uses[0] if len(uses) == 1 else torch.cat(uses, -1)
            planes.append(rows.flatten(2, 3).unsqueeze(1) if self.kind == "trace" else rows)
        return planes

    def inputs(self, term: Term, start: int, stop: int) -> Tensor:
        """A, (n, g, T, i), the rows of all uses of the weight side by side."""
        parts = [use.input_rows(start, stop) for use in self.uses(term)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

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
