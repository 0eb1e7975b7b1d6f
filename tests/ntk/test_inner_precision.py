"""Arithmetic inside the model that is coarser than its parameters: no false alarm, and no coupling is hidden behind it.

Oracle: the double loop over autograd in float64 of the same network without the coarse part; by construction, coupling.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk import Network
from tests.ntk.oracles import contract, distance, jacobian

X = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
HALF, SINGLE = torch.finfo(torch.bfloat16).eps, torch.finfo(torch.float32).eps


def net():
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 5))


def mixed(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m(x).float()


class Rounded(torch.autograd.Function):
    """The identity, whose backward pass is in bfloat16."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g.bfloat16().to(g.dtype)


def spectral(m, x):
    return m[2](torch.fft.irfft(torch.fft.rfft(m[1](m[0](x))).to(torch.complex64)).to(x.dtype))


def normed(m, x):
    return m[2](F.layer_norm(m[1](m[0](x)).float(), (64,)).to(x.dtype))


CASES = {  # forward, dtype of the parameters, what it is without the coarse part, the coarse resolution
    "autocast": (mixed, torch.float32, lambda m, x: m(x), HALF),
    "a backward pass in bfloat16": (lambda m, x: m[2](Rounded.apply(m[1](m[0](x)))), torch.float32, None, HALF),
    "complex64 in float64": (spectral, torch.float64, None, SINGLE),
    "float32 in float64": (normed, torch.float64, lambda m, x: m[2](F.layer_norm(m[1](m[0](x)), (64,))), SINGLE),
}


@pytest.mark.parametrize("name", CASES)
def test_the_coarsest_arithmetic_is_seen_and_is_no_false_alarm(name):
    forward, dtype, plain, eps = CASES[name]
    model, x = net().to(dtype), X.to(dtype)
    assert Network(model, forward=forward).sight(Network(model).inputs(x)).eps == eps
    rows = jacobian(copy.deepcopy(model).double(), x.double(), plain or (lambda m, x: m(x)))
    for method in ("auto", "jacobian", "products"):
        kernel = kt.empirical_ntk(model, x, forward=forward, method=method)
        assert distance(kernel, contract(rows, rows, "full")) < 2 * eps  # some roundings of a derivative, squared


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("name", CASES)
def test_coupling_behind_it_is_seen(name, method):
    """A few per cent of the batch's mean; in float32 inside float64, a ten thousandth."""
    forward, dtype, _, eps = CASES[name]
    share = 0.06 if eps == HALF else 1e-4

    def coupled(m, x):
        y = forward(m, x)
        return y - share * y.mean(0)

    with pytest.raises(UnsupportedModelError, match="couples samples"):
        kt.empirical_ntk(net().to(dtype), X.to(dtype), forward=coupled, method=method)


@pytest.mark.parametrize("vmapped", [True, False], ids=["vmap", "batch"])
def test_a_large_running_mean_costs_no_digits(vmapped):
    """∂f/∂w of a batch norm sums g (x − mean): as a difference of Σ g x and mean Σ g it would lose the mean's digits."""
    generator, mean = torch.Generator().manual_seed(2), 1000.0
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(mean)
    model = nn.Sequential(norm, nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 3)).eval()
    if not vmapped:
        model.register_forward_pre_hook(lambda module, arguments: float(arguments[0].sum()) and None)
    x = mean + torch.randn(6, 4, 5, 5, generator=generator)
    rows = jacobian(copy.deepcopy(model).double(), x.double())
    # x − mean is exact in float32; behind it sums of at most 100 products, squared. With Σ g x: 1000 · eps.
    assert distance(kt.empirical_ntk(model, x, output="full"), contract(rows, rows, "full")) < 2 * 100**0.5 * SINGLE
