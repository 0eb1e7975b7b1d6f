"""Groups: pairs and triples of consecutive states, and what of a number has period 2.

At the edge of stability what oscillates alternates from one update to the next. A number a at two states in a row is its
course, the mean, and its oscillation, the half-difference; a drift d an update puts d/2 into that. Three states in a row
tell both apart: (a_t + 2a_{t+1} + a_{t+2})/4 and (2a_{t+1} − a_t − a_{t+2})/4 are exact for a drift and an oscillation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """The rows of pairs and triples.

    Attributes:
        first: (Q,) rows of their first states, ascending in step.
        second: (Q,) rows of the second ones.
        third: (Q,) rows of the third ones; -1 of a pair.
    """

    first: Rows
    second: Rows
    third: Rows

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, steps: Rows, window: Rows, lag: Floats, taken: NDArray[np.bool_]) -> Groups:
        """The groups of which at least the first two states were taken.

        Args:
            steps: (S,) of every row.
            window: (S,) 1 for a second state, 2 for a third.
            lag: (S,) updates since the first one; NaN, or not positive, where it is not stored: ``window`` then.
            taken: (S,) which rows hold anything of the probe.
        """
        rows = {int(steps[row]): int(row) for row in np.flatnonzero(taken)}
        begun = np.where(lag > 0, np.nan_to_num(lag), window).astype(np.int64)  # a comparison with NaN is false
        members: dict[int, dict[int, int]] = {}
        for row in np.flatnonzero(taken & (window > 0)):
            members.setdefault(int(steps[row] - begun[row]), {})[int(window[row])] = int(row)
        found = sorted((start, m) for start, m in members.items() if start in rows and 1 in m)
        table = np.array([[rows[start], m[1], m.get(2, -1)] for start, m in found], dtype=np.int64).reshape(-1, 3)
        return cls(*table.T)

    def mean_and_half_difference(self, values: Floats) -> tuple[Floats, Floats]:
        """(Q, …) both of values (S, …); of a triple from all three states where the third has the number."""
        a, b = values[self.first], values[self.second]
        c = values[self.third]
        whole = np.isfinite(c) & (self.third >= 0).reshape(-1, *(1,) * (values.ndim - 1))
        mean = np.where(whole, (a + 2 * b + c) / 4, (a + b) / 2)
        return mean, np.where(whole, (2 * b - a - c) / 4, (b - a) / 2)

    def both_phases(self, values: Floats) -> Floats:
        """(S,) values with each group as one number, its mean in its first row; the other rows of the group are NaN."""
        merged = np.array(values, dtype=np.float64)
        mean, _ = self.mean_and_half_difference(merged)
        known = np.isfinite(mean)
        merged[self.first[known]] = mean[known]
        later = np.concatenate([self.second[known], self.third[known & (self.third >= 0)]])
        merged[np.setdiff1d(later, self.first[known])] = np.nan
        return merged
