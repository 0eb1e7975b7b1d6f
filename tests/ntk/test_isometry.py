"""Weights that are expressions of parameters: which of them count as a scaled copy, in every precision and at every scale.

Oracle: the double loop over autograd in float64, on the very values of the lower precision; and Jacobians by plain
autodiff, whose rounding says what that precision admits.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import kerneltrack as kt
from tests.ntk.oracles import contract, distance, jacobian

X = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def errors(model, x, forward):
    """Distances from the kernel in float64: by structure, and by plain Jacobians."""
    rows = jacobian(copy.deepcopy(model).double(), x.double(), forward)
    truth = contract(rows, rows, "full")
    return [distance(kt.empirical_ntk(model, x, forward=forward, method=m), truth) for m in ("auto", "jacobian")]


def body():
    return nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 8))


def times(factor):
    return lambda m, x: F.linear(torch.tanh(m[0](x)), factor.to(m[1].weight) * m[1].weight)


UNEVEN = torch.linspace(1, 2, 8)[:, None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "factor",
    [2e-3 * UNEVEN, 1e-8 * UNEVEN, 1e4 * UNEVEN, torch.linspace(1, 1.05, 8)[:, None], 1e-3 * torch.ones(8, 32).triu()],
    ids=["small", "tiny", "large", "nearly even", "half of it zero"],
)
def test_uneven_factors_are_seen(factor, dtype):
    """Plain Jacobians round as the dtype does; three times that is no other kernel, a wrong scale is 1 to 50 %."""
    found, plain = errors(body().to(dtype), X.to(dtype), times(factor))
    assert found <= 3 * plain + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 1.4, 2.0])
def test_weight_norm_away_from_one(size, dtype):
    """V Vᵀ is g²/|v|² 1 + (1 − g²/|v|²) v vᵀ/|v|²: nothing but a copy at g = |v|, and nearly that around it."""
    model = nn.Sequential(weight_norm(nn.Linear(16, 32)), nn.Tanh(), weight_norm(nn.Linear(32, 3)))
    for name, parameter in model.named_parameters():
        if name.endswith("original0"):
            parameter.data.mul_(size)
    found, plain = errors(model.to(dtype), X.to(dtype), None)
    assert found <= 3 * plain + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.linear(torch.tanh(m[0](x)), m[1].weight / 32**0.5),
        lambda m, x: F.linear(torch.tanh(m[0](x)), 2e-2 * m[1].weight),
        lambda m, x: F.linear(F.linear(x, m[0].weight.t().contiguous().t()), torch.cat(m[1].weight.chunk(2)[::-1])),
    ],
    ids=["NTK scale", "small scale", "rows exchanged"],
)
def test_scaled_copies_keep_their_structure(forward, dtype):
    model = body().to(dtype)
    rules = {line.parameters: line.rule for line in kt.ntk_plan(model, X.to(dtype), forward=forward).uses}
    assert rules[("1.weight",)] == "linear"
    found, plain = errors(model, X.to(dtype), forward)
    assert found <= 3 * plain + 4 * torch.finfo(dtype).eps
