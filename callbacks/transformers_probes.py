"""The probes of a training by transformers' Trainer: samples as its collator joins them, labels taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kerneltrack.errors import ProbeError, TrackerError
from kerneltrack.probe import Probe
from kerneltrack.tracking import Drawn, Measured, ProbeSources


class BatchProbes(ProbeSources):
    """Where the probes come from.

    Args:
        loader: the Trainer's for training.
        labels: what of a batch is no input.
        asked, split, log: as of :class:`kerneltrack.tracking.ProbeSources`.
    """

    def __init__(self, loader: Any, labels: Sequence[str], asked: Measured, split: Any, *, log: bool) -> None:
        super().__init__(asked, split, log=log)
        self._loader, self._labels = loader, tuple(labels)

    def _draw(self, source: Drawn, n: int, *, seed: int, split: Any, name: str) -> Probe:
        if source == "val":
            raise TrackerError(
                f"probe={{{name!r}: {n}}}",
                expected="a Probe: a Trainer shows its callbacks no evaluation data before the first evaluation",
                remedy=f"Draw it yourself: Probe.from_dataloader(trainer.get_eval_dataloader(), {n}, split=...).",
            )
        if not hasattr(self._loader, "dataset") or not hasattr(self._loader, "collate_fn"):
            raise TrackerError(
                f"probe={n}",
                expected="one training DataLoader to draw samples from",
                got=type(self._loader).__name__,
                remedy="Give the tracker probe=Probe(inputs, targets).",
            )
        return Probe.from_dataloader(self._loader, n, seed=seed, split=split or self._without_labels, name=name)

    def _without_labels(self, batch: Any) -> tuple[Any, Any]:
        """A batch as (inputs, targets): what the model is called with, and its labels.

        Raises:
            ProbeError: several labels, or a batch that names nothing.
        """
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return batch[0], batch[1]
        if not isinstance(batch, Mapping):
            raise ProbeError(
                "a batch without names",
                expected="a mapping, as the collators of transformers give it",
                got=type(batch).__name__,
                remedy="Pass split=, a callable batch -> (inputs, targets), or a Probe(inputs, targets).",
            )
        found = [name for name in self._labels if name in batch]
        if len(found) > 1:
            raise ProbeError(
                "a batch with several labels",
                expected=f"one of {', '.join(self._labels)}",
                got=", ".join(found),
                remedy='Pass split=lambda batch: (inputs, targets), e.g. with batch["labels"] as the targets.',
            )
        inputs = {name: value for name, value in batch.items() if name not in found}
        return inputs, batch[found[0]] if found else None
