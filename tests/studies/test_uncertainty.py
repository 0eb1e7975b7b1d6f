"""The study on uncertainty: its processes against Bayesian linear regression, infinite width update by update, its page."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, made_of_results_alone, script

study = script("uncertainty")

from uncertain_claims import PROCESSES, Ensemble, Runs, claims, gain  # noqa: E402
from uncertain_page import figure, page  # noqa: E402
from uncertain_runs import Limit, Process, both, drawn, linearised_mean, train  # noqa: E402
from uncertain_tasks import Task, wave  # noqa: E402
from wide_networks import mlp  # noqa: E402

import kerneltrack as kt  # noqa: E402

FOLDER = STUDIES / "uncertainty"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("uncertainty"))


@pytest.fixture(scope="module")
def linear():
    """(process, task, scores): 30 points of a linear network with five weights, J = X, prior centred at 0."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((42, 5))
    y = x @ rng.standard_normal((5, 1)) + 0.3 * rng.standard_normal((42, 1))
    task = Task(*(torch.tensor(part) for part in (x[:30], y[:30], x[30:], y[30:])), np.arange(12) >= 6)
    network = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    process = Process.of(network, task, prior={"weight": torch.zeros(1, 5, dtype=torch.float64)})
    return process, task, both(process, y[:30], y[30:], task.gap)


def test_a_linear_network_is_bayesian_linear_regression(linear):
    """Closed form over the weights: covariance (δI + XᵀX/σ²)⁻¹, mean that times Xᵀy/σ². Both scores of it, to 1e-10."""
    process, task, found = linear
    x, y, new, targets = (part.numpy() for part in (task.x, task.y, task.new, task.targets))
    assert np.abs(process.mean).max() < 1e-12
    for one in found.values():
        weights = np.linalg.inv(one["precision"] * np.eye(5) + x.T @ x / one["noise"])
        mean, variance = new @ weights @ x.T @ y / one["noise"], np.diag(new @ weights @ new.T)
        error, total = (targets - mean)[:, 0] ** 2, variance + one["noise"]
        assert one["rmse"] == pytest.approx(np.sqrt(error.mean()), rel=1e-10)
        assert one["calibration"] == pytest.approx(np.mean(error / total), rel=1e-10)
        assert one["nll"] == pytest.approx(np.mean(np.log(2 * np.pi * total) + error / total) / 2, rel=1e-10)
        assert one["gap"] == pytest.approx(variance[6:].mean() / variance[:6].mean(), rel=1e-10)


def test_evidence_is_a_gaussian_density_and_its_maximum_is_on_top_of_a_grid(linear):
    """SciPy's density of N(0, XXᵀ/δ + σ²I), and a 200 × 200 grid of it over δ and σ², by its five eigenvalues and the rest."""
    _, task, found = linear
    x, y = task.x.numpy(), task.y.numpy()[:, 0]
    for one in found.values():
        covariance = x @ x.T / one["precision"] + one["noise"] * np.eye(30)
        assert one["log_evidence"] == pytest.approx(multivariate_normal.logpdf(y, cov=covariance), rel=1e-10)
    vectors, roots, _ = np.linalg.svd(x)
    squares, values = (vectors.T @ y) ** 2, np.r_[roots**2, np.zeros(25)]
    precisions, noises = (found["evidence"][k] * np.geomspace(0.05, 20, 200) for k in ("precision", "noise"))
    variances = values / precisions[:, None, None] + noises[:, None]
    grid = -np.sum(squares / variances + np.log(2 * np.pi * variances), axis=2) / 2
    # Half a cell, 0.015, from the top costs ½ · 30/2 · 0.015² = 0.002 at most in each of two directions.
    assert grid.max() <= found["evidence"]["log_evidence"] <= grid.max() + 0.01
    alone = -np.sum(squares / (values + noises[:, None]) + np.log(2 * np.pi * (values + noises[:, None])), axis=1) / 2
    assert alone.max() <= found["prescribed"]["log_evidence"] <= alone.max() + 0.01
    assert found["prescribed"]["precision"] == 1
    # the slope in ln σ² is 0 at a maximum; it is looked for to 1e-5, and the curvature is 30/2 at most
    noise = found["prescribed"]["noise"]
    assert noise * np.sum(squares / (values + noise) ** 2 - 1 / (values + noise)) / 2 == pytest.approx(0, abs=1e-3)


