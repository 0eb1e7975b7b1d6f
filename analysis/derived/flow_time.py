"""Flow time: the sum of the learning rates up to each snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..trajectory import Floats, Run
from .rate_changes import learning_rate_changes

if TYPE_CHECKING:
    pass


def flow_time(run: Run) -> Floats:
    """Ση before each snapshot, counted from the first one, (S,): the time of gradient flow (one group: the first).

    Between two snapshots at one rate the sum is exact. Where the rate differs, the old one is taken up to a change
    that is pinned to its update, and the straight line between both elsewhere.
    """
    rates, steps = run.learning_rates[:, 0], run.steps.astype(np.float64)
    gaps, means = np.diff(steps), (rates[:-1] + rates[1:]) / 2
    pinned = [change.row - 1 for change in learning_rate_changes(run)[0] if change.exact and change.row]
    means[pinned] = rates[pinned]
    means[gaps <= 1] = rates[:-1][gaps <= 1]
    return np.concatenate([[0.0], np.cumsum(gaps * means)])
