"""Clipping: what an update does to its gradients before it uses them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clipping:
    """By how much one update's gradients were shortened.

    Attributes:
        factor: min(1, bound/‖g‖): the update is that of a learning rate so many times as large. None where it is not known, or
            not one number.
        reason: why it is not; "" where it is known.
    """

    factor: float | None
    reason: str = ""
