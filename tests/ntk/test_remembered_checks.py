"""What was found out about a module with one call is not taken for an answer to another question.

Oracle: a fresh copy of the module, of which nothing is known, is refused.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import AuditError, UnsupportedModelError
from kerneltrack.ntk.methods import Execution, Jacobian
from kerneltrack.ntk.network import FEW
from tests.ntk.models import With


def coupled():
    return With(lambda m, x: m.body(x) + m.body(x).mean(0), body=nn.Linear(4, 3)).double()


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_one_sample_says_nothing_of_coupling(method):
    """Fails where a check with one sample is remembered for the batch: one sample alone is its own mean.

    Of plain autodiff calls 1, 2, 4, 8, … are audited, and this is the third: an audit looks for coupling itself.
    """
    model, x = coupled(), torch.randn(5, 4, dtype=torch.float64)
    for _ in range(2):
        kt.empirical_ntk(model, x[:1], method=method)
    for module in (model, coupled()):
        with pytest.raises(UnsupportedModelError, match="couples samples"):
            kt.empirical_ntk(module, x, method=method)


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_samples_that_are_new_are_looked_at_closely(method):
    """Fails where the close look at one sample is remembered for others: batches of a few have no coupling here."""

    def coupled_if_many():
        return With(lambda m, x: m.body(x) + (len(x) > FEW) * m.body(x).mean(0), body=nn.Linear(4, 3)).double()

    model, x = coupled_if_many(), torch.randn(2 * FEW, 4, dtype=torch.float64)
    for _ in range(2):  # as above: the third is not audited
        kt.empirical_ntk(model, x[:1], method=method)
    for module in (model, coupled_if_many()):
        with pytest.raises(UnsupportedModelError, match="couples samples"):
            kt.empirical_ntk(module, x, method=method)


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_more_samples_that_hold_the_same_sums_are_new(method):
    """Samples of zeros add nothing to a sum of contents. Fails where the sum alone says which samples were looked at."""

    def coupled_if_all():
        return With(lambda m, x: m.body(x) + (len(x) == 2 * FEW) * m.body(x).mean(0), body=nn.Linear(4, 3)).double()

    model, x = coupled_if_all(), torch.randn(2 * FEW, 4, dtype=torch.float64)
    x[-1] = 0
    for _ in range(2):  # as above: the third is not audited
        kt.empirical_ntk(model, x[:-1], method=method)
    for module in (model, coupled_if_all()):
        with pytest.raises(UnsupportedModelError, match="couples samples"):
            kt.empirical_ntk(module, x, method=method)


def wrong(monkeypatch):
    """From now on every kernel is half of what it is, by structure and by Jacobians."""
    run, rows = Execution.add_to, Jacobian.rows

    def half(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(0.5)

    monkeypatch.setattr(Execution, "add_to", half)
    monkeypatch.setattr(Jacobian, "rows", lambda self, *a: {n: 0.5 * block for n, block in rows(self, *a).items()})


@pytest.mark.audit
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"params": ["2.weight"]}),
        ({"method": "jacobian"}, {"method": "jacobian", "params": ["2.weight"]}),
        ({}, {"by_layer": True}),
        ({}, {"method": "jacobian"}),
        ({}, {"output": "trace"}),
    ],
    ids=["structure of a part", "Jacobian of a part", "layers", "method", "reduction"],
)
def test_every_plan_of_a_module_is_audited(monkeypatch, first, then):
    """Fails where the audit's key lacks the plan: what holds for all parameters says nothing of a plan for some.

    The first plan has had its calls 1 to 4: a fifth and a sixth of the same key are not audited, as the control shows.
    """
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(4):
        right = kt.empirical_ntk(model, x, **first)
    wrong(monkeypatch)
    assert not torch.allclose(kt.empirical_ntk(model, x, **first), right)
    with pytest.raises(AuditError, match="disagrees with plain autodiff"):
        kt.empirical_ntk(model, x, **then)
