"""An operator on the device knows when its factors are stale, and makes the host wait once a product.

Oracle: the kernel of the same model on the CPU in float64, formed.
"""

import copy

import pytest
import torch
from torch import nn

import kerneltrack as kt
from tests.ntk.exact_kernels import matrix
from tests.ntk.host_reads import reads
from tests.ntk.oracles import EXACT, distance

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def model(device):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double().eval().to(device)


def new_tensor(model):
    model[0].weight.data = model[0].weight.detach() * 2


def step(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)


CHANGES = {
    "step": step,
    "data": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
    "new-tensor": new_tensor,
    "buffer": lambda m: m[1].running_var.data.mul_(4),
    "frozen": lambda m: m[0].weight.requires_grad_(False),
    "submodule": lambda m: m.__setitem__(2, nn.Sigmoid()),
    "state-dict": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "moved-samples": None,
}


def product(model, x, v):
    return matrix(kt.empirical_ntk(copy.deepcopy(model).cpu(), x.cpu()).numpy()) @ v.cpu().numpy()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_products(device, model, change):
    x, v = X.clone().to(device), torch.randn(18, dtype=torch.float64).to(device)
    operator = kt.NTKOperator(model, x)
    for _ in range(3):
        assert distance(operator.matvec(v).cpu(), product(model, x, v)) < EXACT
    assert operator._held.factors() is not None
    if change == "moved-samples":
        x.data.mul_(2)
    else:
        CHANGES[change](model)
    for _ in range(3):
        assert distance(operator.matvec(v).cpu(), product(model, x, v)) < EXACT


def test_one_read_a_product(device, model, monkeypatch):
    operator, v = kt.NTKOperator(model, X.to(device)), torch.ones(18, 2, dtype=torch.float64, device=device)
    for _ in range(3):
        operator.matmat(v)
    assert operator._held.factors() is not None
    assert reads(monkeypatch, lambda: operator.matmat(v)) == 1
    with operator.unchanging():
        operator.matmat(v)  # the fourth by factors, which is audited
        assert reads(monkeypatch, lambda: operator.matmat(v)) == 0


def test_a_buffer_that_is_left_on_the_cpu(device, model):
    """Contents are compared where they are: one flag on each device."""
    model.note = torch.zeros(3)
    operator, v = kt.NTKOperator(model, X.to(device)), torch.ones(18, dtype=torch.float64, device=device)
    operator.matvec(v)
    state = operator._state
    operator.matvec(v)
    assert operator._state is state
    model.note.data[1] = 1
    operator.matvec(v)
    assert operator._state is not state
