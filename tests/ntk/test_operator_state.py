"""An operator's products are those of the state that its network, samples and metric are in when they are asked for.

Oracle: the double loop over autograd at each state (oracles.py), over the parameters that then require grad.
"""

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.network.state import checksum
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def build():
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5))
    model = With(
        lambda m, x: m.factor * m.head(m.body(x)) * m.table["scale"][0] + m.shift + float(m.array[0]),
        body=body,
        head=nn.Linear(8, 3),
    )
    model.factor, model.table, model.shift, model.array = 1.0, {"scale": [1.0]}, torch.zeros(3), np.ones(1)
    return model.double().eval()


def step(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)


def one_entry(model):
    """One bit of one entry, the last: no sum of floats would show it."""
    last = list(model.parameters())[-1]
    last.data[-1] = torch.nextafter(last.data[-1], torch.tensor(torch.inf, dtype=torch.float64))


def permuted(model):
    model.body[0].weight.data.copy_(model.body[0].weight.data.flip(0))


def through_numpy(model):
    model.body[0].weight.detach().numpy()[...] *= 0.5


def replaced(model):
    model.head.weight = nn.Parameter(model.head.weight.detach() * 2)


CHANGES = {
    "optimizer-step": step,
    "data-mul": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
    "data-copy": lambda m: [p.data.copy_(p.data * 0.7) for p in m.parameters()],
    "data-permuted": permuted,
    "one-entry": one_entry,
    "numpy-view": through_numpy,
    "parameter-replaced": replaced,
    "buffer": lambda m: m.body[1].running_var.data.mul_(4),
    "frozen": lambda m: m.body[0].weight.requires_grad_(False),
    "thawed": lambda m: m.head.bias.requires_grad_(True),
    "attribute": lambda m: setattr(m, "factor", 2.0),
    "attribute-in-a-list": lambda m: m.table["scale"].__setitem__(0, 3.0),
    "array": lambda m: m.array.__setitem__(0, 2.0),
}


def dense(model):
    rows = jacobian(model, X)
    return contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(len(X) * 3, -1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_products(change):
    model = build()
    if change == "thawed":
        model.head.bias.requires_grad_(False)
    operator, v = kt.NTKOperator(model, X), torch.randn(18, dtype=torch.float64)
    for _ in range(3):
        assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT
    assert operator._held.factors() is not None
    held = operator._held
    CHANGES[change](model)
    after = dense(model)
    for _ in range(3):
        assert distance(operator.matvec(v), after @ v.numpy()) < EXACT
    assert distance(operator.diagonal(), np.diagonal(after)) < EXACT
    assert operator._held is not held, "the factors were dropped, and not only still right"


def test_samples_that_change_in_place():
    model, x, v = build(), X.clone(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, x)
    for _ in range(3):
        operator.matvec(v)
    x.numpy()[...] *= 2
    rows = jacobian(model, 2 * X)
    matrix = contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(18, 18)
    assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT


@pytest.mark.parametrize("part", [1, 3], ids=["batch-norm", "dropout"])
def test_a_mode_that_has_no_kernel(part):
    model, v = build(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        operator.matvec(v)
    model.body[part].train()
    with pytest.raises(UnsupportedModelError, match=rf"body\.{part}"):
        operator.matvec(v)


def test_factors_are_kept_where_nothing_changes():
    operator, v = kt.NTKOperator(build(), X), torch.randn(18, dtype=torch.float64)
    for _ in range(2):
        operator.matvec(v)
    held = operator._held.factors()
    assert held is not None
    for _ in range(3):
        operator.matvec(v)
        assert operator._held.factors() is held


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64], ids=str
)
@pytest.mark.parametrize("size", [1, 7, 4096, 10_001])
def test_the_checksum_sees_one_word_and_the_place(dtype, size):
    """Oracle: the contents. Equal for equal contents, also in another layout; another for any one entry or order."""
    tensor = (torch.arange(size) % 251 + 1).to(dtype) if dtype != torch.bool else torch.arange(size) % 3 == 0
    assert checksum(tensor) == checksum(tensor.clone()) == checksum(torch.stack([tensor, tensor], 1)[:, 1])
    for place in {0, size // 2, size - 1}:
        other = tensor.clone()
        other[place] = ~other[place] if dtype == torch.bool else other[place] * 2
        assert checksum(other) != checksum(tensor)
    if size > 1:
        assert checksum(tensor.roll(1)) != checksum(tensor)
