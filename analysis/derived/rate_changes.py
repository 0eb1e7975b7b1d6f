"""Change, Trend: where the stored learning rates changed, and which snapshots stand around it.

A row's learning rates are those of the update that *leaves* its state. So the first row at a new rate is the last state
that the old rate made, provided that no update lies unseen between them. Two rules decide:

1. A change is *exact* when the row before it is one update earlier, or when the row was asked for by the schedule
   ``OnLearningRateChange(after=(0, …))``. Otherwise it happened somewhere between two rows, and both steps are given.
2. A rate that differs in three or more consecutive rows is a *trend* (cosine, linear, warm-up): there is no before and
   after, only a course. So are four or more changes in one direction of which none is as large as half of the whole
   way: that is a continuous schedule which moves once per epoch. A staircase of halvings takes more than half of its
   way at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..trajectory import Floats, Run

_ASKED = re.compile(r"OnLearningRateChange\((?:after=\(([^)]*)\))?")
_WITHIN = re.compile(r", (?:second|third) of a (?:pair|triple)")
#: Offsets from the change that are reported where a snapshot stands exactly there, in updates.
OFFSETS = (1, 10, 100, 1000, 10_000, 100_000)


@dataclass(frozen=True)
class Change:
    """One change of the learning rates, as a step.

    Attributes:
        row: the first row at the new rates.
        step: its step; the first update at the new rates where ``exact``, else the last that can be it.
        earliest: the first step that can be it; equal to ``step`` where exact.
        old: learning rates before, one per parameter group.
        new: learning rates after.
        before: the row that stands for the state before the change.
        after: the rows that stand for what followed, ascending.
    """

    row: int
    step: int
    earliest: int
    old: tuple[float, ...]
    new: tuple[float, ...]
    before: int
    after: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """Whether the step of the change is known."""
        return self.step == self.earliest


@dataclass(frozen=True)
class Trend:
    """A stretch in which the learning rates change from row to row.

    Attributes:
        first: its first row.
        last: its last row.
        travel: Ση over its updates, summed as straight lines between the rows (one parameter group: the first).
    """

    first: int
    last: int
    travel: float


def learning_rate_changes(run: Run) -> tuple[tuple[Change, ...], tuple[Trend, ...]]:
    """Every step change that is followed by a measured snapshot, and every trend."""
    rows = _rows(run)
    rates = run.learning_rates[rows]
    if len(rows) < 2 or not rates.shape[1]:
        return (), ()
    moved = np.flatnonzero(np.any(rates[1:] != rates[:-1], axis=1)) + 1
    trends = _trends(moved, rates)
    in_trend = {i for first, last in trends for i in range(first + 1, last + 1)}
    steps = [int(i) for i in moved if i not in in_trend and i + 1 < len(rows)]
    changes = tuple(_change(run, rows, i, _end(run, rows, moved, i)) for i in steps)
    return changes, tuple(
        Trend(int(rows[a]), int(rows[b]), _travel(run.steps[rows[a : b + 1]], rates[a : b + 1, 0])) for a, b in trends
    )


def _rows(run: Run) -> NDArray[np.int64]:
    """Measured rows with known rates, ascending in step; of rows at one step the last."""
    rows = np.flatnonzero(run.measured & np.all(np.isfinite(run.learning_rates), axis=1))
    order = rows[np.argsort(run.steps[rows], kind="stable")]
    last_of_step = np.append(run.steps[order][1:] != run.steps[order][:-1], True)[: len(order)]
    return np.asarray(order[last_of_step], dtype=np.int64)


def _trends(moved: NDArray[np.int64], rates: Floats) -> list[tuple[int, int]]:
    """Stretches (first, last) of rows in which the rates move continuously, by either part of rule 2."""
    found = [stretch for stretch in _runs(moved, np.diff(moved) > 1) if len(stretch) >= 3]
    steps = np.diff(rates[:, 0])[moved - 1]
    for stretch in _runs(moved, np.sign(steps[1:]) != np.sign(steps[:-1])):
        sizes = np.abs(np.diff(rates[:, 0])[stretch - 1])
        if len(stretch) >= 4 and sizes.max() < sizes.sum() / 2:
            found.append(stretch)
    return _joined([(int(stretch[0]) - 1, int(stretch[-1])) for stretch in found])


def _runs(moved: NDArray[np.int64], breaks: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    return np.split(moved, np.flatnonzero(breaks) + 1) if moved.size else []


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping stretches as one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(stretches):
        if joined and first < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _end(run: Run, rows: NDArray[np.int64], moved: NDArray[np.int64], i: int) -> int:
    """The last row that the rates of row ``i`` made: the next change's own where that is exact, else the one before."""
    later = moved[moved > i]
    if not later.size:
        return len(rows) - 1
    end = int(later[0])
    return end if _is_exact(run, rows, end) else max(end - 1, i + 1)


