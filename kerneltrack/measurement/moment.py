"""Moment and SnapshotCost: where in a run a state is, and what measuring it took. Plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where in the run a state is; see :class:`kerneltrack.Snapshot` for the units."""

    step: int
    epoch: int = 0
    batch: int = -1
    samples_seen: int = -1
    train_seconds: float = math.nan


@dataclass(frozen=True, kw_only=True)
class SnapshotCost:
    """What a snapshot costs.

    Attributes:
        seconds: of the measurement that was looked at.
        peak_bytes: memory that the largest kernel adds at its peak, by its plan; None where it has none.
        disk_bytes: of the row in the archive.
        states: how many the schedules ask for until the end; None where it is unknown.
        light: how many of these are light.
    """

    seconds: float
    peak_bytes: int | None
    disk_bytes: int
    states: int | None
    light: int = 0
