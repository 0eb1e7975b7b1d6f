"""Null: what other batches alone do to a run's numbers, so that a difference to a control is told from it.

A placebo goes on from the same state with the run's own learning rates, on other batches. An effect of the rate is told only where
run and control are further apart than run and every placebo. A run without anything random needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..text import count
from ..trajectory import Run
from .time_point import TimePoint, numbers_of

#: "deterministic": no null is needed; "placebos": there is at least one; "missing": nothing says what other batches do.
Kind = Literal["deterministic", "placebos", "missing"]


@dataclass(frozen=True)
class Null:
    """What other batches alone do after one change.

    Attributes:
        kind: whether that is known.
        placebos: names of the placebos of this change.
        spread: step → name → the largest |run − placebo| of them.
    """

    kind: Kind
    placebos: tuple[str, ...] = ()
    spread: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def tells(self, step: int, name: str, difference: float) -> bool:
        """Whether the difference of run and control at ``step`` is more than other batches alone make of it."""
        if self.kind == "deterministic":
            return True
        spread = self.spread.get(step, {}).get(name, np.nan)
        return bool(abs(difference) > spread)  # False where it is not known

    @property
    def sentence(self) -> str:
        """Where the null stands, in words."""
        if self.kind == "deterministic":
            return "No null is needed: every update saw the whole training set, and nothing in it was random."
        if self.kind == "missing":
            return (
                "Nothing says whether other batches alone do as much: run a placebo, run_control(fork, …, placebo=True) or "
                "kt.control_run(fork, …, placebo=True)."
            )
        number = len(self.placebos)
        return (
            f"The null is the run's own rate on other batches: {count(number)} placebo{'s' * (number > 1)} "
            f"({', '.join(self.placebos)})."
        )


def null_of(run: Run, after: Sequence[TimePoint], placebos: Sequence[Run]) -> Null:
    """What is known of other batches at these moments."""
    if run.settings.get("stability_scope") == "exact":  # the whole set in every batch, and no active dropout
        return Null("deterministic")
    if not placebos:
        return Null("missing")
    spread = {}
    for m in after:
        rows = [(placebo, placebo.row(m.step)) for placebo in placebos]
        there = [numbers_of(placebo, row) for placebo, row in rows if row is not None]
        if there:
            names = set(m.numbers).intersection(*there)
            spread[m.step] = {name: max(abs(m.numbers[name] - each[name]) for each in there) for name in names}
    return Null("placebos", tuple(placebo.name for placebo in placebos), spread)
