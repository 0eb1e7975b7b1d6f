"""Pieces: seconds of the parts of a measurement that grow with the probe: what a smaller kernel would cost follows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from kerneltrack.observables import State
from kerneltrack.spectrum import is_few

Piece = Literal["kernel", "eigensystem", "observables"]


class Stopwatch:
    """Seconds by piece; none goes on inside another."""

    def __init__(self) -> None:
        self.seconds: dict[Piece, float] = {"kernel": 0.0, "eigensystem": 0.0, "observables": 0.0}

    @contextmanager
    def of(self, piece: Piece) -> Iterator[None]:
        """Within: the time is this piece's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[piece] += time.perf_counter() - began


#: Time of Lanczos for k pairs over that of a dense solve, times M: so much, and so much more for each pair. Measured for 16 and
#: 64 pairs of 512 to 2,560 rows on one core, 0.30 and 0.53 of the solve at 1,000 rows.
LEADING, LEADING_PAIR = 210, 5


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What a whole state took, and what decides how that would change.

    Attributes:
        seconds: by piece.
        rows: M, of the largest matrix that is solved by itself.
        outputs: how many outputs the kernel keeps.
        blocks: whether each output has a matrix of its own.
        pairs: how many eigenpairs ``eigenpairs="leading"`` would compute; 0 where it is not offered.
    """

    seconds: Mapping[Piece, float]
    rows: int
    outputs: int
    blocks: bool
    pairs: int

    @classmethod
    def of(cls, watch: Stopwatch, state: State, *, top_k: int) -> Pieces:
        """Of a state that was measured whole, whose first ``top_k`` eigenvectors are stored."""
        rows, outputs = state.eigensystem.size, state.kernel_outputs
        blocks = state.reduction == "diagonal"
        block = state.samples if blocks else rows
        fewer = state.eigensystem.complete and is_few(top_k, block)
        return cls(seconds=watch.seconds, rows=block, outputs=outputs, blocks=blocks, pairs=top_k if fewer else 0)

    def saved_by_trace(self, kernel: float) -> float:
        """Seconds that ``output="trace"`` would save.

        A solve is of M³ operations, of each output's block for ``output="diagonal"``. The observables take at least M²: those of
        M³ are counted as if they did not.

        Args:
            kernel: operations of the trace kernel over those of this one, by the plans.
        """
        o = self.outputs
        solves = 1 / o if self.blocks else 1 / o**3
        left = {"kernel": min(kernel, 1.0), "eigensystem": solves, "observables": 1 / o**2}
        return sum((1 - left[piece]) * seconds for piece, seconds in self.seconds.items())

    def saved_by_leading(self) -> float:
        """Seconds that ``eigenpairs="leading"`` would save of the solve."""
        left = (LEADING + LEADING_PAIR * self.pairs) / self.rows
        return max(0.0, 1 - left) * self.seconds["eigensystem"] if self.pairs else 0.0
