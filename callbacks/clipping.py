"""Clipping: by how much a Lightning trainer shortens the gradients of an update, read before it does."""

from __future__ import annotations

from typing import Any

from kerneltrack.tracking import UNTOLD, clipped
from kerneltrack.training import Clipping

_OWN = "the module clips gradients in a way of its own"
_LIGHTNING = ("pytorch_lightning", "lightning")


def announced(trainer: Any, module: Any) -> Clipping | None:
    """What is known before an update: None where nothing is clipped."""
    own = getattr(type(module), "configure_gradient_clipping", None)
    if own is not None and str(own.__module__).partition(".")[0] not in _LIGHTNING:
        return Clipping(None, _OWN)
    if not trainer.gradient_clip_val:
        return None
    return Clipping(None, UNTOLD)


def described(trainer: Any, module: Any) -> str:
    """How gradients are clipped, for the provenance; "" where they are not."""
    known = announced(trainer, module)
    if known is None or known.reason == _OWN:
        return "" if known is None else _OWN
    return f"by {'value' if _by_value(trainer) else 'norm'}, at {trainer.gradient_clip_val:g}"


def of_update(trainer: Any, module: Any, optimizer: Any) -> Clipping | None:
    """What the trainer is about to do to the gradients that ``optimizer``'s parameters have now. Collective for sharded ones."""
    known = announced(trainer, module)
    if known is None or known.reason == _OWN:
        return known
    return clipped(optimizer, float(trainer.gradient_clip_val), by_value=_by_value(trainer))


def _by_value(trainer: Any) -> bool:
    return str(getattr(trainer.gradient_clip_algorithm, "value", trainer.gradient_clip_algorithm)) == "value"
