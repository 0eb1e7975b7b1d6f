"""Batches of the training data for what is measured on batches: drawn once, each with a seed of its own, for all of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerneltrack.errors import ProbeError, TrackerError
from kerneltrack.probe import Probe

#: How many. The mean of a ratio that scatters by its own size is then known to a quarter; what is drawn once costs no scatter
#: from snapshot to snapshot.
COUNT = 16


def training_batches(loader: Any, each: int, draw: Callable[[int, int], Probe]) -> tuple[tuple[Probe, ...], str]:
    """Batches as an update has them, and why there are none.

    Args:
        loader: of training.
        each: batches of the loader in an update, over all processes.
        draw: (samples, number of the batch) → that many of the training data.
    """
    dataset: Any = getattr(loader, "dataset", None)
    size = getattr(loader, "batch_size", None)
    if not hasattr(dataset, "__len__") or not isinstance(size, int):
        return (), "no training loader that tells its data and its batch size"
    samples = min(size * each, len(dataset))
    count = 1 if samples == len(dataset) else COUNT  # there is one batch of everything
    try:
        return tuple(draw(samples, number) for number in range(count)), ""
    except (ProbeError, TrackerError) as error:
        return (), f"no training batches could be drawn: {error.problem}"
