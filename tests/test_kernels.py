"""Per-layer kernels that are not held: where they would be too many numbers, and behind a callable output=."""

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack import Probe, empirical_ntk
from kerneltrack.measurement import kernels
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.observables import select
from kerneltrack.training.update_rule import UpdateRule

RULE = UpdateRule((0.1,), {}, None)


def reading(**options):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    instrument = Instrument(probe=Probe(x), observables=select(("trace", "layer_trace")), **options)
    return net, x, instrument.measure(net, RULE, step=0)


def test_layers_are_measured_up_to_the_limit_and_not_beyond(monkeypatch):
    """Two layers of (5 · 2)² numbers are 200. Oracle: the kernel by itself, whose trace the layers' add up to."""
    monkeypatch.setattr(kernels, "LAYER_NUMBERS", 200)
    net, x, found = reading()
    trace = float(torch.einsum("nnoo->", empirical_ntk(net, x)))
    assert "layer_trace" not in found.reasons
    assert found.values["layer_trace"].sum() == pytest.approx(trace, rel=1e-6)
    monkeypatch.setattr(kernels, "LAYER_NUMBERS", 199)
    *_, found = reading()
    assert found.values["trace"] == pytest.approx(trace, rel=1e-6)
    assert np.isnan(found.values["layer_trace"]).all()
    assert found.reasons["layer_trace"] == "per-layer kernels would need 2.0e+02 numbers; the limit is 2.0e+02"


def test_a_callable_output_has_no_layers():
    *_, found = reading(output=lambda f: f.square())
    assert np.isnan(found.values["layer_trace"]).all()
    assert found.reasons["layer_trace"] == "per-layer kernels are not available with a callable output="
