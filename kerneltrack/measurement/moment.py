"""The moment of a run at which a state is measured."""

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
