"""What a plan costs and says: a few samples are run, and its memory is what is used.

Oracle: the batch sizes that the model saw; the sizes of Θ and J, in closed form.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
