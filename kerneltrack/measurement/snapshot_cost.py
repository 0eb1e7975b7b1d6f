"""The cost of a snapshot: seconds, memory, disk, and how many there will be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SnapshotCost:
    """What a snapshot costs.

    Attributes:
        seconds: of the measurement that was looked at.
        peak_bytes: memory that the largest kernel adds at its peak, by its plan; None where it has none.
        disk_bytes: of the row in the archive.
        states: how many the schedules ask for from this one to the end; None where that is unknown.
        light: how many of these are light.
    """

    seconds: float
    peak_bytes: int | None
    disk_bytes: int
    states: int | None
    light: int = 0
