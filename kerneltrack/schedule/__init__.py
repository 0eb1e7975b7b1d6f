"""When to measure: schedules are values that print as they are written. Pure Python, no torch.

A schedule looks at a :class:`Clock`, the moment *before* an update, and says whether that state is to be measured. It
keeps no state of its own, so a resumed run follows the same schedule as an uninterrupted one. Steps count optimizer
updates: the state at step t is what t updates have made.

Not every step need be a state that can be measured: with several optimizers in one training step the counter jumps. So a
schedule asks for the first state *at or after* each point of its grid: a point g is met at t where g lies in (s, t], s being
the state that was asked before.

>>> schedule = Every(100) | OnLearningRateChange(after=(0, 1))
>>> schedule
Every(100) | OnLearningRateChange(after=(0, 1), by=1.25)
>>> [t for t in range(301) if schedule.due(Clock(step=t, rate_changes=[RateChange(step=150, held=150)]))]
[0, 100, 150, 151, 200, 300]
>>> [t for t in range(0, 301, 7) if Every(100).due(Clock(step=t, previous=t - 7))]
[0, 105, 203]

``Log`` and ``OnLearningRateChange`` begin a pair (t, t + 1) at one moment of three, so that motion at one lag and
oscillation of period 2 are seen:

>>> [(t, due.window) for t in range(70) if (due := Log().due(Clock(step=t)))][-6:]
[(11, 1), (16, 1), (23, 2), (32, 1), (45, 1), (64, 2)]
"""

from __future__ import annotations

from kerneltrack.schedule.clock import Clock, Due, Extent, RateChange
from kerneltrack.schedule.events import OnLearningRateChange, OnMetricChange, Seconds
from kerneltrack.schedule.grids import At, Epochs, Every, Log
from kerneltrack.schedule.rate_steps import Kind, StepDetector, StepRule
from kerneltrack.schedule.reading import parse, read
from kerneltrack.schedule.schedule import Schedule, Union, Wanted, wanted_of_all

__all__ = [
    "At",
    "Clock",
    "Due",
    "Epochs",
    "Every",
    "Extent",
    "Kind",
    "Log",
    "OnLearningRateChange",
    "OnMetricChange",
    "RateChange",
    "Schedule",
    "Seconds",
    "StepDetector",
    "StepRule",
    "Union",
    "Wanted",
    "parse",
    "read",
    "wanted_of_all",
]
