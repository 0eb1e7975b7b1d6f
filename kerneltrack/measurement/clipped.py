"""Clipped: what an update that shortens its gradients leaves of the numbers that its learning rate is in.

A measurement belongs to θ_t and to the update that leaves it, but by how much that clips its gradients is known only once they are
there. The quadratic model is stable where η_eff λ_1 is below the threshold, η_eff = η min(1, bound/‖g‖).
"""

from __future__ import annotations

import math
from dataclasses import replace

from kerneltrack.measurement.reading import Reading
from kerneltrack.training import Clipping

#: Power of the learning rate in each observable that has it.
_POWERS = {
    "stability_ratio": 1, "stability_ratio_bias": 1, "stability_bound": -1, "hessian_stability_ratio": 1,
    "batch_stability_ratio": 1,
}  # fmt: skip


def clipped(reading: Reading, by: Clipping | None) -> Reading:
    """The reading with the learning rate as it was used.

    Args:
        reading: measured with the optimizer's own rate.
        by: what its update did; None: nothing is clipped in this run.
    """
    told = [name for name in _POWERS if name in reading.values and math.isfinite(reading.values[name])]
    if by is None or not told:
        return reading
    if by.factor is None:
        values, reasons = dict.fromkeys(told, math.nan), dict.fromkeys(told, by.reason)
        return replace(reading, values={**reading.values, **values}, reasons={**reasons, **reading.reasons})
    scaled = {name: float(reading.values[name]) * by.factor ** _POWERS[name] for name in told}
    return replace(reading, values={**reading.values, **scaled})
