"""Loop: a training loop of the user's own, as far as its tracker is told of it: the facts of a plain loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.ntk import unwrap
from kerneltrack.snapshot import Json
from kerneltrack.tracking.gradient_clipping import UNTOLD, Bound
from kerneltrack.training import Clipping

#: Wrappers whose ``named_parameters()`` are not the parameters. FSDP2 (fully_shard) is not among them.
SHARDED = ("FullyShardedDataParallel", "XlaFullyShardedDataParallel", "DeepSpeedEngine")


class Loop:
    """:class:`kerneltrack.tracking.Facts` of a plain loop; step, epoch and batch are counted as the tracker is called.

    Args:
        model: without its wrappers.
        optimizers: torch's own.
        loader: where training batches come from, or None.
        steps: updates that the run will have in all, or None.
        bound: at which gradients are clipped, or None.
        casts: the precision in which Fabric's wrapper runs the model, where that is not the model's own; else "".
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        loader: Any,
        steps: int | None,
        bound: Bound | None,
        casts: str = "",
    ) -> None:
        self.model, self.optimizers, self.loader = model, list(optimizers), loader
        self.last_step, self.bound, self.casts = steps, bound, casts
        self.step = self.epoch = self.batch_idx = 0
        self.metrics: dict[str, float] = {}
        self.scalars: dict[str, float] = {}
        self.accumulated = 1

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def clipping(self) -> Clipping | None:
        return None if self.bound is None else Clipping(None, UNTOLD)

    @property
    def starts_epoch(self) -> bool:
        return self.batch_idx == 0

    @property
    def ends_epoch(self) -> bool:
        """True where the loader does not say how many batches an epoch has: then none can be told from the last."""
        return self.length is None or self.batch_idx + 1 >= self.length

    @property
    def length(self) -> int | None:
        """Batches in an epoch; None where the loader has no length."""
        try:
            return len(self.loader) or None
        except TypeError:
            return None

    @property
    def steps_per_epoch(self) -> float | None:
        """One batch an update: how many are accumulated shows only later."""
        return self.length

    def provenance(self) -> dict[str, Json]:
        parameter = next(self.model.parameters(), None)
        return {
            "clipping": "" if self.bound is None else str(self.bound),
            "precision": "" if parameter is None else str(parameter.dtype).removeprefix("torch."),
            "strategy": "kerneltrack.Tracker",
            "world_size": Ranks.current().size,
        }

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Kept for the loop's own logger; see :attr:`kerneltrack.Tracker.scalars`."""
        del step
        self.scalars = dict(scalars)

    def enter(self, epoch: int | None) -> None:
        """The next batch is of this epoch; None: as the loader's length says."""
        if epoch is None:
            epoch = self.epoch + (self.length is not None and self.batch_idx >= self.length)
        if epoch != self.epoch:
            self.epoch, self.batch_idx = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {"step": self.step, "epoch": self.epoch, "batch_idx": self.batch_idx}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.step, self.epoch, self.batch_idx = (int(state[name]) for name in ("step", "epoch", "batch_idx"))


def model_of(given: Any) -> nn.Module:
    """The user's module, without what DistributedDataParallel, torch.compile or Lightning Fabric wrap around it.

    Raises:
        UnsupportedModelError: what is no module.
    """
    while _is_fabric(given):  # it holds the module twice
        given = given.module
    return unwrap(given)


def casts_of(given: Any) -> str:
    """The precision in which Fabric's wrapper runs the model, "bf16-mixed" for instance; "" where it changes nothing."""
    precision = getattr(getattr(given, "_strategy", None), "precision", None) if _is_fabric(given) else None
    name = str(getattr(precision, "precision", "32-true"))
    return "" if name == "32-true" else name


def _is_fabric(given: Any) -> bool:
    return type(given).__name__ == "_FabricModule"  # of either import root


def optimizers_of(given: Any) -> list[Optimizer]:
    """One optimizer or several, without what other libraries wrap around them.

    Raises:
        TrackerError: anything else.
    """
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    found = [getattr(optimizer, "optimizer", optimizer) for optimizer in found]
    if not found or not all(isinstance(optimizer, Optimizer) for optimizer in found):
        raise TrackerError(
            "optimizer",
            expected="a torch.optim.Optimizer, or a list of them",
            got=repr(given),
            remedy="Give every optimizer that steps on the model's parameters.",
        )
    return found


def check_parameters(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """That these optimizers train this model, and that its parameters can be read.

    Raises:
        TrackerError: none of the parameters is the model's, or a wrapper keeps them elsewhere.
    """
    for child in model.modules():
        wrapper = next((kind.__name__ for kind in type(child).__mro__ if kind.__name__ in SHARDED), None)
        if wrapper is not None:
            raise TrackerError(
                f"Tracker with {wrapper}",
                expected="a module on one device, DistributedDataParallel, or fully_shard (FSDP2)",
                remedy="Use one of those, or save checkpoints and measure them with `kerneltrack track`.",
            )
    own = {id(parameter) for parameter in model.parameters()}
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if not any(id(parameter) in own for parameter in held):
        raise TrackerError(
            "optimizer",
            expected="an optimizer of the model's parameters",
            got=f"{len(held)} other parameters",
            remedy="Make the optimizer from model.parameters(), after the model was moved, copied or wrapped.",
        )
