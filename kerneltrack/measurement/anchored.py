"""Anchored: what the network linearised at θ_0 misses of f_t, where float32 would tell the rounding of f_t − f_0 instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kerneltrack.measurement.parameter_motion import Tensors
from kerneltrack.ntk import Network, NetworkState
from kerneltrack.snapshot import Array


def finest_miss(
    network_at: Callable[..., Network],
    start: NetworkState,
    inputs: Any,
    moved: Tensors,
    read: Callable[[Tensor], Array],
    *,
    otherwise: Array,
) -> Array:
    """f_t − f_0 − J_0 (θ_t − θ_0) (N, O) in float64; ``otherwise`` where the network has no finer arithmetic.

    Args:
        network_at: makes the network of today, or with ``anchor=`` that of then, in a ``dtype``.
        start: the state at θ_0.
        inputs: N samples.
        moved: θ_t − θ_0.
        read: a linear map, outputs (N, O) → float64 as the kernel meets them.
        otherwise: the same in the network's own arithmetic.
    """
    try:
        then, now = (network_at(anchor=anchor, dtype=torch.float64) for anchor in (start, None))
        missed = read(now.outputs(inputs)) - read(then.outputs(inputs))
        return missed - read(then.jvp(inputs, moved))
    except Exception:  # noqa: BLE001  # a device or a forward without float64; its own arithmetic is what there is
        return otherwise
