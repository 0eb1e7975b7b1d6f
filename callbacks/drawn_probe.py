"""A probe drawn from the training data, as the network sees them: through the hooks that Lightning puts a batch through."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kerneltrack.errors import TrackerError
from kerneltrack.probe import Probe
from kerneltrack.snapshot import Json
from kerneltrack.undisturbed import preserved_buffers, preserved_rng

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def training_probe(trainer: Any, n: int, *, seed: int, split: Any, name: str) -> Probe:
    """A probe of n training samples, drawn with its own seed.

    Raises:
        TrackerError: there is no one DataLoader to draw from, or a batch-transfer hook cannot be called here.
    """
    loader = trainer.train_dataloader
    if not hasattr(loader, "dataset") or not hasattr(loader, "collate_fn"):
        raise _no_loader(loader, n)
    hooks = transfer_hooks(trainer)
    if not hooks:
        return Probe.from_dataloader(loader, n, seed=seed, split=split, name=name)
    # The same loader, whose batches come as training_step has them.
    seen = SimpleNamespace(
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=lambda samples: _transferred(trainer, loader.collate_fn(samples), hooks, n, seed),
    )
    drawn = Probe.from_dataloader(seen, n, seed=seed, split=split, name=name)
    identity: dict[str, Json] = {**(drawn.identity or {}), "transform": list(hooks)}
    return Probe(drawn.inputs, drawn.targets, name=name, identity=identity)


def transfer_hooks(trainer: Any) -> tuple[str, ...]:
    """The batch-transfer hooks that the module or the datamodule has of its own, as "Class.hook"."""
    owners = [owner for owner in (trainer.datamodule, trainer.lightning_module) if owner is not None]
    return tuple(f"{type(o).__name__}.{hook}" for hook in HOOKS for o in owners if _is_own(o, hook))


def _is_own(owner: Any, hook: str) -> bool:
    """Whether a class of the user's overrides the hook, or the object itself does."""
    if hook in vars(owner):
        return True
    for kind in type(owner).__mro__:
        if hook in vars(kind):
            return kind.__module__.partition(".")[0] not in ("pytorch_lightning", "lightning")
    return False


def _transferred(trainer: Any, batch: Any, hooks: tuple[str, ...], n: int, seed: int) -> Any:
    """The batch as training_step would have it. What the hooks draw is drawn with the probe's seed."""
    module = trainer.lightning_module
    with preserved_rng(), preserved_buffers(module), _plain_values(module, trainer.datamodule):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        except Exception as error:  # whatever a user's hook says of a batch that it cannot take
            raise TrackerError(
                f"probe={n} cannot be put through {', '.join(hooks)}",
                expected="hooks that take a batch of the training DataLoader's samples",
                got=f"{type(error).__name__}: {error}",
                remedy="Give the tracker probe=Probe(inputs, targets), as training_step receives them.",
            ) from error


@contextmanager
def _plain_values(*owners: Any) -> Iterator[None]:
    """Put back the numbers, texts and flags that the hooks' owners keep (a counter of batches, say)."""
    plain = (bool, int, float, str, type(None))
    kept = [(o, {k: v for k, v in vars(o).items() if isinstance(v, plain)}) for o in owners if o is not None]
    try:
        yield
    finally:
        for owner, values in kept:
            vars(owner).update(values)


def _no_loader(loader: Any, n: int) -> TrackerError:
    several = isinstance(loader, (Mapping, list, tuple))
    mine: Callable[[str], str] = "Give the tracker probe={}.".format
    return TrackerError(
        f"probe={n}",
        expected="one training DataLoader to draw samples from",
        got=f"{len(loader)} of them" if several else type(loader).__name__,
        remedy=mine('{"a": Probe.from_dataloader(loader_a, 256), …}, one probe for each loader, or of one of them')
        if several
        else mine("Probe(inputs, targets)"),
    )
