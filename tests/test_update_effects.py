"""What one update did, of a network in float32. Oracle: the same two sets of weights in float64, by torch.func alone."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.references import References
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

NAMES = ("linearization_error", "linearization_cosine", "kernel_flow_error", "measured_factor", "ledger_curvature")


class InHalf(nn.Module):
    """A body that computes in bfloat16, whatever it is converted to: no pass of it is finer."""

    def forward(self, x):
        return torch.tanh(x.to(torch.bfloat16)).to(x.dtype)


class OnlyFloat32(nn.Module):
    """A forward that is not there in float64."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        return torch.tanh(x)


def one_step(rate, body):
    """(measured values and reasons, weights before, weights after) of a float32 network's step of gradient descent."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), body, nn.Linear(16, 2)).eval()
    x, y = torch.randn(12, 3), torch.randn(12, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    rule = UpdateRule.of([optimizer], {id(p): n for n, p in net.named_parameters()})
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(NAMES))
    reading, before = instrument.measure(net, rule, step=0), copy.deepcopy(net).double()
    ((net(x) - y).square().sum(1).mean() / 2).backward()
    optimizer.step()
    return instrument.complete(net, reading, rule), before, copy.deepcopy(net).double(), x.double(), y.double()


def exact(before, after, x, y, rate):
    start, end = (dict(net.named_parameters()) for net in (before, after))
    step = {name: (end[name] - value).detach() for name, value in start.items()}
    f, linear = torch.func.jvp(lambda p: torch.func.functional_call(before, p, (x,)), (start,), (step,))
    change, gradient = after(x) - f, torch.autograd.grad((f - y).square().sum(1).mean() / 2, list(start.values()))
    flow = {name: -rate * g for name, g in zip(start, gradient, strict=True)}
    _, flow = torch.func.jvp(lambda p: torch.func.functional_call(before, p, (x,)), (start,), (flow,))
    scale = change.square().sum()
    cosine = (change * linear).sum() / (change.norm() * linear.norm())
    return [
        float(v.detach())
        for v in ((change - linear).square().sum() / scale, cosine, (change - flow).square().sum() / scale)
    ]


@pytest.mark.parametrize("exponent", range(1, 9))
def test_errors_of_an_update_are_those_of_its_weights_not_of_their_rounding(exponent):
    """Taylor: the error is ∝ η². In float32 alone it stops at 5e-9 for η = 10⁻³ and is 0.96 for η = 10⁻⁸.

    Below η = 10⁻⁵ the weights' own rounding is part of the real update: the kernel's flow misses it, J Δθ does not.
    """
    rate = 10.0**-exponent
    found, *weights = one_step(rate, nn.Tanh())
    error, cosine, flow = exact(*weights, rate)
    assert found.values["linearization_error"] == pytest.approx(error, rel=0.02, abs=1e-15)
    assert found.values["linearization_cosine"] == pytest.approx(cosine, abs=1e-7)
    assert found.values["kernel_flow_error"] == pytest.approx(flow, rel=0.02, abs=1e-15)
    assert np.isfinite(found.values["measured_factor"]).all()
    assert np.isfinite(found.values["ledger_curvature"]).all()
    if exponent < 6:
        first, *weights = one_step(0.1, nn.Tanh())
        assert error == pytest.approx(first.values["linearization_error"] * (rate / 0.1) ** 2, rel=0.5)


@pytest.mark.parametrize("body", [InHalf(), OnlyFloat32()], ids=["bfloat16", "no float64"])
def test_what_no_finer_arithmetic_decides_is_nan_with_its_reason(body):
    """A tanh in bfloat16 (ε = 2⁻⁷) hides changes below 40 ε of the outputs, one in float32 below 40 · 2⁻²³."""
    found, *_ = one_step(1e-7, body)
    assert math.isnan(found.values["linearization_error"])
    assert found.reasons["linearization_error"] == "change of the outputs is rounding"


def test_a_coarse_body_counts_where_weights_and_outputs_are_fine():
    """‖Δf‖/‖f‖ is near a hundredth: enough for float32, and nothing to a tanh in bfloat16."""
    assert math.isnan(one_step(1e-2, InHalf())[0].values["linearization_error"])
    assert math.isfinite(one_step(1e-2, OnlyFloat32())[0].values["linearization_error"])


@pytest.mark.parametrize("exponent", range(1, 6))
def test_the_error_since_initialisation_is_not_the_rounding_of_a_short_way(exponent):
    """The same for f_t − f_0: ∝ (way)² by Taylor. In float32 alone it is 5e-9 for a way of 10⁻³, and 3e-6 for one of 10⁻⁵."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    x, start, before = torch.randn(12, 3), NetworkState.of(net), copy.deepcopy(net).double()
    instrument = Instrument(probe=Probe(x, x[:, :2]), observables=select("anchored_linearization_error"))
    rule = UpdateRule.of([torch.optim.SGD(net.parameters(), lr=0.1)], {})
    first = instrument.measure(net, rule, step=0, references=References(start=start))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(10.0**-exponent * torch.randn_like(p))
    found = instrument.measure(net, rule, step=1, references=References(start=start, initial=first.state))
    error, *_ = exact(before, copy.deepcopy(net).double(), x.double(), x[:, :2].double(), 1.0)
    # relative to a way that is known to ε/way
    assert found.values["anchored_linearization_error"] == pytest.approx(error, rel=0.02 + 4e-7 / 10.0**-exponent)
