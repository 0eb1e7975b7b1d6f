"""Training with a fixed kernel. Oracle: the updates of a linear model in weight space, done one after the other; the solution
of the differential equation by SciPy's matrix exponential; a sample of initialisations."""

import numpy as np
import pytest
from scipy.linalg import expm

import kerneltrack as kt
from kerneltrack.errors import RegressionError
from kerneltrack.regression import descent_filter, ensemble_covariance, flow_filter, trained

RNG = np.random.default_rng(0)
X, NEW = RNG.standard_normal((9, 6)), RNG.standard_normal((4, 6))
#: Rank 6 of 9, and each point twice.
CASES = {"few": X, "twice": np.repeat(X[:4], 2, axis=0)}


def problem(name):
    x = CASES[name]
    return x, kt.eigensystem(x @ x.T), np.random.default_rng(1).standard_normal((len(x), 2))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("updates", [0, 1, 7, 500])
@pytest.mark.parametrize("share", [1e-3, 0.45, 1.2, 1.99])
def test_descent_is_the_updates_one_by_one(name, updates, share):
    """ηλ_1 from far below the edge to just below it."""
    x, pairs, y = problem(name)
    rate = share / pairs.values[0]
    start = np.random.default_rng(2).standard_normal((6, 2))
    w = start.copy()
    for _ in range(updates):
        w = w - rate * x.T @ (x @ w - y)
    filters = descent_filter(pairs.values, rate, updates)
    found = trained(NEW @ x.T, pairs, y, filters, offset=(NEW @ start, x @ start))
    np.testing.assert_allclose(found, NEW @ w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("time", [0.0, 1e-6, 0.3, 40.0])
def test_flow_is_the_solution_of_its_equation(name, time):
    """f_t(X) = y + e^{−Θt}(f_0 − y)."""
    x, pairs, y = problem(name)
    kernel = x @ x.T
    found = trained(kernel, pairs, y, flow_filter(pairs.values, time))
    np.testing.assert_allclose(found, y - expm(-kernel * time) @ y, atol=1e-10)


def test_many_small_updates_are_flow():
    x, pairs, y = problem("few")
    small = trained(NEW @ x.T, pairs, y, descent_filter(pairs.values, 1e-6, 300_000))
    flow = trained(NEW @ x.T, pairs, y, flow_filter(pairs.values, 0.3))
    # (1 − ηλ)^k = e^{−λt} (1 + O(ηλ²t)), ηλ²t < 1e-6 · 30² · 0.3
    np.testing.assert_allclose(small, flow, rtol=3e-4)


def test_the_end_of_flow_is_the_pseudo_inverse():
    x, pairs, y = problem("twice")
    found = trained(NEW @ x.T, pairs, y, flow_filter(pairs.values, np.inf, noise_floor=pairs.noise_floor))
    np.testing.assert_allclose(found, NEW @ np.linalg.pinv(x) @ y, atol=1e-10)


def test_a_mode_of_eigenvalue_zero_moves_at_the_rate_of_its_residual():
    """The limits of both filters at λ = 0: t, and kη; and at ∞ nothing is divided by rounding."""
    values = np.array([0.0, -1e-18])
    assert flow_filter(values, 0.3).tolist() == [0.3, 0.3]
    assert descent_filter(values, 0.1, 7) == pytest.approx([0.7, 0.7], rel=1e-15)
    assert flow_filter(np.array([1e-9, 2.0]), np.inf, noise_floor=1e-8).tolist() == [0.0, 0.5]


def test_above_the_edge_a_mode_grows():
    """ηλ = 3: (1 − 3)^5 = −32, so the residual is 32 times the first and of the other sign."""
    assert descent_filter(np.array([3.0]), 1.0, 5) * 3.0 == pytest.approx([33.0], rel=1e-15)


def test_the_covariance_of_an_ensemble_is_that_of_its_members():
    """f_0 = Xw, w ~ N(0, I), trained by flow. Oracle: 20,000 members; the standard error of a covariance is √(2/n) of it."""
    x, pairs, y = problem("few")
    filters, count = flow_filter(pairs.values, 0.2), 20_000
    start = np.random.default_rng(3).standard_normal((6, count))
    members = trained(NEW @ x.T, pairs, np.repeat(y[:, :1], count, 1), filters, offset=(NEW @ start, x @ start))
    found = ensemble_covariance(NEW @ x.T, pairs, filters, (NEW @ NEW.T, x @ NEW.T, x @ x.T))
    sampled = np.cov(members)
    scale = np.sqrt(np.outer(np.diag(found), np.diag(found)))
    assert np.max(np.abs(sampled - found) / scale) < 5 * np.sqrt(2 / count)


@pytest.mark.parametrize("time", [-1.0, float("nan")])
def test_time_runs_forward(time):
    with pytest.raises(RegressionError, match="forward"):
        flow_filter(np.ones(2), time)


@pytest.mark.parametrize(("rate", "updates"), [(0.0, 3), (0.1, -1)])
def test_a_rate_that_is_none_is_refused(rate, updates):
    with pytest.raises(RegressionError, match="rate"):
        descent_filter(np.ones(2), rate, updates)
