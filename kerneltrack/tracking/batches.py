"""Batches: how many samples one holds, and what an update is made from, where that can be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from kerneltrack.errors import ProbeError
from kerneltrack.measurement import TrainedOn
from kerneltrack.probe import Probe
from kerneltrack.tracking.facts import Facts


def batch_size(facts: Facts, batch: Any) -> int:
    """Samples in a batch; -1, unknown, where its tensors or its loader do not say one number.

    Of several loaders that are read side by side the batches count together.
    """
    loader = facts.loader
    several = isinstance(loader, (Mapping, list, tuple))  # a fit reads them side by side, in whatever mode
    if several and isinstance(batch, (Mapping, list, tuple)):
        sizes = [
            _leading(part) for part in (batch.values() if isinstance(batch, Mapping) else batch) if part is not None
        ]
        return -1 if -1 in sizes else sum(sizes)
    size, full = _leading(batch), getattr(loader, "batch_size", None)
    if not isinstance(full, int) or size == full or (size < full and facts.ends_epoch):
        return size
    return -1  # a list of images, say: their first axis is no batch


def also(known: TrainedOn, batch: Any, split: Callable[[Any], tuple[Any, Any]] | None, *, alone: bool) -> TrainedOn:
    """What an update is made from, with one more batch.

    Args:
        known: its batches so far.
        batch: as the loop has it; None: it handed none over.
        split: batch → (inputs, targets), or None for pairs.
        alone: whether one process trains: of several each has only a part.
    """
    if not alone:
        return TrainedOn((), "an update of several processes, each of which has only a part of its batch")
    if batch is None:
        return TrainedOn()
    try:
        return TrainedOn((*known.batches, Probe.of_batch(batch, split=split, name=f"batch_{len(known.batches)}")))
    except ProbeError as error:
        return TrainedOn((), f"the update's batch cannot be taken apart: {error.problem}")


def _leading(batch: Any) -> int:
    """The first axis that all tensors have; -1 where they differ or there is none."""
    sizes = {int(tensor.shape[0]) for tensor in _tensors(batch) if tensor.ndim}
    return sizes.pop() if len(sizes) == 1 else -1


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):  # UserDict and its kin, which torch's pytree does not open
            yield from _tensors(list(leaf.values()))
        elif dataclasses.is_dataclass(leaf):
            yield from _tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])
