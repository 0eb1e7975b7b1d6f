"""Whether the weights that are measured are those that the last update made, or what another callback put in their place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.tracking import FOREIGN


class TrainedWeights:
    """Remembers what the last update of an epoch left, by two sums a parameter.

    Callbacks that average weights put them in between epochs and at the end of a fit; inside an epoch nothing is asked, so an
    update costs nothing.
    """

    def __init__(self) -> None:
        self._left: Tensor | None = None
        self._step = -1
        self._foreign: Tensor | None = None  # what was put in, until an update moves it

    def after_batch(self, trainer: Any, module: nn.Module) -> None:
        """Called when a batch has ended, before other callbacks begin another epoch or end the fit."""
        ends = trainer.is_last_batch or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        self._left, self._step = (_sums(module), trainer.global_step) if ends else (None, -1)
        if self._foreign is not None and self._left is not None and getattr(trainer.fit_loop, "_skip_backward", False):
            self._foreign = self._left  # the pass for the statistics of norms: its step uses gradients of before

    def before_batch(self, trainer: Any, module: nn.Module) -> None:
        """Called when a batch begins: what was put in at the beginning of an epoch is noticed whether a row is due or not."""
        if self._left is not None:
            self.remark(trainer, module)
            self._left = None

    def remark(self, trainer: Any, module: nn.Module) -> str:
        """What a row of the state now must say; "" where it holds the weights that were trained, as far as is known."""
        left = self._left if self._step == trainer.global_step else None
        if left is None and self._foreign is None:
            return ""
        now = _sums(module)
        if self._foreign is None or not _equal(now, self._foreign):
            self._foreign = None if left is None or _equal(now, left) else now
        if self._foreign is None:
            return ""
        others = [type(c).__name__ for c in trainer.callbacks if _averages(c)]
        by = f" ({', '.join(others)})" if others else ""
        return f"{FOREIGN}{by}"


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _averages(callback: Any) -> bool:
    names = " ".join(kind.__name__ for kind in type(callback).__mro__).lower()
    return any(word in names for word in ("averag", "ema", "swa"))


@torch.no_grad()
def _sums(module: nn.Module) -> Tensor:
    """The sum and the norm of every floating parameter, in float64, on the device: equal weights give equal bits."""
    local = [getattr(p, "to_local", lambda p=p: p)() for p in module.parameters() if p.is_floating_point()]
    found = [s for p in local for s in (p.sum(dtype=torch.float64), torch.linalg.vector_norm(p, dtype=torch.float64))]
    return torch.stack([value.to(found[0].device) for value in found]) if found else torch.zeros(0)
