"""What a plan costs and says: a few samples are run, and its memory is what is used.

Oracle: the batch sizes that the model saw; the sizes of Θ and J, in closed form.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import kerneltrack as kt

N = 60


def model():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("method", ["auto", "jacobian", "products", "structured"])
@pytest.mark.parametrize("sides", [1, 2])
def test_a_plan_runs_few_samples(method, sides):
    """At most eight at a time, and not one pass for each sample either; it ran the whole probe twice before."""
    x, seen = torch.randn(N, 4), []

    def forward(net, x):
        seen.append(len(x))
        return net(x)

    x2 = None if sides == 1 else torch.randn(N + 1, 4)
    plan = kt.ntk_plan(model(), x, x2, method=method, forward=forward)
    assert max(seen) <= 8
    assert len(seen) < N * sides
    assert plan.shape == (N, N if sides == 1 else N + 1, 3, 3)


@pytest.mark.parametrize("method", ["jacobian", "products"])
def test_the_peak_is_not_the_budget(method):
    """The budget was announced before. Θ must fit, and for the Jacobian method both J and Θ."""
    plan = kt.ntk_plan(model(), torch.randn(N, 4), method=method, memory_budget="4GiB")
    theta, jacobian = 4 * (3 * N) ** 2, 4 * 3 * N * (4 * 8 + 8 + 8 * 3 + 3)
    assert plan.peak_bytes >= theta + (jacobian if method == "jacobian" else 0)
    assert plan.peak_bytes < 16 * (theta + jacobian)
    assert plan.budget_bytes == 2**32


def test_the_peak_is_bounded_by_the_budget():
    """Where the Jacobian does not fit it is made in tiles."""
    plan = kt.ntk_plan(model(), torch.randn(N, 4), method="jacobian", memory_budget=250_000)
    assert plan.peak_bytes == 250_000


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_a_bias_that_rides_along_is_planned_for_nothing(shape):
    """Oracle: the same network without biases; of one row a sample its kernel takes as many FLOPs of products, as torch counts
    them. Of several rows (tokens) a bias has a product of its own, and the plan counts it.
    """
    x, planned, counted = torch.randn(N, *shape), [], []
    for bias in (False, True):
        net = nn.Sequential(nn.Linear(4, 8, bias=bias), nn.Tanh(), nn.Linear(8, 3, bias=bias), nn.Flatten())
        net.append(nn.Identity() if len(shape) == 1 else nn.Linear(9, 3, bias=False))
        plan = kt.ntk_plan(net, x, method="structured")
        planned.append((plan.flops - plan.forward_flops, plan.bytes))
        for _ in range(3):  # the third call is not audited
            with FlopCounterMode(display=False) as counter:
                kt.empirical_ntk(net, x, method="structured")
        counted.append(counter.get_total_flops())
    biases = [use for use in plan.uses if use.rule == "shift"]
    assert len(biases) == 2
    if len(shape) == 1:
        assert planned[0] == planned[1]
        assert counted[0] == counted[1]
        assert all(use.flops == 0 and use.order == "token" for use in biases)
    else:
        assert planned[1] > planned[0]
        assert all(use.flops > 0 and use.order == "gradient" for use in biases)
