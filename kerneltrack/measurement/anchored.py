"""Anchored: what the network linearised at θ_0 misses of f_t, where float32 would tell the rounding of f_t − f_0 instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.parameter_motion import Tensors
from kerneltrack.ntk import Network, NetworkState, fineness
from kerneltrack.observables import missed_by_rounding
from kerneltrack.snapshot import Array


def finest_miss(
    network_at: Callable[..., Network],
    start: NetworkState,
    inputs: Any,
    moved: Tensors,
    read: Callable[[Tensor], Array],
    *,
    change: Array,
    outputs: Array,
    epsilon: float,
) -> Array:
    """f_t − f_0 − J_0 (θ_t − θ_0) (N, O) in float64.

    Args:
        network_at: makes the network of today, or with ``anchor=`` that of then, in a ``dtype``.
        start: the state at θ_0.
        inputs: N samples.
        moved: θ_t − θ_0.
        read: a linear map, outputs (N, O) → float64 as the kernel meets them.
        change: f_t − f_0 in the network's own arithmetic.
        outputs: f_t in it.
        epsilon: its spacing.

    Raises:
        NotMeasured: the network has no finer arithmetic, or none that is fine enough.
    """
    then, now = (network_at(anchor=anchor, dtype=torch.float64) for anchor in (start, None))
    fine = fineness(now, inputs)
    if not fine.epsilon < epsilon:
        raise NotMeasured(fine.lacking)
    outputs_then, linear = then.linearized(inputs, moved)
    missed = read(now.outputs(inputs)) - read(outputs_then) - read(linear)
    if fine.lacking and missed_by_rounding(change, change - missed, outputs, fine.epsilon):
        raise NotMeasured(fine.lacking)
    return missed
