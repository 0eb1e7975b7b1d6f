"""Clipping: by how much a Lightning trainer shortens the gradients of an update, read before it does."""

from __future__ import annotations

import math
from typing import Any

import torch

from kerneltrack.distributed import whole
from kerneltrack.training import Clipping

#: What Lightning adds to a norm before it divides by it, as torch does.
_BESIDE = 1e-6
_OWN = "the module clips gradients in a way of its own"
_LIGHTNING = ("pytorch_lightning", "lightning")


def announced(trainer: Any, module: Any) -> Clipping | None:
    """What is known before an update: None where nothing is clipped."""
    own = getattr(type(module), "configure_gradient_clipping", None)
    if own is not None and str(own.__module__).partition(".")[0] not in _LIGHTNING:
        return Clipping(None, _OWN)
    if not trainer.gradient_clip_val:
        return None
    return Clipping(None, "gradients are clipped, and there was no update that says by how much")


def described(trainer: Any, module: Any) -> str:
    """How gradients are clipped, for the provenance; "" where they are not."""
    known = announced(trainer, module)
    if known is None or known.reason == _OWN:
        return "" if known is None else _OWN
    return f"by {'value' if _by_value(trainer) else 'norm'}, at {trainer.gradient_clip_val:g}"


def of_update(trainer: Any, module: Any, optimizer: Any) -> Clipping | None:
    """What the trainer is about to do to the gradients that ``optimizer``'s parameters have now. Collective for sharded ones."""
    known, bound = announced(trainer, module), trainer.gradient_clip_val
    if known is None or known.reason == _OWN:
        return known
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    by_value = _by_value(trainer)
    total = torch.nn.utils.get_total_norm(gradients, math.inf if by_value else 2.0)
    size = float(whole(total)) if gradients else 0.0
    if not math.isfinite(size):
        return Clipping(None, "the gradients that were to be clipped are not finite")
    if by_value:
        return Clipping(1.0) if size <= bound else Clipping(None, "gradients are clipped by value")
    return Clipping(min(1.0, bound / (size + _BESIDE)))


def _by_value(trainer: Any) -> bool:
    return str(getattr(trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm)) == "value"
