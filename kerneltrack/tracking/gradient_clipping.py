"""By how much the gradients of an update are shortened, told by those that the parameters have before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from kerneltrack.distributed import whole
from kerneltrack.errors import TrackerError
from kerneltrack.training import Clipping

#: What torch and Lightning add to a norm before they divide by it.
_BESIDE = 1e-6
#: Why a factor is not known before the update.
UNTOLD = "gradients are clipped, and there was no update that says by how much"
_UNTOLD_NORM = "gradients are clipped, and the loop has not told their norm: tracker.clipped(clip_grad_norm_(...))"
#: Gradients below this share of the bound were not clipped: those that were are shorter by 1e-6 over their norm.
_NEAR = 0.99


def clipped(optimizer: Optimizer, bound: float, *, by_value: bool) -> Clipping:
    """What clipping at ``bound`` does to the gradients that ``optimizer``'s parameters have now. Collective for sharded ones."""
    return of_size(size_now(optimizer, by_value=by_value), bound, by_value=by_value)


def size_now(optimizer: Optimizer, *, by_value: bool) -> float:
    """The norm of the gradients that ``optimizer``'s parameters have now, or their largest entry."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients, math.inf if by_value else 2.0)
    return float(whole(total)) if gradients else 0.0


def of_size(size: float, bound: float, *, by_value: bool) -> Clipping:
    """The same from the gradients' size before they are clipped: their norm, or their largest entry."""
    if not math.isfinite(size):
        return Clipping(None, "the gradients that were to be clipped are not finite")
    if by_value:
        return Clipping(1.0) if size <= bound else Clipping(None, "gradients are clipped by value")
    return Clipping(min(1.0, bound / (size + _BESIDE)))


@dataclass(frozen=True)
class Bound:
    """At what size a loop clips its gradients.

    Attributes:
        size: the largest norm, or the largest entry.
        by_value: whether it is of each entry.
    """

    size: float
    by_value: bool

    @classmethod
    def of(cls, given: Any) -> Bound | None:
        """None, a norm, or ("norm", bound) or ("value", bound).

        Raises:
            TrackerError: anything else.
        """
        if given is None:
            return None
        kind, size = given if isinstance(given, (tuple, list)) and len(given) == 2 else ("norm", given)
        plain = isinstance(size, (int, float)) and not isinstance(size, bool)
        if kind not in ("norm", "value") or not plain or not 0 < size < math.inf:
            raise TrackerError(
                "clip",
                expected='None, the bound of clip_grad_norm_, or ("value", the bound of clip_grad_value_)',
                got=repr(given),
                remedy="clip=1.0 where the loop calls clip_grad_norm_(model.parameters(), 1.0).",
            )
        return cls(float(size), kind == "value")

    def __str__(self) -> str:
        return f"by {'value' if self.by_value else 'norm'}, at {self.size:g}"

    def done_to(self, optimizer: Optimizer, told: float | None) -> Clipping:
        """What was done to the gradients that ``optimizer``'s parameters have now, at its step.

        Args:
            optimizer: about to step.
            told: the gradients' size before, where the loop has told it.
        """
        if told is not None:
            return of_size(told, self.size, by_value=self.by_value)
        now = size_now(optimizer, by_value=self.by_value)
        if math.isfinite(now) and now >= _NEAR * self.size:
            how = "gradients are clipped by value" if self.by_value else _UNTOLD_NORM
            return Clipping(None, how)
        return of_size(now, self.size, by_value=self.by_value)
