"""How many samples each batch of an epoch has, told by its loader: events of a Trainer do not show the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import BatchSampler


@dataclass(frozen=True)
class SampleCounts:
    """The samples that one process gets in each batch of an epoch.

    Attributes:
        full: in a batch that is not the last; None where nobody says.
        samples: in the epoch; None where every batch is full.
    """

    full: int | None
    samples: int | None = None

    @classmethod
    def of(cls, loader: Any) -> SampleCounts:
        """By the loader's batch sampler, torch's own or accelerate's share of it; of another one nothing is known."""
        batches: Any = getattr(loader, "batch_sampler", None)
        shares = int(getattr(batches, "num_processes", 1))
        inner: Any = getattr(batches, "batch_sampler", batches)
        if type(inner) is not BatchSampler or not hasattr(inner.sampler, "__len__"):
            return cls(None)
        if inner is batches:
            samples: Any = inner.sampler
            return cls(inner.batch_size, None if inner.drop_last else len(samples))
        if not batches.even_batches and not inner.drop_last:
            return cls(None)  # the last batches differ between processes
        return cls(inner.batch_size // shares if batches.split_batches else inner.batch_size)

    def of_batch(self, index: int) -> int:
        """In the batch of this index in its epoch; -1 where that is unknown."""
        if self.full is None:
            return -1
        return self.full if self.samples is None else max(0, min(self.full, self.samples - index * self.full))
