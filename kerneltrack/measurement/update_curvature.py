"""Slope and curvature of a loss along the update that was made: what its quadratic model says of that step.

Of the loss on the probe, and of the loss on the batches that the update was made from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kerneltrack.measurement.hessian import curvature_along, hessian_of
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.parameter_motion import difference
from kerneltrack.measurement.reading import Reading
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.measurement.trained_on import TrainedOn
from kerneltrack.observables import Update


def bent(
    spec: ProbeSpec, module: nn.Module, reading: Reading, update: Update, trained_on: TrainedOn
) -> tuple[Update, dict[str, str]]:
    """The update with gᵀu and uᵀHu, all of it at θ_t, as far as that is asked for; and need → why it could not be measured.

    Args:
        spec: what is measured.
        module: the network after the update.
        reading: of the state before it, which keeps θ_t.
        update: what it did.
        trained_on: what it was made from; of several batches slope and curvature are the means.
    """
    missing = {}
    if spec.needs("update_curvature"):
        try:
            slope, bend = _along(spec, module, reading)
            update = replace(update, slope=slope, bend=bend)
        except NotMeasured as reason:
            missing["update_curvature"] = str(reason)
    if spec.needs("update_batch"):
        try:
            slope, bend = _along_batches(spec, module, reading, trained_on)
            update = replace(update, batch_slope=slope, batch_bend=bend)
        except NotMeasured as reason:
            missing["update_batch"] = str(reason)
    return update, missing


def _along_batches(spec: ProbeSpec, module: nn.Module, reading: Reading, trained_on: TrainedOn) -> tuple[float, float]:
    """The means over the update's own batches; in eval mode, as everything is measured.

    Raises:
        NotMeasured: there are no batches, or no such loss or Hessian of one.
    """
    if not trained_on.batches:
        raise NotMeasured(trained_on.without)
    found = [_along(replace(spec, probe=batch), module, reading) for batch in trained_on.batches]
    slope, bend = np.mean(found, axis=0)
    return float(slope), float(bend)


def _along(spec: ProbeSpec, module: nn.Module, reading: Reading) -> tuple[float, float]:
    """gᵀu and uᵀHu of the loss on the probe of ``spec``.

    Raises:
        NotMeasured: there is no such loss, or no Hessian of it.
    """
    assert reading.before is not None  # nothing is said of an update whose start is not kept
    before, fine = (
        spec.network(module, every_parameter=True, anchor=reading.before, dtype=dtype)
        for dtype in (None, torch.float64)
    )
    hessian = hessian_of(before, fine, spec.inputs(module), spec.targets(reading.outputs), spec.loss)
    return curvature_along(hessian, difference(before.parameters, reading.before.now(module)))
