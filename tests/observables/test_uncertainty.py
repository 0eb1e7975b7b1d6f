"""The spread over halves of the probe against the spread over fresh probes."""

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, Uncertainty, disjoint_halves, select
from kerneltrack.spectrum.decomposition import eigensystem


def linear_state(rng, samples):
    """A linear model on Gaussian inputs: kernel XXᵀ."""
    x = rng.standard_normal((samples, 4))
    kernel = x @ x.T
    return State(eigensystem=eigensystem(kernel), kernel=kernel, reduction="trace", outputs=x[:, :1], targets=x[:, 1:2])


def test_halves_spread_as_fresh_probes_of_half_the_size_do():
    # Oracle: 300 independent probes of N/2 points. tr Θ = Σ‖x‖² is a sum over points, so its halves are independent.
    rng = np.random.default_rng(0)
    fresh = np.std([linear_state(rng, 50).eigensystem.trace for _ in range(300)])
    first, second = disjoint_halves(linear_state(rng, 100), select("trace"), splits=64)["trace"]
    # relative standard error: 4 % of the oracle, about 15 % of one probe of 100 points; 50 % is three of them
    assert np.sqrt(np.mean((first - second) ** 2) / 2) == pytest.approx(fresh, rel=0.5)
    assert abs(np.mean(first - second)) < 4 * np.std(first - second) / np.sqrt(64) + 1e-9


def test_halves_do_not_share_points(problem):
    # tr Θ is additive over points: both halves of an even probe add up to the whole every time.
    problem.jacobian, problem.targets, problem.outputs = (
        a[:6] for a in (problem.jacobian, problem.targets, problem.outputs)
    )
    for reduction in ("full", "diagonal", "trace"):
        state = problem.state(reduction)
        found = disjoint_halves(state, select(["trace", "target_energy", "target_rayleigh"]), splits=3)
        assert set(found) == {"trace", "target_rayleigh"}
        first, second = found["trace"]
        np.testing.assert_allclose(first + second, state.eigensystem.trace)
        assert np.ptp(first) > 0


def test_halves_are_the_same_for_the_same_seed(problem):
    state = problem.state()
    a, b, c = (disjoint_halves(state, select("trace"), seed=seed)["trace"][0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_halves_need_a_kernel_and_points(problem):
    with pytest.raises(ObservableError, match="halves of the probe"):
        disjoint_halves(problem.state(kernel=None), select("trace"))


def test_nobody_looked_is_not_zero():
    assert Uncertainty() == Uncertainty(None, None, None, None)
