"""Clock: the moment before an update, as schedules see it, and what they answer. Pure Python, no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kerneltrack.schedule.rate_steps import StepRule

Extent = Literal["whole", "kernel", "outputs"]


@dataclass(frozen=True, kw_only=True)
class RateChange:
    """A change of the learning rates.

    Attributes:
        step: of the first update at the new rates, counted by the updates before it.
        held: how many updates the rates before had held.
        rule: that calls it a step; None: whoever looks decides by ``held``.
        number: of the run's steps by that rule, from 1.
    """

    step: int
    held: int
    rule: StepRule | None = None
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What a schedule may know at the moment before update ``step``.

    Attributes:
        step: optimizer updates applied so far.
        learning_rates: of the coming update, one per parameter group; () where nobody knows.
        previous: the step of the state that was asked before this one; None: one update ago.
        epoch: the epoch that the coming update belongs to, counted from 0.
        previous_epoch: that of the state that was asked before; None: nobody knows, and ``starts_epoch`` decides.
        starts_epoch: whether no update of this epoch has happened yet.
        rate_changes: those that a schedule may still ask for, ascending.
        seconds: seconds of training so far, measurements not counted.
        last_seconds: the value of ``seconds`` at the last measurement; -inf before the first.
        metrics: the trainer's logged metrics.
        last_metrics: the same at the last measurement.
    """

    step: int
    learning_rates: tuple[float, ...] = ()
    previous: int | None = None
    epoch: int = 0
    previous_epoch: int | None = None
    starts_epoch: bool = False
    rate_changes: Sequence[RateChange] = ()
    seconds: float = 0.0
    last_seconds: float = -math.inf
    metrics: Mapping[str, float] = field(default_factory=dict)
    last_metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def since(self) -> int:
        """The last step whose points are met already."""
        return self.step - 1 if self.previous is None else self.previous

    def reaches(self, point: int) -> bool:
        """Whether this is the first state at or after step ``point``."""
        return self.since < point <= self.step


@dataclass(frozen=True)
class Due:
    """A state is to be measured.

    Attributes:
        trigger: which schedule asked.
        window: how many consecutive states, 2 for a pair and 3 for a triple.
        light: whether those after the first are light.
        extent: how much of this state is measured: the whole; or, of a light one, the kernel, the outputs and what follows
            from both; or the outputs alone.
    """

    trigger: str
    window: int = 1
    light: bool = True
    extent: Extent = "whole"
