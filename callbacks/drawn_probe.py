"""A probe drawn from training or validation data, as the network sees them: through Lightning's hooks for a batch."""

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
from kerneltrack.undisturbed import held_generators, preserved_buffers, preserved_generators, preserved_rng

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def training_probe(trainer: Any, n: int, *, seed: int, split: Any, name: str) -> Probe:
    """A probe of n training samples, drawn with its own seed.

    Raises:
        TrackerError: there is no one DataLoader to draw from, or a batch-transfer hook cannot be called here.
    """
    loader = trainer.train_dataloader
    if not hasattr(loader, "dataset") or not hasattr(loader, "collate_fn"):
        raise _no_loader(loader, n)
    return _drawn(trainer, loader, n, seed=seed, split=split, name=name, stage="training")


def validation_probe(trainer: Any, n: int, *, loader: Any, seed: int, split: Any, name: str) -> Probe:
    """A probe of n samples of the validation loader, which training does not see; drawn with its own seed.

    Raises:
        TrackerError: there is no one validation loader, or a batch-transfer hook cannot be called here.
    """
    if not hasattr(loader, "dataset") or not hasattr(loader, "collate_fn"):
        raise _no_validation(loader, n, name)
    drawn = _drawn(trainer, loader, n, seed=seed, split=split, name=name, stage="validating")
    return Probe(drawn.inputs, drawn.targets, name=name, identity={**(drawn.identity or {}), "split": "validation"})


def validation_loader(trainer: Any) -> Any:
    """The validation loader, several, or None; where the fit has not asked for it yet, one that is made for this question."""
    found = trainer.val_dataloaders
    if found is None:  # a fit that validates every tenth epoch asks for it in the tenth
        source = trainer.fit_loop.epoch_loop.val_loop._data_source
        with preserved_rng():
            found = source.dataloader() if source.is_defined() else None
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 else found


def _drawn(trainer: Any, loader: Any, n: int, *, seed: int, split: Any, name: str, stage: str) -> Probe:
    """A probe of a loader's samples as training_step or validation_step would have them; ``stage`` says which."""
    hooks = transfer_hooks(trainer)
    if not hooks:
        return Probe.from_dataloader(loader, n, seed=seed, split=split, name=name)
    # The same loader, whose batches come as the step has them.
    seen = SimpleNamespace(
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        sampler=getattr(loader, "sampler", None),
        collate_fn=lambda samples: _transferred(trainer, loader.collate_fn(samples), hooks, n, seed, stage),
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


def _transferred(trainer: Any, batch: Any, hooks: tuple[str, ...], n: int, seed: int, stage: str) -> Any:
    """The batch as the step of that stage would have it. What the hooks draw is drawn with the probe's seed."""
    module = trainer.lightning_module
    own = held_generators([vars(owner) for owner in (module, trainer.datamodule) if owner is not None], depth=2)
    with (
        preserved_rng(),
        preserved_generators(*own),
        preserved_buffers(module),
        _plain_values(module, trainer.datamodule),
        _in_stage(trainer, stage),
    ):
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
                expected="hooks that take a batch of the DataLoader's samples",
                got=f"{type(error).__name__}: {error}",
                remedy="Give the tracker probe=Probe(inputs, targets), as training_step receives them.",
            ) from error


@contextmanager
def _in_stage(trainer: Any, stage: str) -> Iterator[None]:
    """What hooks ask the trainer about: an augmentation that is for training only leaves validation samples alone."""
    before = trainer.state.stage
    try:
        setattr(trainer, stage, True)
        yield
    finally:
        trainer.state.stage = before


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


def _no_validation(loader: Any, n: int, name: str) -> TrackerError:
    several = isinstance(loader, (Mapping, list, tuple)) and len(loader) > 1
    return TrackerError(
        f"probe={{{name!r}: {n}}}",
        expected="one validation DataLoader to draw samples from",
        got=f"{len(loader)} of them" if several else "none" if not loader else type(loader).__name__,
        remedy="Give the fit one, or the samples themselves: Probe(inputs, targets, identity={'split': 'validation'}).",
    )


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
