"""What a loop tells its tracker: a loss as one number, and calls in their turn."""

from __future__ import annotations

from typing import Any

import torch

from kerneltrack.errors import TrackerError


def number_of(loss: Any) -> float | None:
    """The loss of an update as a number; None where none was told.

    Raises:
        TrackerError: it is not one number.
    """
    if loss is None:
        return None
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return float(loss.detach())
    if isinstance(loss, (int, float)):
        return float(loss)
    raise TrackerError(
        "the loss of an update",
        expected="one number, or a tensor of one",
        got=f"a tensor of {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else repr(loss),
        remedy="Give the mean over the batch, which went backward; or none.",
    )


def out_of_turn(call: str, expected: str, remedy: str) -> TrackerError:
    """The error of a call at the wrong moment."""
    return TrackerError(f"{call} is out of turn", expected=expected, remedy=remedy)
