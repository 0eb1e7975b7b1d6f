"""The stability threshold against training on a quadratic: just below it converges, just above it diverges."""

import pytest
import torch

from kerneltrack.update_rule import UpdateRule


def rule_of(optimizer, *parameters):
    return UpdateRule.of([optimizer], {id(p): f"p{i}" for i, p in enumerate(parameters)})


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_threshold_is_where_a_quadratic_diverges(momentum):
    """Oracle: the iteration itself on ½h·x² (h = 3). ηh/c = 0.98 shrinks, 1.02 grows, whatever the momentum."""
    h = 3.0
    for ratio, grows in ((0.98, False), (1.02, True)):
        x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([x], lr=1.0, momentum=momentum)
        threshold = rule_of(optimizer, x).threshold
        optimizer.param_groups[0]["lr"] = ratio * threshold / h
        for _ in range(4000):
            optimizer.zero_grad()
            (h * x.square().sum() / 2).backward()
            optimizer.step()
            if abs(x.item()) > 1e12:
                break
        assert (abs(x.item()) > 1) is grows


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.Adam([p]), "threshold of Adam is not known"),
        (lambda p: torch.optim.SGD([p], lr=0.1, weight_decay=0.1), "weight decay"),
        (lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True), "Nesterov"),
        (lambda p: torch.optim.SGD([p], lr=0.1, maximize=True), "maximises"),
    ],
)
def test_what_is_not_known_says_so(make, reason):
    p = torch.zeros(1, requires_grad=True)
    rule = rule_of(make(p), p)
    assert rule.threshold is None
    assert reason in rule.reason
    assert rule.metric(["p0"]) is None


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
    assert "different momenta" in rule_of(groups, a, b).reason
    several = UpdateRule.of([torch.optim.SGD([a], lr=0.1), torch.optim.SGD([b], lr=0.1)], {id(a): "a", id(b): "b"})
    assert "several optimizers" in several.reason
