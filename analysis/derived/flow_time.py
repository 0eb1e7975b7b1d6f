"""Flow time: the sum of the learning rates up to each snapshot, times what the optimizer's momentum makes of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kerneltrack.conventions import Momentum, groups
from kerneltrack.errors import AnalysisError

from ..trajectory import Floats, Run
from .rate_changes import learning_rate_changes


def flow_time(run: Run) -> Floats:
    """g Ση before each snapshot, counted from the first one, (S,): the time of gradient flow (one group: the first).

    g is the gain of momentum in the long run, 1/(1 − β) of heavy ball without dampening and of Nesterov's; 1 without
    momentum, of Adam, and where the optimizer is not known.

    Between two snapshots at one rate the sum is exact. Where the rate differs, the old one is taken up to a change
    that is pinned to its update, and the straight line between both elsewhere.
    """
    rates, steps = run.learning_rates[:, 0], run.steps.astype(np.float64)
    gaps, means = np.diff(steps), (rates[:-1] + rates[1:]) / 2
    pinned = [change.row - 1 for change in learning_rate_changes(run)[0] if change.exact and change.row]
    means[pinned] = rates[pinned]
    means[gaps <= 1] = rates[:-1][gaps <= 1]
    with np.errstate(over="ignore", invalid="ignore"):  # a stranger's settings may be of any size
        return np.asarray(gain(run) * np.concatenate([[0.0], np.cumsum(gaps * means)]))


def gain(run: Run) -> float:
    """What the first group's momentum makes of a gradient that stands still."""
    momentum = next((Momentum.of(*told) for told in groups(run.optimizers)), None)
    return 1.0 if momentum is None else momentum.gain()


def check_one_clock(runs: Iterable[Run]) -> None:
    """Refuse to lay runs of several optimizers along one flow time.

    Raises:
        AnalysisError: Adam's rate is no time of gradient flow; it names the classes.
    """
    kinds = sorted({name for run in runs for name, _ in groups(run.optimizers)})
    if len(kinds) > 1:
        raise AnalysisError(
            "flow time of runs with different optimizers",
            expected="one optimizer: the rate of another is on another scale",
            got=", ".join(kinds),
            remedy="Align by step, epoch, samples or loss.",
        )
