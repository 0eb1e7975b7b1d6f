"""The stability threshold against training on a quadratic: just below it converges, just above it diverges.

The thresholds are found by torch's own optimizers; no formula of the package takes part in the oracle.
"""

import math

import pytest
import torch

from kerneltrack.training.update_rule import UpdateRule

CURVATURE = 3.0


def rule_of(optimizer, *parameters):
    return UpdateRule.of([optimizer], {id(p): f"p{i}" for i, p in enumerate(parameters)})


def grows(optimizer, x, steps=6000):
    """Whether the iteration on ½h·x² from x = 1 grows a thousandfold before it shrinks as much, momentum included."""
    recent = []
    for _ in range(steps):
        x.grad = CURVATURE * x.detach()
        optimizer.step()
        recent = [*recent[-20:], abs(x.item())]
        if not 1e-3 < max(recent) < 1e3:
            return max(recent) > 1
    raise AssertionError("neither grew nor shrank")


def sgd(**options):
    return lambda x, lr: torch.optim.SGD([x], lr=lr, **options)


def adam(kind=torch.optim.Adam, second_moment=0.25, **options):
    """Adam whose second moments are held fixed: β₂ = 1 to rounding, and so many updates that no bias is corrected."""

    def make(x, lr):
        optimizer = kind(
            [x],
            lr=lr,
            betas=(options.get("beta", 0.9), 1 - 2**-52),
            eps=1e-8,
            **{k: v for k, v in options.items() if k != "beta"},
        )
        state = {
            "step": torch.tensor(1e18),
            "exp_avg": torch.zeros_like(x),
            "exp_avg_sq": torch.full_like(x, second_moment),
        }
        if options.get("amsgrad"):
            state["max_exp_avg_sq"] = state["exp_avg_sq"].clone()
        optimizer.state[x] = state
        return optimizer

    return make


RULES = {
    **{f"momentum {b}": sgd(momentum=b) for b in (0.0, 0.5, 0.9)},
    "dampening": sgd(momentum=0.9, dampening=0.5),
    "Nesterov": sgd(momentum=0.8, nesterov=True),
    "weight decay": sgd(momentum=0.5, weight_decay=0.7),
    **{f"Adam {b}": adam(beta=b) for b in (0.0, 0.5, 0.9)},
    "Adam, large moments": adam(second_moment=100.0),
    "AMSGrad": adam(amsgrad=True),
    "AdamW": adam(torch.optim.AdamW, weight_decay=0.4),
}


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
def test_the_threshold_is_where_a_quadratic_diverges(make):
    """Oracle: the iteration itself. P·h/c = 0.98 shrinks, 1.02 grows, whatever the optimizer.

    c may depend on the rate (through weight decay), so the rate with P·h/c at the ratio is found by bisection.
    """

    def ratio(lr):
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        rule = rule_of(make(x, lr), x)
        metric = rule.metric(["p0"])
        return float(metric["p0"] if isinstance(metric, dict) else metric) * CURVATURE / rule.threshold

    for wanted, diverges in ((0.98, False), (1.02, True)):
        low, high = 0.0, 1e4
        for _ in range(100):
            middle = (low + high) / 2
            try:
                low, high = (middle, high) if ratio(middle) < wanted else (low, middle)
            except TypeError:  # beyond every threshold
                high = middle
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        assert grows(make(x, low), x) is diverges


def test_adam_settles_at_its_edge():
    """Cohen et al. 2022: left to itself, Adam drives its own second moments to where the ratio hovers around 1.

    Oracle: the attractor of the real algorithm, with all its corrections, on a quadratic of two curvatures. The ratio
    oscillates; its median is within 5 % of one.
    """
    h = torch.tensor([5.0, 1.0], dtype=torch.float64)
    x = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.01, betas=(0.9, 0.99), eps=1e-12)
    ratios = []
    for step in range(6000):
        optimizer.zero_grad()
        (h * x.square()).sum().div(2).backward()
        optimizer.step()
        if step > 4000:
            rule = rule_of(optimizer, x)
            ratios.append(float((rule.metric(["p0"])["p0"] * h).max() / rule.threshold))
    assert torch.tensor(ratios).median().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_metric_of_adam_is_the_one_its_update_uses(amsgrad):
    """Oracle: torch's own step. With β₁ = 0 it is −P g exactly, P with the moments that it has after the step."""
    torch.manual_seed(0)
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.3, betas=(0.0, 0.9), amsgrad=amsgrad)
    for _ in range(3):
        before, gradient = x.detach().clone(), torch.randn(5, dtype=torch.float64)
        x.grad = gradient
        optimizer.step()
        metric = rule_of(optimizer, x).metric(["p0"])["p0"]
        torch.testing.assert_close(x.detach() - before, -metric * gradient, rtol=1e-12, atol=0)


