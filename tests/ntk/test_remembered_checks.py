"""What was found out about a module with one call is not taken for an answer to another question.

Oracle: a fresh copy of the module, of which nothing is known, is refused.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import AuditError, UnsupportedModelError
from kerneltrack.ntk.methods import Execution
from tests.ntk.models import With


def coupled():
    return With(lambda m, x: m.body(x) + m.body(x).mean(0), body=nn.Linear(4, 3)).double()


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_one_sample_says_nothing_of_coupling(method):
    """Fails where a check with one sample is remembered for the batch: one sample alone is its own mean."""
    model, x = coupled(), torch.randn(5, 4, dtype=torch.float64)
    kt.empirical_ntk(model, x[:1], method=method)
    for module in (model, coupled()):
        with pytest.raises(UnsupportedModelError, match="couples samples"):
            kt.empirical_ntk(module, x, method=method)


@pytest.mark.audit
def test_every_plan_of_a_module_is_audited(monkeypatch):
    """Fails where the audit's key lacks the plan: what holds for all parameters says nothing of a plan for some."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, run = torch.randn(5, 4, dtype=torch.float64), Execution.add_to
    kt.empirical_ntk(model, x)

    def half(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(0.5)

    monkeypatch.setattr(Execution, "add_to", half)
    with pytest.raises(AuditError, match="disagrees with plain autodiff"):
        kt.empirical_ntk(model, x, params=["2.weight"])
