"""Settings of an optimizer's parameter groups: learning rates, momenta, weight decays; read, put back, held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

#: What schedules change. Other entries may be the optimizer's own counters.
NAMES = ("lr", "momentum", "betas", "weight_decay")
#: Of each optimizer and each of its groups, these settings, as far as it has them.
Settings = tuple[tuple[dict[str, Any], ...], ...]


def settings_of(optimizers: Sequence[Optimizer]) -> Settings:
    """Those of all groups now."""
    return tuple(
        tuple({name: _copied(group[name]) for name in NAMES if name in group} for group in o.param_groups)
        for o in optimizers
    )


def rates_of(settings: Settings) -> tuple[float, ...]:
    """The learning rates in them, one for each group."""
    return tuple(float(group["lr"]) for groups in settings for group in groups)


def put_back(optimizers: Sequence[Optimizer], settings: Settings) -> None:
    """Give every group these settings; tensors are written in place, as a captured graph reads them."""
    for optimizer, groups in zip(optimizers, settings, strict=True):
        for group, known in zip(optimizer.param_groups, groups, strict=True):
            for name, value in known.items():
                if isinstance(value, torch.Tensor) and isinstance(group.get(name), torch.Tensor):
                    group[name].copy_(value)
                else:
                    group[name] = _copied(value)


@contextmanager
def held(optimizers: Sequence[Optimizer], settings: Settings) -> Iterator[None]:
    """Every step uses these settings, whatever a scheduler or the loop wrote before it."""
    hooks = [o.register_step_pre_hook(lambda *_: put_back(optimizers, settings)) for o in optimizers]
    put_back(optimizers, settings)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