def test_moments_are_copied():
    x = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.1)
    x.grad = torch.ones(2)
    optimizer.step()
    rule = rule_of(optimizer, x)
    kept = rule.metric(["p0"])["p0"].clone()
    x.grad = torch.full((2,), 7.0)
    optimizer.step()
    assert torch.equal(rule.metric(["p0"])["p0"], kept)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.RMSprop([p]), "threshold of RMSprop is not known"),
        (lambda p: torch.optim.Adam([p], weight_decay=0.1), "weight decay is preconditioned"),
        (lambda p: torch.optim.SGD([p], lr=0.1, maximize=True), "maximises"),
        (lambda p: torch.optim.SGD([p], lr=3.0, weight_decay=1.0), "weight decay alone"),
    ],
)
def test_what_is_not_known_says_so(make, reason):
    p = torch.zeros(1, requires_grad=True)
    rule = rule_of(make(p), p)
    assert rule.threshold is None
    assert reason in rule.reason


def test_adam_has_no_metric_before_its_first_update():
    p = torch.zeros(1, requires_grad=True)
    rule = rule_of(torch.optim.Adam([p]), p)
    assert rule.metric(["p0"]) is None
    assert "before its first update" in rule.unknown


def test_the_metric_is_one_number_or_one_per_parameter():
    a, b, unheld = (torch.zeros(2, requires_grad=True) for _ in range(3))
    one = rule_of(torch.optim.SGD([a, b], lr=0.1), a, b, unheld)
    assert one.metric(["p0", "p1"]) == 0.1
    assert one.metric(["p0", "p1", "p2"]) == {"p0": 0.1, "p1": 0.1, "p2": 0.0}
    two = rule_of(torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.2}]), a, b)
    assert two.learning_rates == (0.1, 0.2)
    assert two.metric(["p0", "p1"]) == {"p0": 0.1, "p1": 0.2}
    assert two.with_rates((1.0, 2.0)).metric(["p0", "p1"]) == {"p0": 1.0, "p1": 2.0}


def test_different_momenta_and_several_optimizers_have_no_single_threshold():
    a, b = (torch.zeros(2, requires_grad=True) for _ in range(2))
    groups = torch.optim.SGD([{"params": [a], "momentum": 0.9}, {"params": [b]}], lr=0.1)
    assert "different thresholds" in rule_of(groups, a, b).reason
    several = UpdateRule.of([torch.optim.SGD([a], lr=0.1), torch.optim.SGD([b], lr=0.1)], {id(a): "a", id(b): "b"})
    assert "several optimizers" in several.reason
    assert several.metric(["a"]) is None


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_thresholds_are_those_of_the_literature(beta):
    """Cohen et al. 2021 and 2022: 2(1 + β), 2(1 + β)/(1 + 2β), (2 + 2β)/(1 − β)."""
    p = torch.zeros(1, requires_grad=True)
    found = [
        rule_of(o, p).threshold
        for o in (
            torch.optim.SGD([p], lr=1.0, momentum=beta),
            torch.optim.SGD([p], lr=1.0, momentum=beta or 1e-300, nesterov=True),
            torch.optim.Adam([p], betas=(beta, 0.999)),
        )
    ]
    for c, expected in zip(
        found, (2 * (1 + beta), 2 * (1 + beta) / (1 + 2 * beta), (2 + 2 * beta) / (1 - beta)), strict=True
    ):
        assert math.isclose(c, expected, rel_tol=1e-12)


def after(steps, beta, seed=0):
    """Adam after so many random gradients, and its last update."""
    draw = torch.Generator().manual_seed(seed)
    p = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.3, betas=(beta, 0.9))
    for _ in range(steps):
        p.grad, before = torch.randn(5, dtype=torch.float64, generator=draw), p.detach().clone()
        optimizer.step()
    return p, optimizer, p.detach() - before


@pytest.mark.parametrize(("beta", "steps"), [(0.9, 30), (0.9, 45), (0.5, 6), (0.0, 3)])
def test_rho_s_metric_multiplies_adam_s_averaged_gradient(beta, steps):
    """Oracle: torch's own update, −P times its average of gradients from zero on, to float64's rounding. Cohen et al. 2022."""
    p, optimizer, update = after(steps, beta)
    rule = rule_of(optimizer, p)
    averaged = optimizer.state[p]["exp_avg"]
    torch.testing.assert_close(update, -rule.stability_metric(["p0"])["p0"] * averaged, rtol=1e-12, atol=0)
    ratio = rule.stability_metric(["p0"])["p0"] / rule.metric(["p0"])["p0"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / (1 - beta**steps)))
    assert rule.threshold is not None


@pytest.mark.parametrize(("beta", "fewest"), [(0.9, 30), (0.5, 6)])
def test_adam_has_no_ratio_before_its_threshold_holds(beta, fewest):
    for steps, known in ((1, False), (fewest - 1, False), (fewest, True)):
        p, optimizer, _ = after(steps, beta)
        rule = rule_of(optimizer, p)
        assert (rule.threshold is not None) == known
        assert ("fewer than 3/(1 − β₁) updates" in rule.reason) != known
        assert rule.metric(["p0"]) is not None
