"""Fineness: whether a network can be had in float64, where the rounding of its own arithmetic would decide.

A forward pass may not exist there (a constant in float32 in a matrix product, an operator compiled for float32, a device
without float64), or may go through something coarser whatever it is given (``x.float()`` inside).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from kerneltrack.errors import KerneltrackError
from kerneltrack.ntk.network.network import Network

#: What torch, its extensions and checks of a dtype in Python raise of a forward or backward pass that takes no float64;
#: NotImplementedError is a RuntimeError.
_REFUSALS = (RuntimeError, TypeError, ValueError, AssertionError)


@dataclass(frozen=True)
class Fineness:
    """How fine the arithmetic of a network in float64 is.

    Attributes:
        epsilon: the spacing around 1 of the coarsest that takes part; ∞ where no pass exists.
        lacking: why that is not float64's, as the reason of what rounding then decides; "" where it is.
    """

    epsilon: float
    lacking: str = ""


def fineness(network: Network, x: Any) -> Fineness:
    """Tries one sample, forward and backward, once for each plan.

    What else such a pass raises, an error of kerneltrack or a device without memory among it, comes through.

    Args:
        network: with ``dtype=torch.float64``, or inside ``network.in_float64()``.
        x: N samples.
    """
    try:
        epsilon = network.sight(network.inputs(x)).eps
    except (KerneltrackError, torch.OutOfMemoryError):
        raise
    except _REFUSALS as refusal:
        return Fineness(math.inf, f"rounding decides it: the network has no pass in float64 ({type(refusal).__name__})")
    coarse = epsilon > torch.finfo(torch.float64).eps
    return Fineness(epsilon, "rounding decides it: the network computes coarser than in float64" if coarse else "")
