"""What a failed audit says: the cause, where the model is the cause, and a remedy that is right.

Oracle for the remedies: the double loop over autograd.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import AuditError, UnsupportedModelError
from kerneltrack.ntk.methods import Execution
from kerneltrack.ntk.network import independence
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).double()


@pytest.mark.parametrize(
    "coupling", [lambda c: c.mean(0) - c.mean(0).detach(), lambda c: c[-1] - c[-1].detach()], ids=["mean", "last"]
)
def test_coupling_is_asked_for_before_a_plan_is_blamed(monkeypatch, coupling):
    """The look at a few samples is switched off, so that the audit meets the coupled derivative."""
    monkeypatch.setattr(independence, "_refuse", lambda *arguments: None)
    with pytest.raises(UnsupportedModelError, match="couples samples") as raised:
        kt.empirical_ntk(net(), X, forward=lambda m, x: m(x) + coupling(m(x)))
    assert "jacobian" not in raised.value.remedy


def test_what_is_left_is_called_a_defect(monkeypatch):
    run = Execution.add_to

    def wrong(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(2)

    monkeypatch.setattr(Execution, "add_to", wrong)
    model = net()
    with pytest.raises(
        AuditError, match=r"neither coupled samples nor random numbers nor gradient hooks.*defect"
    ) as raised:
        kt.empirical_ntk(model, X)
    assert 'method="jacobian"' in raised.value.remedy
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X, method="jacobian"), contract(rows, rows, "full")) < EXACT
