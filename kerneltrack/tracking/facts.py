"""Facts: what a tracker asks of the training loop that it is in. Lightning's trainer and a plain loop both answer it.

Here is the wall: on the far side stands who runs the loop, on this side what is measured of it. A fact is read at the moment
it is needed, never kept, and no tensor's arithmetic is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from kerneltrack.ntk import reported_name
from kerneltrack.snapshot import Json
from kerneltrack.training import Clipping, UpdateRule, learning_rates


class Facts(Protocol):
    """A moment of a training, as its loop knows it."""

    @property
    def model(self) -> nn.Module:
        """The network that is trained, as the loop holds it."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """All that train it, unwrapped."""

    @property
    def clipping(self) -> Clipping | None:
        """What is known of the next update's clipping before it happens; None where gradients are not clipped."""

    @property
    def step(self) -> int:
        """t, the updates so far."""

    @property
    def epoch(self) -> int:
        """The epoch that the next update belongs to, from 0."""

    @property
    def starts_epoch(self) -> bool:
        """Whether the batch is the epoch's first."""

    @property
    def ends_epoch(self) -> bool:
        """Whether the batch is the epoch's last."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the loop has logged last, by name."""

    @property
    def loader(self) -> Any:
        """Where training batches come from: a loader, several in any container, or None where nobody says."""

    @property
    def accumulated(self) -> int:
        """How many batches an update has."""

    @property
    def last_step(self) -> int | None:
        """The step at which training will end; None where nobody says."""

    @property
    def steps_per_epoch(self) -> float | None:
        """Updates in an epoch; None where nobody says."""

    def provenance(self) -> dict[str, Json]:
        """What the archive is told of the loop: "clipping", "precision", "strategy" and "world_size"."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Take a row's scalars to wherever the loop logs."""


def rates(facts: Facts) -> tuple[float, ...]:
    """The learning rates of the next update, read now."""
    return learning_rates(facts.optimizers)


def update_rule(facts: Facts) -> UpdateRule:
    """The rule of the next update, read now."""
    model = facts.model
    # The kernel's names: those without what wrappers (torch.compile) put in the middle.
    names = {id(parameter): reported_name(model, name) for name, parameter in model.named_parameters()}
    return replace(UpdateRule.of(facts.optimizers, names), clipping=facts.clipping)


def has_gradient(optimizer: Optimizer) -> bool:
    """Whether any parameter that ``optimizer`` holds has a gradient; none has where a step of the loop gave no loss."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
