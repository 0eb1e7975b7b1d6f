"""The one mode at the edge. Oracles: a product of two parameters, by hand; and gradient descent that has come to its balance."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.measurement import hessian as hessians
from kerneltrack.measurement.edge_mode import edge_mode
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.references import RunReferences
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

SWINGS = ("edge_swing", "edge_swing_predicted")
TARGET = 0.4


class Product(nn.Module):
    """f = uv; L = ½(uv − y)²."""

    def __init__(self, u, v):
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in (u, v))

    def forward(self, x):
        return self.u * self.v * x


def by_hand(u, v, y=TARGET):
    """λ_1, λ_2, the unit vector of the first, ∇λ_1 and ∇L of ½(uv − y)²; its Hessian is [[v², b], [b, u²]], b = 2uv − y."""
    half, b = (v**2 - u**2) / 2, 2 * u * v - y
    root, middle = math.hypot(half, b), (u**2 + v**2) / 2
    vector = np.array([b, middle + root - v**2])
    turning = np.array([u + (2 * b * v - half * u) / root, v + (2 * b * u + half * v) / root])
    return middle + root, middle - root, vector / np.linalg.norm(vector), turning, (u * v - y) * np.array([v, u])


def spec(observables=SWINGS, loss="half_mse"):
    x = torch.ones(1, 1).double()
    return ProbeSpec(
        probe=Probe(x, TARGET * x), loss=ProbeLoss.of(loss), observables=select(observables), output="full"
    )


def rule_of(module, rate, **options):
    """The rule of an optimizer at that rate."""
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, **options)
    return UpdateRule.of([optimizer], {id(p): n for n, p in module.named_parameters()})


def measured(states, rate, **options):
    """Of three states (u, v) in a row."""
    modules = [Product(*state) for state in states]
    path = {10 + i: NetworkState.of(module) for i, module in enumerate(modules[:2])}
    last = modules[2]
    return edge_mode(spec(), last, path, 12, rule_of(last, rate, **options), last(torch.ones(1, 1).double()))


MEAN, SWING, DRIFT = np.array([1.3, 0.7]), np.array([0.02, 0.03]), np.array([1e-3, -2e-3])
STATES = [MEAN - SWING - DRIFT, MEAN + SWING, MEAN - SWING + DRIFT]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("mean", [(1.3, 0.7), (1.3, 0.2)])
def test_it_is_the_product_s_closed_form_at_the_states_mean(mean, momentum):
    """Rounding of float64, through third derivatives of products of two numbers: 1e-10. What drifts is no part of the swing."""
    states = [np.array(mean) - SWING - DRIFT, np.array(mean) + SWING, np.array(mean) - SWING + DRIFT]
    first, _, u, turning, gradient = by_hand(*mean)
    found = measured(states, 2 * (1 + momentum) / first, momentum=momentum)
    assert found.seen == pytest.approx((u @ SWING) ** 2, rel=1e-10)
    expected = 2 * (-gradient @ turning) / (turning @ turning)
    assert found.balance == pytest.approx(max(0.0, expected), rel=1e-10, abs=1e-14)
    assert (expected > 0) == (mean != (1.3, 0.7))  # both kinds are tried
    # negative control: at a state itself, where the swing is most of the gradient
    _, _, _, turning, gradient = by_hand(*states[1])
    assert abs(2 * (-gradient @ turning) / (turning @ turning) / expected - 1) > 0.01


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rate": 0.9}, r"no mode is at the edge: λ₁ is 0.9\d* of its bound at the mean state"),
        ({"rate": 1e3}, "more than one mode is unstable: λ₂ is"),
        ({"weight_decay": 1e-3}, "weight decay"),
        ({"swing": 0.0}, "what oscillates is rounding"),
    ],
)
def test_what_it_cannot_say_is_not_measured_and_why(change, reason):
    """At uv = y/2 the Hessian is diagonal, (v², u²): the second mode is unstable too at a rate that is large enough."""
    mean = np.array([1.6, 0.125])
    first, second, *_ = by_hand(*mean)
    assert 0 < second < 0.9 * first
    swing = change.pop("swing", 1.0) * SWING
    rate = change.pop("rate", 1.0) * 2 / first
    with pytest.raises(NotMeasured, match=reason):
        measured([mean - swing, mean + swing, mean - swing], rate, **change)


def test_two_rates_or_a_gap_have_no_such_mode():
    modules = [Product(*state) for state in STATES]
    last, states = modules[2], [NetworkState.of(module) for module in modules]
    optimizer = torch.optim.SGD([{"params": [last.u], "lr": 0.5}, {"params": [last.v], "lr": 0.6}])
    rule = UpdateRule.of([optimizer], {id(p): n for n, p in last.named_parameters()})
    outputs = last(torch.ones(1, 1).double())
    with pytest.raises(NotMeasured, match="no common learning rate"):
        edge_mode(spec(), last, {10: states[0], 11: states[1]}, 12, rule, outputs)
    for path in ({}, {11: states[1]}, {9: states[0], 11: states[1]}):
        with pytest.raises(NotMeasured, match="not the third state of a triple"):
            edge_mode(spec(), last, path, 12, rule_of(last, 1.0), outputs)


class Curved(torch.autograd.Function):
    """x² whose second derivative is right and whose third is not: the slope is made of what was saved without its history."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**4

    @staticmethod
    def backward(ctx, grad):
        return Slope.apply(ctx.saved_tensors[0]) * grad


