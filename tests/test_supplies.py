"""What measures which need. Oracles: the types that State declares, and a supplier that says no."""

import math
from types import NoneType
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.supplies import SUPPLIERS
from kerneltrack.observables import NEEDS, State, select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

#: What every state has, as far as it exists, and what is added once the update has happened.
EVERY = {"eigensystem", "kernel", "outputs", "targets", "residual", "probe_loss", "initial", "previous", "update"}


def test_every_need_is_supplied_and_nothing_else_is():
    assert {field for need in NEEDS.values() for field in need.fields} - EVERY == set(SUPPLIERS)


@pytest.mark.parametrize("field", sorted(SUPPLIERS))
def test_a_supplier_returns_what_state_declares(field):
    """mypy holds a supplier to its own annotation; that this is the field's it cannot see behind the table."""
    declared = set(get_args(get_type_hints(State)[field])) - {NoneType}
    assert declared == {get_type_hints(SUPPLIERS[field])["return"]}


def measured(names):
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3), torch.randn(5, 2)
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(names))
    return instrument.measure(model, rule, step=1)


@pytest.mark.parametrize("reason", ["the weather", ""])
def test_what_a_supplier_does_not_measure_is_nan_with_its_reason_and_costs_nothing_else(monkeypatch, reason):
    """Without a reason it is said what is missing."""

    def refuse(context):
        raise NotMeasured(reason)

    names = ["stability_ratio", "gate_flips", "trace", "parameter_distance"]
    expected = measured(names)
    monkeypatch.setitem(SUPPLIERS, "stability", refuse)
    found = measured(names)
    assert math.isnan(found.values["stability_ratio"])
    assert found.reasons["stability_ratio"] == (reason or "not measured: operator")
    assert found.values["trace"] == expected.values["trace"]
    assert found.state.gates.keys() == expected.state.gates.keys() == {"0"}
    assert found.reasons["parameter_distance"] == "the initial parameters are unknown"
    assert found.state.cross_time is found.state.layer_traces is None
