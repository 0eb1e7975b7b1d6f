"""What the tracker reads off a Lightning trainer and module: facts, never tensors' arithmetic.

Lightning classes are never compared with ``isinstance``: there are two import roots, and an object of one is not an
instance of the other's classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.snapshot import Json
from kerneltrack.training import Clipping

from . import clipping

#: Strategies whose ``named_parameters()`` are not the parameters, so that a kernel would silently be of something else.
#: ModelParallelStrategy (FSDP2) is not among them: its full parameters can be gathered, see kerneltrack.distributed.unsharded.
SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")


def ranks(trainer: Any) -> Ranks:
    """The processes that train together.

    Raises:
        TrackerError: a strategy that keeps the parameters where they cannot be read (FSDP1, DeepSpeed, XLA's FSDP), or
            several processes without torch.distributed.
    """
    strategy = type(trainer.strategy).__name__
    if any(kind.__name__ in SHARDED for kind in type(trainer.strategy).__mro__):
        raise TrackerError(
            f"NTKTracker with {strategy}",
            expected="one device, DDPStrategy, or ModelParallelStrategy with fully_shard (FSDP2)",
            remedy="Use one of those, or save checkpoints and measure them with `kerneltrack track`.",
        )
    found = Ranks.current() if trainer.world_size > 1 else Ranks()
    if found.size != trainer.world_size:
        raise TrackerError(
            f"NTKTracker with {strategy} on {trainer.world_size} processes",
            expected="processes that communicate through torch.distributed",
            got=f"a process group of {found.size}",
            remedy="Use DDPStrategy or ModelParallelStrategy, or train on one device.",
        )
    return found


def require_trainer(trainer: Any) -> None:
    """Refuse what is no Lightning Trainer by what it lacks: there are two import roots, so no class is asked for."""
    needed = (
        "strategy",
        "world_size",
        "global_step",
        "current_epoch",
        "train_dataloader",
        "lightning_module",
        "callbacks",
    )
    if any(not hasattr(type(trainer), name) and not hasattr(trainer, name) for name in needed):
        raise no_trainer(f"{type(trainer).__module__}.{type(trainer).__qualname__}")


def no_trainer(got: str) -> TrackerError:
    """The error of a tracker that another trainer than Lightning's calls."""
    return TrackerError(
        "NTKTracker",
        expected="the Trainer of pytorch_lightning or lightning.pytorch, which calls it as a callback",
        got=got,
        remedy="Train with Trainer(callbacks=[tracker]). A loop of your own is tracked by kerneltrack.Tracker, the Trainer of "
        "transformers by kerneltrack.callbacks.transformers.NTKTrackerCallback.",
    )


@dataclass(frozen=True)
class TrainerFacts:
    """A moment of a fit: :class:`kerneltrack.tracking.Facts` of a Lightning trainer.

    Attributes:
        trainer: of either import root.
        model: the LightningModule that the hook was called with.
        batch_idx: of the batch that begins or ends, where one does.
    """

    trainer: Any
    model: Any
    batch_idx: int = -1

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]  # of a LightningModule

    @property
    def optimizers(self) -> list[Optimizer]:
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in self.trainer.optimizers]

    @property
    def clipping(self) -> Clipping | None:
        return clipping.announced(self.trainer, self.model)

    @property
    def step(self) -> int:
        return int(self.trainer.global_step)

    @property
    def epoch(self) -> int:
        return int(self.trainer.current_epoch)

    @property
    def starts_epoch(self) -> bool:
        return self.batch_idx == 0

    @property
    def ends_epoch(self) -> bool:
        return bool(self.trainer.is_last_batch)

    @property
    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.trainer.callback_metrics.items()}

    @property
    def loader(self) -> Any:
        return self.trainer.train_dataloader

    @property
    def accumulated(self) -> int:
        return int(self.trainer.accumulate_grad_batches)

    @property
    def last_step(self) -> int | None:
        """By ``max_steps`` or ``max_epochs``; None where neither is set."""
        total = self.trainer.estimated_stepping_batches
        return int(total) if math.isfinite(total) and total > 0 else None

    @property
    def steps_per_epoch(self) -> float | None:
        """None where the loader has no length."""
        batches = self.trainer.num_training_batches
        return math.ceil(batches / self.accumulated) if math.isfinite(batches) and batches else None

    def provenance(self) -> dict[str, Json]:
        return {
            "clipping": clipping.described(self.trainer, self.model),
            "precision": str(self.trainer.precision),
            "strategy": type(self.trainer.strategy).__name__,
            "world_size": int(self.trainer.world_size),
        }

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """To whatever loggers the trainer has."""
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=step)


def loss_scale(trainer: Any) -> float | None:
    """The scale of a loss scaler (16-mixed), which drops when it skips an update; None where there is no scaler."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())


def training_loss(module: Any, outputs: Any, backwards: Sequence[torch.Tensor], accumulated: int) -> float | None:
    """The loss that training_step gave for the batch that ends; None where it gave none.

    Lightning hands over what it goes backward from, which in automatic optimization is divided by the batches of an
    update. An optimizer that evaluates its closure more than once (LBFGS) ends with a loss at other weights; the first
    one is of those that the update leaves.

    Args:
        module: whose step it was.
        outputs: what the trainer hands over at the end of the batch.
        backwards: the loss of each backward pass of the batch.
        accumulated: by how many batches the loss was divided when it was made; a callback may change that afterwards.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not module.automatic_optimization:
        return float(loss) if isinstance(loss, torch.Tensor) and loss.numel() == 1 else None
    if len(backwards) > 1:
        loss = backwards[0]
    return float(loss) * accumulated if isinstance(loss, torch.Tensor) else None
