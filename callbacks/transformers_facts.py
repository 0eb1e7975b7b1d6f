"""What the events of transformers' Trainer say of a training, and what they leave to be told by its loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from kerneltrack.distributed import Ranks
from kerneltrack.errors import TrackerError
from kerneltrack.snapshot import Json
from kerneltrack.tracking import UNTOLD, Bound, check_parameters, model_of, optimizers_of
from kerneltrack.training import Clipping

from .sample_counts import SampleCounts


class TrainingFacts:
    """:class:`kerneltrack.tracking.Facts` of a training by transformers' Trainer; its events move it on.

    Args:
        args: the TrainingArguments.
        state: the TrainerState of this training.
        model, optimizer, loader: as the Trainer hands them to its callbacks when the training begins.
    """

    def __init__(self, args: Any, state: Any, model: Any, optimizer: Any, loader: Any) -> None:
        self._args, self._state = args, state
        self.model, self.optimizers, self.loader = model_of(model), optimizers_of(optimizer), loader
        self.bound = Bound.of(float(args.max_grad_norm)) if (args.max_grad_norm or 0) > 0 else None
        self.metrics: dict[str, float] = {}
        self.scalars: dict[str, float] = {}
        per_epoch = self._updates_per_epoch
        begun = 0 if args.ignore_data_skip else self.step % per_epoch if per_epoch else self.step
        self.epoch = (self.step // per_epoch if per_epoch else 0) - 1  # the first epoch begins yet
        self.batch_idx = self._skipped = begun * self.accumulated
        self._sizes = SampleCounts.of(loader)

    def check(self) -> None:
        """That the parameters can be read, and are those that the optimizer moves.

        Raises:
            TrackerError: DeepSpeed, FSDP1, or an optimizer of other parameters.
        """
        if getattr(self._args, "deepspeed", None):
            raise TrackerError(
                "NTKTrackerCallback with DeepSpeed",
                expected="a Trainer on one device, or under DistributedDataParallel",
                remedy="Use one of these, or save checkpoints and measure them with `kerneltrack track`.",
            )
        check_parameters(self.model, self.optimizers)

    def begin_epoch(self) -> None:
        """An epoch begins, a resumed one in its middle."""
        self.epoch, self.batch_idx, self._skipped = self.epoch + 1, self._skipped, 0

    def end(self) -> None:
        """The training ends: the state that it leaves belongs to the next epoch, where the last one is complete."""
        self.epoch += self._batches is not None and self.batch_idx >= self._batches

    @property
    def samples(self) -> int:
        """In the batch under way; -1 where its loader does not say."""
        return self._sizes.of_batch(self.batch_idx)

    def saw(self, numbers: Mapping[str, Any]) -> None:
        """What was logged, or found by an evaluation."""
        self.metrics |= {name: float(value) for name, value in numbers.items() if isinstance(value, (int, float))}

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def clipping(self) -> Clipping | None:
        return None if self.bound is None else Clipping(None, UNTOLD)

    @property
    def step(self) -> int:
        return int(self._state.global_step)

    @property
    def starts_epoch(self) -> bool:
        return self.batch_idx == 0

    @property
    def ends_epoch(self) -> bool:
        batches = self._batches
        return batches is None or self.batch_idx + 1 >= batches

    @property
    def accumulated(self) -> int:
        return int(self._args.gradient_accumulation_steps)

    @property
    def last_step(self) -> int | None:
        return int(self._state.max_steps) or None

    @property
    def steps_per_epoch(self) -> float | None:
        return self._updates_per_epoch

    @property
    def _batches(self) -> int | None:
        """In an epoch; None where the loader has no length."""
        try:
            return len(self.loader) or None
        except TypeError:
            return None

    @property
    def _updates_per_epoch(self) -> int | None:
        """A last window of fewer batches is an update, too."""
        return None if self._batches is None else math.ceil(self._batches / self.accumulated)

    def provenance(self) -> dict[str, Json]:
        precision = next((kind for kind in ("fp16", "bf16") if getattr(self._args, kind, False)), "")
        parameter = next(self.model.parameters(), None)
        plain = "" if parameter is None else str(parameter.dtype).removeprefix("torch.")
        return {
            "clipping": "" if self.bound is None else str(self.bound),
            "precision": f"{precision}-mixed" if precision else plain,
            "strategy": "transformers.Trainer",
            "world_size": Ranks.current().size,
        }

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Kept for what the Trainer logs next."""
        del step
        self.scalars = dict(scalars)