def test_the_prior_mean_of_a_homogeneous_network_is_minus_twice_its_output():
    """Euler: Jθ = 3f for three weight layers of ReLU without biases, so f + J(0 − θ) = −2f; and f itself where θ_p = θ."""
    x = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = mlp("ntk", "relu", 16, 4).double()
    here = {name: value.detach() for name, value in network.named_parameters()}
    outputs = network(x).detach().numpy()
    zero = {name: torch.zeros_like(value) for name, value in here.items()}
    np.testing.assert_allclose(linearised_mean(network, x, zero), -2 * outputs, rtol=1e-12)
    np.testing.assert_array_equal(linearised_mean(network, x, here), outputs)


def test_infinite_width_is_gradient_descent_in_function_space_update_by_update():
    """r ← r − (η/N)Θr, and f(x) ← f(x) − (η/N)Θ(x, X)r, as a linear map of f_0 on all points and of y."""
    task = wave(12)
    limit, n, m = Limit.of(task, 0.2), 12, 150
    theta, nngp = (kind(task.points, depth=3).numpy() for kind in (kt.analytic.relu_ntk, kt.analytic.relu_nngp))
    of_start, of_targets = np.eye(n + m), np.zeros((n + m, n))
    losses = []
    for _ in range(limit.updates):
        losses.append(np.sum((of_targets[:n] @ task.y.numpy() - task.y.numpy()) ** 2))
        step = limit.rate * theta[:, :n]
        of_start, of_targets = of_start - step @ of_start[:n], of_targets - step @ (of_targets[:n] - np.eye(n))
    last = np.sum((of_targets[:n] @ task.y.numpy() - task.y.numpy()) ** 2)
    assert last <= 0.2 * losses[0] < losses[-1]
    assert limit.rate == pytest.approx(0.5 / np.linalg.eigvalsh(theta[:n, :n])[-1], rel=1e-12)
    np.testing.assert_allclose(limit.mean, (of_targets @ task.y.numpy())[n:, 0], atol=1e-10)
    np.testing.assert_allclose(limit.covariance, (of_start @ nngp @ of_start.T)[n:, n:], atol=1e-10)


def test_an_ensemble_of_draws_of_the_limit_is_in_its_band_and_one_of_twice_the_variance_is_not():
    """NumPy's normal draws; 12 members in 20 modes: 220 degrees of freedom, a band of ±19 %."""
    numbers = Limit.of(wave(12), 0.2).numbers(wave(12), 20)
    normal = np.random.default_rng(1).standard_normal((12, 20))
    draws = normal * np.sqrt(numbers["variances"]) @ np.array(numbers["modes"])
    right, wrong = Ensemble(draws, numbers), Ensemble(2**0.5 * draws, numbers)
    assert right.sampled == pytest.approx((0.822, 1.195), abs=1e-3)  # a table of χ² with 220 degrees
    assert right.sampled[0] < right.ratio < right.sampled[1] < wrong.ratio == pytest.approx(2 * right.ratio)
    assert right.ratio == pytest.approx(normal.var(axis=0, ddof=1).mean(), rel=1e-4)  # modes are stored in six digits
    assert right.total == pytest.approx(draws.var(axis=0, ddof=1).sum() / np.sum(numbers["variance"]))


def test_drawn_targets_have_the_covariance_of_the_process(linear):
    """rᵀ(Θ + σ²I)⁻¹r of 42 points is χ² of 42 degrees: its mean over 200 draws is 42 within four standard errors, 4·√(84/200)."""
    process, task, _ = linear
    noise = 0.1 * np.diag(process.covariance).mean()
    inverse = np.linalg.inv(process.covariance + noise * np.eye(42))
    draws = [np.concatenate(drawn(process, seed)) - process.mean for seed in range(200)]
    assert np.mean([(r.T @ inverse @ r).item() for r in draws]) == pytest.approx(42, abs=2.6)
    assert draws[0].shape == (42, 1)
    assert len(task.x) == len(drawn(process, 0)[0])


def test_training_that_does_not_descend_is_refused():
    x, network = torch.ones(1, 1), torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(RuntimeError, match="smaller rate"):
        train(network, x, torch.full((1, 1), 5.0), rate=3.0, updates=2)


def test_evidence_is_never_below_that_of_the_prescription_and_the_gap_is_uncertain(smoke):
    runs = Runs.of(smoke)
    assert set(runs.networks) == {(task, width) for task in ("diabetes", "wave") for width in (16, 128)}
    for (task, width), found in runs.networks.items():
        for run in found:
            assert all(gain(run, kernel) > -1e-6 for kernel in ("start", "trained", "drawn"))
            if (task, width) == ("wave", 128):
                assert all(run[kernel][choice]["gap"] > 1 for kernel, choice in PROCESSES.values())


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    assert len(list(claims(Runs.of(smoke)))) == 5


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