def _is_exact(run: Run, rows: NDArray[np.int64], i: int) -> bool:
    step, previous = int(run.steps[rows[i]]), int(run.steps[rows[i - 1]])
    # A failed snapshot between the two may have been the one at the change.
    unseen = np.any((run.steps > previous) & (run.steps < step) & ~run.taken)
    return step - previous == 1 or (not unseen and _asked_at_change(run, rows, i))


def _change(run: Run, rows: NDArray[np.int64], i: int, end: int) -> Change:
    step, previous = int(run.steps[rows[i]]), int(run.steps[rows[i - 1]])
    exact = _is_exact(run, rows, i)
    origin = i if exact else i - 1
    candidates = range(origin + 1, max(end, origin + 1) + 1)
    wanted = {candidates[0], candidates[-1]}
    wanted |= {j for j in candidates if int(run.steps[rows[j]]) - step in OFFSETS}
    return Change(
        row=int(rows[i]),
        step=step,
        earliest=step if exact else previous + 1,
        old=tuple(float(r) for r in run.learning_rates[rows[i - 1]]),
        new=tuple(float(r) for r in run.learning_rates[rows[i]]),
        before=int(rows[origin]),
        after=tuple(int(rows[j]) for j in sorted(wanted)),
    )


def _asked_at_change(run: Run, rows: NDArray[np.int64], i: int) -> bool:
    """Whether the row was taken because its update is the first at new rates: offset 0 of ``OnLearningRateChange``.

    A trigger does not say which offset it was. Where an earlier row that may begin new rates lies another of the offsets before
    this one, it may have been that one, for a change in between need not have been a step. Then a later row decides, if it is one
    that nothing but a step at this row can have asked for.
    """
    offsets = _offsets(run, int(rows[i]))
    if 0 not in offsets:
        return False
    if not _askers(run, rows, range(1, i), i, offsets):
        return True
    later = (j for j in range(i + 1, len(rows)) if 0 in _offsets(run, int(rows[j])))
    return any(_askers(run, rows, range(1, j + 1), j, offsets) == [i] for j in later)


def _askers(
    run: Run, rows: NDArray[np.int64], candidates: Iterable[int], asked: int, offsets: frozenset[int]
) -> list[int]:
    """The rows among the candidates that may begin new rates, one of the offsets before the row that was asked for.

    The first row of all begins none. A row with the rates of the one before it may begin some where the schedule asked for it,
    for what moved and came back is not seen; but not where it is that of the next update.
    """

    def may_begin(k: int) -> bool:
        if not np.array_equal(run.learning_rates[rows[k]], run.learning_rates[rows[k - 1]]):
            return True
        return int(run.steps[rows[k]] - run.steps[rows[k - 1]]) > 1 and 0 in _offsets(run, int(rows[k]))

    step = int(run.steps[rows[asked]])
    return [k for k in candidates if step - int(run.steps[rows[k]]) in offsets and may_begin(k)]


def _offsets(run: Run, row: int) -> frozenset[int]:
    """The offsets of the ``OnLearningRateChange`` that asked for a row; none where another schedule did, or a group went on."""
    if "trigger" not in run.dataset:
        return frozenset()
    trigger = run.dataset["trigger"].values[row]
    text = trigger.decode(errors="replace") if isinstance(trigger, bytes) else str(trigger)
    found = _ASKED.search(text)
    if found is None or _WITHIN.search(text):
        return frozenset()
    return frozenset(map(int, re.findall(r"\d+", found[1]))) if found[1] else frozenset((0,))


def _travel(steps: NDArray[np.int64], rates: Floats) -> float:
    return float(np.trapezoid(rates, steps.astype(np.float64)))
