"""The leading eigenfunctions of a run as functions that keep their place and sign over time, for films and the page's slider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..derived import MatchedModes, matched_modes, representative_rows
from ..text import subscript
from ..trajectory import Floats, Run
from .canvas import orientation

#: Moments of a film: at four a second, a quarter of a minute.
MOMENTS = 60


@dataclass(frozen=True, eq=False)
class MovingFunctions:
    """Functions of one kernel output at several moments, numbered and turned as at the last one.

    Attributes:
        matched: who is who.
        signs: (k,) that turn them as :func:`~.canvas.orientation` turns those of the last moment.
    """

    matched: MatchedModes
    signs: Floats

    def __len__(self) -> int:
        return len(self.matched.rows)

    def at(self, moment: int) -> Floats:
        """(N, k), times √N, so that the mean square of a function of one output is 1."""
        functions = self.matched.functions(moment)[:, 0]
        return np.asarray(functions * self.signs * np.sqrt(len(functions)))

    def name(self, moment: int, i: int) -> str:
        """``v₂``; ``v₂ (no. 5)`` where it is the fifth there; with a question mark where that is not certain."""
        place = int(self.matched.index[moment, i]) + 1
        name = f"v{subscript(i + 1)}" + ("" if place == i + 1 else f" (no. {place})")
        return name if self.matched.identified[moment, i] else f"{name} ?"

    def names(self, moment: int) -> list[str]:
        """Of all."""
        return [self.name(moment, i) for i in range(len(self.signs))]


def moving_functions(run: Run, count: int, rows: Sequence[int] | None = None) -> MovingFunctions:
    """The first ``count`` functions of the last moment at ``rows``; None: up to :data:`MOMENTS` of them, evenly spread in rank.

    Raises:
        AnalysisError: the archive holds no eigenvectors, or not so many.
    """
    found = matched_modes(run, count, representative_rows(run, MOMENTS) if rows is None else rows)
    return MovingFunctions(found, orientation(run, found.functions(len(found.rows) - 1)[:, 0]))
