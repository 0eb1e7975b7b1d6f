"""A loader that Lightning Fabric has wrapped: the DataLoader inside, and how often the wrapper has begun an epoch."""

from __future__ import annotations

from typing import Any


def is_wrapped(loader: Any) -> bool:
    """Whether it is Fabric's wrapper, of either import root."""
    return type(loader).__name__ == "_FabricDataLoader"


def inside(loader: Any) -> Any:
    """The DataLoader that makes the iterators: of a wrapper the one in it, else the loader itself."""
    return loader._dataloader if is_wrapped(loader) else loader


def epochs_begun(loader: Any) -> int | None:
    """How often the wrapper was iterated: what it tells a sampler that has ``set_epoch``. None of any other loader."""
    return int(loader._num_iter_calls) if is_wrapped(loader) else None


def begin_at(loader: Any, epochs: int | None) -> None:
    """Let the wrapper count on from ``epochs``; nothing where that is None."""
    if epochs is not None:
        loader._num_iter_calls = epochs
