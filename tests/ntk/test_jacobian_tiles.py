"""The plain Jacobian in tiles of a few samples. Oracle: the double loop over plain autograd.

The floor of the least budget holds the whole Jacobian of every problem of the table: only a larger network is tiled. It
has two hidden layers, because behind one linear layer Θ[n, m, o, p] is symmetric in o and p.
"""

import functools

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk.methods.jacobian import Jacobian
from tests.ntk.exact_kernels import OUTPUTS, readout, tightest
from tests.ntk.oracles import EXACT, contract, distance, jacobian

N = 13  # a prime: every tiling is uneven


def setting():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 60), nn.Tanh(), nn.Linear(60, 3)).double()
    return model, torch.randn(N, 40, dtype=torch.float64)


@functools.cache
def exact(output):
    model, x = setting()
    rows = jacobian(model, x, readout=readout if output == "callable" else None)
    return contract(rows, rows, "full" if output == "callable" else output)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_mirrored_tile_is_the_transposed_kernel(output):
    """Fails where the outputs of the mirrored tile are not transposed."""
    model, x = setting()
    options = {"method": "jacobian", "output": OUTPUTS[output]}
    least = tightest(model, x, **options)
    kernel = kt.empirical_ntk(model, x, memory_budget=least, **options)
    assert distance(kernel, exact(output)) < EXACT
    rectangle = kt.empirical_ntk(model, x[1:], x[:5], memory_budget=least, **options)
    assert distance(rectangle, exact(output)[1:, :5]) < EXACT


def test_the_least_budget_makes_tiles(monkeypatch):
    """So that the test above is one of tiles. Oracle: counting the calls for rows, N for one tile of all samples."""
    asked, rows = [], Jacobian.rows
    monkeypatch.setattr(Jacobian, "rows", lambda self, x, *a: asked.append(len(x)) or rows(self, x, *a))
    model, x = setting()
    kt.empirical_ntk(model, x, method="jacobian", memory_budget=tightest(model, x, method="jacobian"))
    assert len(asked) > 1
    assert min(asked) < N
