"""vmap's rule of an operation may be wrong without an error, and for some sizes only. The kernel is right all the same.

Oracle: the double loop over autograd in float64, which uses no vmap.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk.contraction import backward_passes
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.oracles import EXACT, contract, distance, jacobian


class WrongForThree(torch.autograd.Function):
    """x³, whose rule doubles the derivative where it maps three at once."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, g):
        return DerivativeForThree.apply(g, *ctx.saved_tensors)

    @staticmethod
    def vmap(info, in_dims, x):
        return WrongForThree.apply(x), in_dims[0]


class DerivativeForThree(torch.autograd.Function):
    @staticmethod
    def forward(g, x):
        return 3 * x**2 * g

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, h):
        g, x = ctx.saved_tensors
        return 3 * x**2 * h, 6 * x * g * h

    @staticmethod
    def vmap(info, in_dims, g, x):
        g, x = (
            t.movedim(d, 0) if d is not None else t.expand(info.batch_size, *t.shape)
            for t, d in zip((g, x), in_dims, strict=True)
        )
        return DerivativeForThree.apply(g, x) * (2 if info.batch_size == 3 else 1), 0


class Cubed(nn.Module):
    def forward(self, x):
        return WrongForThree.apply(x)


def prelu(outputs):
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.PReLU(3), nn.Flatten(), nn.Tanh(), nn.Linear(12, outputs)).double()


def cubed(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 5), Cubed(), nn.Linear(5, outputs)).double()


@pytest.fixture(params=["cpu", "accelerator"])
def machine(request):
    with use(Machine.accelerator(memory=80e9) if request.param == "accelerator" else Machine()):
        yield request.param


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("network", [prelu, cubed])
def test_passes_of_several_outputs_are_compared(machine, network, outputs):
    """By a kept plan too, whose passes on an accelerator have one more cotangent: two outputs and it are three."""
    model, x = network(outputs), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    J = jacobian(model, x)
    for _ in range(3):
        assert distance(kt.empirical_ntk(model, x, method="structured"), contract(J, J, "full")) < EXACT


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("network", [prelu, cubed])
def test_the_kernel_is_exact_whatever_the_rule_says(network, outputs, samples, method):
    """In torch 2.13 the rule of PReLU's backward pass mixes samples and outputs where there are as many of both."""
    model, x = network(outputs), torch.randn(samples, 2, 4, 4, dtype=torch.float64)
    J = jacobian(model, x)
    assert distance(kt.empirical_ntk(model, x, method=method), contract(J, J, "full")) < EXACT


class Rounded(nn.Module):
    def forward(self, x):
        return x.float().double()


class Centred(nn.Module):
    """The gradient of whatever is added to all entries alike cancels: what is left of it is rounding."""

    def forward(self, x):
        return x - x.mean((2, 3), keepdim=True)


def rounded(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 5), Rounded(), nn.Tanh(), nn.Linear(5, outputs)).double()


def centred(outputs):
    layers = nn.Conv2d(2, 3, 2), nn.GroupNorm(1, 3), Centred(), nn.Flatten(), nn.Tanh(), nn.Linear(27, outputs)
    return nn.Sequential(*layers).double()


def tried(monkeypatch, model, x, calls):
    """For each call how many passes of several outputs were tried, and how many of one were made."""
    counts = []
    batched, singly = backward_passes._batched_gradients, backward_passes.gradients

    def counted(place, function):
        def call(*args, **kwargs):
            counts[-1][place] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(backward_passes, "_batched_gradients", counted(0, batched))
    monkeypatch.setattr(backward_passes, "gradients", counted(1, singly))
    with use(Machine.accelerator(memory=80e9)):
        for _ in range(calls):
            counts.append([0, 0])
            kt.empirical_ntk(model, x, method="structured")
    return counts


def test_what_was_not_ordinary_is_not_tried_again(monkeypatch):
    """Oracle: a count. Two outputs and the cotangent beside them are three, of which the rule is wrong: then each goes alone.

    The second call tries, compares with one more ordinary pass, and makes three; the third makes these alone.
    """
    assert tried(monkeypatch, cubed(2), torch.randn(4, 2, 4, 4, dtype=torch.float64), 3)[1:] == [[1, 4], [0, 3]]


@pytest.mark.parametrize("network", [rounded, centred])
def test_rounding_is_no_wrong_rule(monkeypatch, network):
    """Oracle: a count. Of a network that rounds to float32 inside, or has a gradient that is rounding alone.

    The second call compares its pass with an ordinary one, the third makes that one pass.
    """
    assert tried(monkeypatch, network(3), torch.randn(4, 2, 4, 4, dtype=torch.float64), 3)[1:] == [[1, 1], [1, 0]]
