"""Progress: how far a training has come, counted by the tracker: batches, samples, seconds without measuring."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kerneltrack.measurement import Moment
from kerneltrack.schedule import Clock
from kerneltrack.tracking.facts import Facts, rates


class Progress:
    """Counts from where an earlier fit of the same run came to.

    Args:
        state: of the tracker, as a checkpoint keeps it; empty for a new run.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.batches = int(state.get("batches", 0))
        self.samples = int(state.get("samples_seen", 0))
        self._began = time.perf_counter() - float(state.get("train_seconds", 0.0))

    def count(self, size: int, ranks: int) -> None:
        """One batch of ``size`` samples on each rank; -1: unknown, and so is their number from now on."""
        self.batches += 1
        self.samples = -1 if min(size, self.samples) < 0 else self.samples + size * ranks

    def seconds(self, measuring: float = 0.0) -> float:
        """Since the run began, but for those that went into ``measuring``."""
        return time.perf_counter() - self._began - measuring

    def moment(self, facts: Facts, seconds: float) -> Moment:
        """Where the training stands."""
        return Moment(
            step=facts.step, epoch=facts.epoch, batch=self.batches, samples_seen=self.samples, train_seconds=seconds
        )


def clock(facts: Facts, seconds: float, *, with_metrics: bool) -> Clock:
    """What a schedule looks at, before a batch."""
    return Clock(
        step=facts.step,
        epoch=facts.epoch,
        starts_epoch=facts.starts_epoch,
        learning_rates=rates(facts),
        seconds=seconds,
        metrics=facts.metrics if with_metrics else {},
    )
