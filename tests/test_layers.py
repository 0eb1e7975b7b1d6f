"""The layers of a run's values. Oracle: the closed form of a sum of scalings, f(x) = Σ_l w_l x, with Θ_l = x xᵀ each."""

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.layers import MOST, Layers
from kerneltrack.measurement.references import RunReferences
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

X = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
NAMES = ["layer_share", "layer_trace", "layer_frobenius", "layer_parameter_distance", "ledger_remainder", "gate_flips"]


class Scalings(nn.Module):
    def __init__(self, count, trained):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList(nn.Linear(1, 1, bias=False).double() for _ in range(count))
        self.train_only(trained)

    def train_only(self, trained):
        for index, part in enumerate(self.parts):
            part.requires_grad_(index in trained)

    def forward(self, x):
        return sum(part(x) for part in self.parts)


def instrument(params=None):
    return Instrument(
        probe=Probe(X, X.sin()),
        params=params,
        loss=ProbeLoss.of("half_mse"),
        observables=select(NAMES),
        method="jacobian",
    )


def measured(of, model, references, step):
    """One measurement and the update that follows: every weight that trains moves by 0.1 (step + 1)."""
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    references.begin(model)
    reading = of.measure(model, rule, step=step, references=references.of("p", step))
    references.keep("p", step, reading.state)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * (step + 1) * p.requires_grad)
    return of.complete(model, reading, rule)


def test_beyond_so_many_layers_those_that_do_not_train_are_one():
    """Two of 520 train at first; three that thaw are "other": as many columns, and the sums of the three."""
    model, of = Scalings(MOST + 8, {2, 5}), instrument()
    references = RunReferences([of])
    first = measured(of, model, references, 0)
    assert of.settings(of.network(model), model(X))["layers"] == ["parts.2", "parts.5", "other"]
    assert first.state.settings["layers"] == ["parts.2", "parts.5", "other"]
    second = measured(of, model, references, 1)
    model.train_only({2, 5, 7, 8, 9})
    third = measured(of, model, references, 2)
    one = float(X.square().sum())
    for reading, traces in ((first, [1, 1, 0]), (second, [1, 1, 0]), (third, [1, 1, 3])):
        np.testing.assert_allclose(reading.values["layer_trace"], np.array(traces) * one)
        np.testing.assert_allclose(reading.values["layer_share"], np.array(traces) / sum(traces))
        np.testing.assert_allclose(reading.values["layer_frobenius"], np.array(traces) * one)
    np.testing.assert_allclose(second.values["layer_parameter_distance"], [0.1, 0.1, 0])
    assert np.isnan(third.values["layer_parameter_distance"]).all()  # of parameters that were not among those of step 0
    # J_l Δθ_l + J_l P J_lᵀ m/N along the modes: of "other" three times that of one
    along = third.state.eigensystem.vectors.T @ X.numpy()
    pull = float(X[:, 0] @ torch.from_numpy(third.state.residual)[:, 0]) / len(X)
    expected = along[:, None] * np.array([1, 1, 3])[:, None] * (0.3 + 0.1 * pull)
    np.testing.assert_allclose(third.values["ledger_remainder"], expected, atol=1e-9)
    assert third.values["gate_flips"].shape == (3,)


@pytest.mark.parametrize(
    "params", [None, lambda name: True, [f"parts.{i}.weight" for i in range(4)]], ids=["all", "predicate", "names"]
)
def test_all_frozen_layers_share_one_kernel(params):
    """A hundred frozen layers cost one array."""
    model, of = Scalings(4, {1}), instrument(params)
    state = measured(of, model, RunReferences([of]), 0).state
    assert state.settings["layers"] == [f"parts.{i}" for i in range(4)]
    zero, kernel, *others = state.layer_kernels.values()
    assert all(other is zero for other in others)
    assert not zero.any()
    np.testing.assert_allclose(kernel[:, :, 0, 0], X @ X.T)


def test_layers_that_params_leaves_out_are_no_columns():
    """But those that train are: the update's parts are of them too. What only they do is no reason to withhold the shares."""
    model, of = Scalings(4, {0, 1}), instrument(["parts.1.weight", "parts.2.weight"])
    references = RunReferences([of])
    assert measured(of, model, references, 0).state.settings["layers"] == ["parts.0", "parts.1", "parts.2"]
    model.train_only({1, 3})
    reading = measured(of, model, references, 1)
    assert reading.values["layer_share"].tolist() == [0, 1, 0]
    assert np.isnan(reading.values["ledger_remainder"]).all()
    assert reading.reasons["ledger_remainder"] == "new layers train: parts.3"


def test_a_layer_called_other_keeps_its_name_where_all_have_a_place():
    model = nn.ModuleDict({"other": nn.Linear(1, 1), "a": nn.Linear(1, 1)})
    assert Layers.of(model, None) == Layers(["other", "a"], rest=False)
    assert Layers.of(model, None).new(["b"]) == "new layers train: b"
