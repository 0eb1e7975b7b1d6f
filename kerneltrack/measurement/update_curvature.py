"""The slope and curvature of the probe's loss along the update that was made: what its quadratic model says of that step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from kerneltrack.measurement.hessian import curvature_along, hessian_of
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.parameter_motion import difference
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.observables import Update


def bent(spec: ProbeSpec, module: nn.Module, reading: Reading, update: Update) -> tuple[Update, str]:
    """The update with gᵀu and uᵀHu, all of it at θ_t; or as it is, and why.

    Args:
        spec: what is measured.
        module: the network after the update.
        reading: of the state before it, which keeps θ_t.
        update: what it did.
    """
    assert reading.before is not None  # nothing is said of an update whose start is not kept
    before, fine = (
        spec.network(module, every_parameter=True, anchor=reading.before, dtype=dtype)
        for dtype in (None, torch.float64)
    )
    try:
        hessian = hessian_of(before, fine, spec.inputs(module), spec.targets(reading.outputs), spec.loss)
        slope, bend = curvature_along(hessian, difference(before.parameters, reading.before.now(module)))
    except NotMeasured as reason:
        return update, str(reason)
    return replace(update, slope=slope, bend=bend), ""
