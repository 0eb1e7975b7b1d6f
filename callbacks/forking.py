"""What a Lightning trainer needs to go on from a moment: its checkpoint, without what belongs to the run's own files."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """The fit that a fork is of.

    Attributes:
        trainer: a weak reference.
        module: a weak reference.
        data: the arguments by which ``fit`` was given its loaders; none where the module has them.
        validates: whether it validates as it trains. Each validation draws random numbers, and its control must draw them too.
    """

    trainer: Callable[[], Any]
    module: Callable[[], Any]
    data: tuple[str, ...]
    validates: bool

    @classmethod
    def of(cls, trainer: Any, module: Any) -> Source:
        """The fit that is under way."""
        validates = does_validate(trainer)
        return cls(weakref.ref(trainer), weakref.ref(module), _data_of(trainer, validates=validates), validates)


def does_validate(trainer: Any) -> bool:
    """Whether a fit that has begun validates."""
    return bool(sum(trainer.num_val_batches) > 0)


def _data_of(trainer: Any, *, validates: bool) -> tuple[str, ...]:
    if trainer.datamodule is not None:
        return ("datamodule",)
    if trainer.fit_loop._data_source.is_module():
        return ()
    return ("train_dataloaders", *["val_dataloaders"] * validates)


def checkpoint_of(trainer: Any, tracker: Any) -> dict[str, Any]:
    """The checkpoint of this moment, less weights and optimizers, which a fork has in copies of its own.

    Checkpoint callbacks are left out: they know the run's files, and would go on with them. So are the trackers, and what a
    loader says of itself, which is one batch ahead of the update that begins.
    """
    found: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    for name in ("state_dict", "optimizer_states"):
        found.pop(name, None)
    ours = {c.state_key for c in trainer.checkpoint_callbacks} | {tracker.state_key}
    ours |= {c.state_key for c in trainer.callbacks if isinstance(c, type(tracker))}
    found["callbacks"] = {key: state for key, state in found.get("callbacks", {}).items() if key not in ours}
    loops = found.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
    loops.pop("combined_loader", None)
    return found
