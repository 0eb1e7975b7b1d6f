"""What momentum makes of gradients. Oracle: torch's own optimizers on a gradient that stands still, and on linear models."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.conventions import Momentum, groups, no_plain_descent
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

SETTINGS = {
    "plain": (torch.optim.SGD, {}),
    "heavy ball": (torch.optim.SGD, {"momentum": 0.9}),
    "damped": (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.3}),
    "dampening without momentum": (torch.optim.SGD, {"dampening": 0.3}),
    "Nesterov": (torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
    "Adam": (torch.optim.Adam, {"betas": (0.9, 0.999), "eps": 1e-12}),
    "AdamW": (torch.optim.AdamW, {"betas": (0.5, 0.9), "eps": 1e-12, "weight_decay": 0.0}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_gain_is_what_torch_s_optimizer_makes_of_a_constant_gradient(case):
    """Of a gradient of 1 the n-th update of rate η is −g_n η; Adam's preconditioner is then 1."""
    kind, settings = SETTINGS[case]
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = kind([weight], lr=0.1, **settings)
    momentum = Momentum.of(kind.__name__, optimizer.param_groups[0])
    for update in range(1, 60):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert (before - weight.item()) / 0.1 == pytest.approx(momentum.gain(update), rel=1e-9)
    assert momentum.gain() == pytest.approx(momentum.gain(2000), rel=1e-12)


@pytest.mark.parametrize(
    "told", [None, [], ["SGD"], "torch.optim.SGD", [{"class": "SGD", "groups": [{"momentum": 0.0}, "?", {}]}], [3]]
)
def test_nothing_is_against_plain_descent_where_nothing_is_told(told):
    assert no_plain_descent(told) == ""
    assert all(Momentum.of(*group).gain() == 1 for group in groups(told))


@pytest.mark.parametrize("odd", [10**400, float("nan"), float("inf"), "0.9", None, [0.9], -1.0, 1.0, 7, True])
def test_what_a_stranger_calls_momentum_has_a_finite_gain_or_none(odd):
    for group in ({"momentum": odd}, {"momentum": 0.9, "dampening": odd}, {"betas": odd}, {"betas": [odd]}):
        for kind in ("SGD", "Adam"):
            assert math.isfinite(Momentum.of(kind, group).gain())


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ([{"class": "SGD", "groups": [{}, {"momentum": 0.9}]}], "momentum"),
        ([{"class": "SGD", "groups": [{"weight_decay": 1e-4, "nesterov": True}]}], "weight_decay, nesterov"),
        ("Adam", "Adam"),
        ([{"class": "Muon"}], "Muon"),
        ([{"class": "SGD"}, {"class": "Lion"}], "Lion"),
    ],
)
def test_what_is_no_plain_descent_is_named(told, reason):
    assert reason in no_plain_descent(told)


NAMES = ("kernel_flow_error", "predicted_factor", "measured_factor", "optimizer_eigenvalues", "optimizer_factor")


def measured(optimizer_of, updates, rate, *, spread=0.02, small=1.0):
    """The last of ``updates`` of a linear model with eigenvalues near ``small`` on ½ mean (f − y)², in float64."""
    torch.manual_seed(1)
    net = nn.Linear(4, 1, bias=False).double()
    basis, _ = torch.linalg.qr(torch.randn(12, 4, dtype=torch.float64))
    x = basis * (small * 12 * (1 + spread * torch.arange(4))).sqrt()  # XᵀX/N = small (1, 1.02, …)
    y = x @ torch.randn(4, 1, dtype=torch.float64)
    optimizer = optimizer_of(net.parameters(), rate)
    names = {id(p): n for n, p in net.named_parameters()}
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(NAMES))
    for update in range(updates):
        last = update == updates - 1
        rule = UpdateRule.of([optimizer], names)
        reading = instrument.measure(net, rule, step=update) if last else None
        optimizer.zero_grad()
        ((net(x) - y).square().sum() / 24).backward()
        optimizer.step()
    return instrument.complete(net, reading, UpdateRule.of([optimizer], names))


@pytest.mark.parametrize("case", ["heavy ball", "damped", "Nesterov", "plain"])
@pytest.mark.parametrize("updates", [1, 200])
def test_kernel_flow_has_the_gain_of_momentum(case, updates):
    """A slow mode (g η λ/N = 0.001) of a linear model: Δf = g times the flow. Without g the error is (1 − 1/g)², 0.81 at β = 0.9.

    Left over is how much the gradient moved while momentum remembers it: about (q β/(1 − β))² with q = g η λ/N.
    """
    kind, settings = SETTINGS[case]
    gain = Momentum.of("SGD", settings).gain()
    found = measured(lambda p, rate: kind(p, lr=rate, **settings), updates, 1e-3 / gain)
    assert found.values["kernel_flow_error"] < 4e-4