class Slope(torch.autograd.Function):
    """4x³, which is differentiated once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 4 * x**3

    @staticmethod
    def backward(ctx, grad):
        return 12 * ctx.saved_tensors[0].detach() ** 2 * grad


def test_a_wrong_third_derivative_is_found(monkeypatch):
    """Second derivatives are right, so that the Hessian is measured; negative control: the check taken out."""

    class Bent(Product):
        def forward(self, x):
            return Curved.apply(self.u) * self.v * x

    modules = [Bent(*state) for state in STATES]
    last = modules[2]
    path = {10: NetworkState.of(modules[0]), 11: NetworkState.of(modules[1])}
    flat = torch.func.hessian(lambda t: (t[0] ** 4 * t[1] - TARGET) ** 2 / 2)(torch.tensor(MEAN))
    rule = rule_of(last, 2 / float(torch.linalg.eigvalsh(flat)[-1]))
    ask = lambda: edge_mode(spec(), last, path, 12, rule, last(torch.ones(1, 1).double()))  # noqa: E731
    with pytest.raises(NotMeasured, match="third derivative of the loss is not that of the second"):
        ask()
    monkeypatch.setattr(hessians, "_turning_missed", lambda *_: 0.0)
    assert np.isfinite(ask().balance)


def test_the_turning_of_a_curvature_is_the_matrix_s_however_samples_are_cut():
    """Oracle: ∇_θ of vᵀHv by torch.func, of a cross-entropy. Float64 sums of 8 terms: 1e-12."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    x, y = torch.randn(8, 3).double(), torch.arange(8) % 4
    own = {n: p.detach() for n, p in model.named_parameters()}
    v = {n: torch.randn_like(p) for n, p in own.items()}

    def loss(values):
        return nn.functional.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    def curvature(values):
        _, product = torch.func.jvp(torch.func.grad(loss), (values,), (v,))
        return sum((product[n] * v[n]).sum() for n in v)

    expected = torch.func.grad(curvature)(own)
    one_hot = nn.functional.one_hot(y, 4).double()
    whole = hessians.LossHessian(kt.ntk.Network(model), x, one_hot, ProbeLoss.of("cross_entropy"))
    with whole.network.one_by_one():
        single = whole.gradient_along(v)
    for found in (whole.gradient_along(v), single):
        for n in own:
            torch.testing.assert_close(found[n], expected[n], rtol=1e-11, atol=1e-12)


#: Updates after which gradient descent has come to its balance.
BALANCED = 1500
RATE = 0.2


@pytest.fixture(scope="module")
def descent():
    """A small network of one input at the edge: its state after so many updates, and the data."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 12).double()[:, None]
    y = torch.sin(4 * x)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    parts = [torch.randn(p.shape).flatten() * (p.shape[-1] ** -0.5 if p.ndim > 1 else 1e-9) for p in model.parameters()]
    for part, p in zip(parts, model.parameters(), strict=True):
        p.data = part.reshape(p.shape).clone()
    model.double()
    for _ in range(BALANCED):
        step(model, torch.optim.SGD(model.parameters(), lr=RATE), x, y)
    return model, {n: p.detach().clone() for n, p in model.state_dict().items()}, x, y


def step(model, optimizer, x, y):
    optimizer.zero_grad(set_to_none=True)
    ((model(x) - y).square().sum() / 24).backward()
    optimizer.step()


def triples(path, descent, *, light=True):
    """The rows of a run that goes on from there."""
    model, start, x, y = descent
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with kt.Tracker(
        path, model, optimizer, probe=Probe(x, y), loss="half_mse", log=False, observables=["trace", *SWINGS],
        schedule=kt.schedule.Every(10, window=3, light=light),
    ) as tracker:  # fmt: skip
        for _ in range(3):
            with tracker.update((x, y)):
                step(model, optimizer, x, y)
    with kt.open_archive(path) as archive:
        return list(archive)


@pytest.mark.parametrize("light", [True, False])
def test_in_balance_the_swing_is_the_predicted_one(tmp_path, descent, light):
    """Descent itself is the oracle: λ_1 changes by less than 1 % in a hundred updates there, so both sides are one to a percent."""
    rows = triples(tmp_path / "run.h5", descent, light=light)
    third = rows[2].probes["probe"]
    assert rows[2].step == 2
    assert third["edge_swing"] == pytest.approx(float(third["edge_swing_predicted"]), rel=0.01)
    assert third["edge_swing"] > 1e-4  # the swing's own size, of order 1e-3
    for row in rows[:2]:
        assert all(np.isnan(row.probes["probe"].get(name, np.nan)) for name in SWINGS)
    assert "not the third state of a triple" in rows[0].message


def test_parameters_are_kept_of_a_triple_only_and_only_where_asked(descent):
    model = descent[0]
    asked, other = RunReferences([spec()]), RunReferences([spec(["trace"])])
    held = []
    for step, begins in (
        (0, True),
        (1, False),
        (2, False),
        (3, False),
        (10, True),
        (11, False),
        (12, True),
        (20, False),
    ):
        for references in (asked, other):
            references.pass_by(model, step, begins=begins)
        held.append(sorted(asked.of("probe", step + 1).path))
        assert not other.of("probe", step + 1).path
    assert held == [[0], [0, 1], [], [], [10], [10, 11], [12], []]


def test_a_checkpoint_within_a_triple_keeps_its_parameters():
    module = Product(1.0, 2.0)
    before, after = RunReferences([spec()]), RunReferences([spec()])
    before.pass_by(module, 7, begins=True)
    after.load_state_dict(before.state_dict(), torch.device("cpu"), measures=True)
    assert {step: dict(state.parameters) for step, state in after.of("probe", 8).path.items()} == {
        7: {"u": torch.tensor(1.0), "v": torch.tensor(2.0)}
    }
