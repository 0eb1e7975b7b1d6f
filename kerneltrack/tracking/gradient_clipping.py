"""By how much the gradients of an update are shortened, told by those that the parameters have before it."""

from __future__ import annotations

import math

import torch
from torch.optim import Optimizer

from kerneltrack.distributed import whole
from kerneltrack.training import Clipping

#: What torch and Lightning add to a norm before they divide by it.
_BESIDE = 1e-6
#: Why a factor is not known before the update.
UNTOLD = "gradients are clipped, and there was no update that says by how much"


def clipped(optimizer: Optimizer, bound: float, *, by_value: bool) -> Clipping:
    """What clipping at ``bound`` does to the gradients that ``optimizer``'s parameters have now. Collective for sharded ones."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients, math.inf if by_value else 2.0)
    return of_size(float(whole(total)) if gradients else 0.0, bound, by_value=by_value)


def of_size(size: float, bound: float, *, by_value: bool) -> Clipping:
    """The same from the gradients' size before they are clipped: their norm, or their largest entry."""
    if not math.isfinite(size):
        return Clipping(None, "the gradients that were to be clipped are not finite")
    if by_value:
        return Clipping(1.0) if size <= bound else Clipping(None, "gradients are clipped by value")
    return Clipping(min(1.0, bound / (size + _BESIDE)))
