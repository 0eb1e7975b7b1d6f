"""Backward passes one output at a time or several at once: the same gradients, whichever the sizes ask for.

Oracle: the double loop's kernel. Problems are so small that passes are batched everywhere else.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from tests.ntk.exact_kernels import exact, measured
from tests.ntk.oracles import EXACT, contract, distance, jacobian

NAMES = ("mlp", "lenet-inplace", "resnet-batch-norm", "encoder", "gpt-tied", "embedding-reused", "inplace-everywhere")


@pytest.mark.parametrize("rows", [0, 8, 10**9])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_together_or_one_by_one(machine, name, rows):
    machine(backward_rows=rows)
    assert distance(measured(name, method="structured"), exact(name)) < EXACT


def test_an_operation_without_a_batched_backward_goes_one_by_one(monkeypatch, machine):
    """Oracle: the double loop. The refusal must leave the graph, and no output may be lost behind it."""
    asked = []
    real = torch.autograd.grad

    def refusing(*args, **options):
        batched = options.get("is_grads_batched", False)
        asked.append(batched)
        if batched:
            raise RuntimeError("Batching rule not implemented")
        return real(*args, **options)

    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7)).double(),
        torch.randn(5, 3, dtype=torch.float64),
    )
    rows = jacobian(model, x)
    monkeypatch.setattr(torch.autograd, "grad", refusing)
    machine(backward_rows=3 * len(x))  # three of seven outputs at once
    kernel = kt.empirical_ntk(model, x, method="structured")
    assert distance(kernel, contract(rows, rows, "full")) < EXACT
    assert asked.count(True) == 1  # not asked again for this block
