"""params= and tied parameters. Oracle: the double loop over plain autograd, which knows a tensor and not its names."""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import KerneltrackError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian


def tied():
    """One weight under two names, the first and the last of the model."""
    torch.manual_seed(0)
    model = With(
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))), a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4)
    )
    model.c.weight = model.a.weight
    return model.double(), torch.randn(5, 4, dtype=torch.float64)


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize(
    "params",
    [["a.weight"], ["c.weight"], "c.weight", ["a.weight", "c.weight"], lambda name: name == "c.weight"],
    ids=["first", "second", "text", "both", "predicate"],
)
def test_a_tied_parameter_is_selected_by_any_of_its_names(params, method):
    """Fails where the second name is dropped, or counts beside the first."""
    model, x = tied()
    rows = {"a.weight": jacobian(model, x)["a.weight"]}
    expected = contract(rows, rows, "full")
    assert distance(kt.empirical_ntk(model, x, params=params, method=method), expected) < EXACT
    layers = kt.empirical_ntk(model, x, params=params, method=method, by_layer=True)
    assert list(layers) == ["a"]


def test_a_second_name_beside_another_parameter():
    """Fails where the second name is dropped in silence: nothing is empty, and the kernel is that of the bias alone."""
    model, x = tied()
    rows = {name: block for name, block in jacobian(model, x).items() if name in ("a.weight", "b.bias")}
    found = kt.empirical_ntk(model, x, params=["b.bias", "c.weight"])
    assert distance(found, contract(rows, rows, "full")) < EXACT


def test_a_name_that_there_is_not_is_refused():
    model, x = tied()
    with pytest.raises(KerneltrackError, match=r"there is no parameter 'd\.weight'"):
        kt.empirical_ntk(model, x, params=["c.weight", "d.weight"])