def test_groups_have_the_gain_each_of_its_own():
    """One update of two groups, heavy ball from the second update on: Σ_g −g_g η J_g J_gᵀ m/N, by hand."""
    names = ["a", "b"]
    rule = UpdateRule(
        (0.1, 0.1), {"a": 0, "b": 1}, None, momenta=(Momentum(0.5), Momentum()), settings=({"class": "SGD"},)
    )
    assert rule.flow_metric(names, 2) == {"a": pytest.approx(0.15), "b": pytest.approx(0.1)}
    assert rule.flow_metric(names, 1) == pytest.approx(0.1)
    unknown = UpdateRule((0.1,), {"a": 0}, None, momenta=(None,))
    assert unknown.flow_metric(["a"], 1) is None


@pytest.mark.parametrize("case", ["heavy ball", "damped", "Nesterov", "Adam"])
def test_a_factor_is_predicted_of_plain_descent_only(case):
    kind, settings = SETTINGS[case]
    found = measured(lambda p, rate: kind(p, lr=rate, **settings), 2, 1e-3)
    assert np.isnan(found.values["predicted_factor"]).all()
    assert "not plain gradient descent" in found.reasons["predicted_factor"]
    plain = measured(lambda p, rate: torch.optim.SGD(p, lr=rate), 2, 0.5)
    np.testing.assert_allclose(plain.values["predicted_factor"][:4], plain.values["measured_factor"][:4], rtol=1e-9)
    np.testing.assert_allclose(plain.values["optimizer_factor"], plain.values["predicted_factor"], rtol=1e-9)


@pytest.mark.parametrize("case", ["heavy ball", "damped", "Nesterov"])
def test_the_factor_of_a_slow_mode_is_that_of_the_iteration(case):
    """Oracle: 200 updates of torch's own optimizer. Fast modes, in which momentum overshoots, have no factor."""
    kind, settings = SETTINGS[case]
    gain = Momentum.of("SGD", settings).gain()
    slow = measured(lambda p, rate: kind(p, lr=rate, **settings), 200, 4e-3 / gain)
    factor, actual = (slow.values[f"{name}_factor"][:4] for name in ("optimizer", "measured"))
    np.testing.assert_allclose(1 - factor, 1 - actual, rtol=0.1)
    fast = measured(lambda p, rate: kind(p, lr=rate, **settings), 2, 0.5 / gain)
    assert np.isnan(fast.values["optimizer_factor"][:4]).all()


def test_adam_s_factor_is_of_its_own_kernel():
    """β₁ = 0 and one update: f_1 − f_0 = −J P Jᵀ m/N with the P that Adam has then, by NumPy."""
    optimizer = lambda p, rate: torch.optim.Adam(p, lr=rate, betas=(0.0, 0.999999), eps=1e-9)  # noqa: E731
    found = measured(optimizer, 40, 1e-4)
    np.testing.assert_allclose(
        found.values["optimizer_factor"], np.abs(1 - found.values["optimizer_eigenvalues"] / 12), rtol=1e-12
    )
    assert math.isclose(found.values["kernel_flow_error"], 0, abs_tol=1e-8)
    decay = measured(lambda p, rate: torch.optim.AdamW(p, lr=rate, betas=(0.0, 0.9)), 2, 1e-3)
    assert "weight decay" in decay.reasons["optimizer_factor"]


def test_a_kernel_of_a_part_predicts_nothing_of_all():
    """The bias trains too: the factor of the weights' kernel alone is not that of the update."""
    torch.manual_seed(0)
    net, x = nn.Linear(3, 1).double(), torch.randn(8, 3).double()
    y = x[:, :1] + 5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rule = UpdateRule.of([optimizer], {id(p): n for n, p in net.named_parameters()})
    found = {}
    for params in (None, ["weight"]):
        instrument = Instrument(
            probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(NAMES), params=params
        )
        found[params and params[0]] = instrument.measure(net, rule, step=0)
    assert np.isfinite(found[None].values["predicted_factor"]).all()
    for name in ("predicted_factor", "optimizer_factor"):
        assert np.isnan(found["weight"].values[name]).all()
        assert found["weight"].reasons[name] == "the kernel is not of every parameter that trains"
