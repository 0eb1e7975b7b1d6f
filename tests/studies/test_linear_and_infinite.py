"""The study on linearised and infinite networks at smoke size: orderings; linear models; its page against its results."""

import copy

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, made_of_results_alone, script

study = script("linear-and-infinite")

from reference_claims import Runs, departure, infinite_claims, linear_claims, why_not  # noqa: E402
from reference_infinite import VARIANTS, Limit, Task, apart, outputs  # noqa: E402
from reference_linear import Momentum, Targets, accuracies, tangent, train_linear, train_network  # noqa: E402
from reference_page import figure, page  # noqa: E402
from squares_by_sgd import Learner  # noqa: E402

import kerneltrack as kt  # noqa: E402

FOLDER = STUDIES / "linear-and-infinite"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("linear-and-infinite"))


@pytest.fixture
def linear():
    """(learner, x, y): 14 points of a linear network, ten of them to train on."""
    torch.manual_seed(0)
    x = torch.randn(14, 6, dtype=torch.float64)
    return Learner(torch.nn.Linear(6, 1, bias=False, dtype=torch.float64)), x, torch.sign(torch.randn(14, 1)).double()


def test_a_linear_network_and_its_kernel_learn_alike_to_rounding(linear):
    """Momentum in parameters by torch, in outputs by the kernel; the last minibatch of an epoch is a smaller one."""
    learner, x, y = linear
    momentum = Momentum(share=0.1, batch=4, epochs=7)
    told = train_linear(tangent(learner.network, x), y[:10], 0.05, momentum, 3)
    train_network(learner, x[:10], y[:10], 0.05, momentum, 3)
    got = learner.outputs(x)
    assert np.abs(got).max() > 0.1
    np.testing.assert_allclose(told.numpy(), got, atol=1e-12)


def test_momentum_is_the_textbooks(linear):
    """By hand: two whole batches, v ← 0.9v + ∇, θ ← θ − ηv; the second step has 1.9 of the first, and the curvature's part."""
    _, x, y = linear
    kernel, rate = x @ x.T, 0.01
    told = train_linear(kernel, y[:10], rate, Momentum(batch=10, epochs=2), 0)
    once = rate * kernel[:, :10] @ y[:10] / 10
    again = rate * kernel[:, :10] @ (y[:10] - once[:10]) / 10
    torch.testing.assert_close(told, 1.9 * once + again, rtol=1e-12, atol=1e-14)


def test_descent_that_diverges_says_so(linear):
    learner, x, y = linear
    with pytest.raises(RuntimeError, match="diverged; take a smaller share"):
        train_network(learner, x, y, 1e6, Momentum(epochs=60), 0)


def test_targets_are_signs_of_modes_along_which_the_kernel_itself_has_grown_by_one(linear):
    learner, x, _ = linear
    kernel = tangent(learner.network, x)
    values, vectors = np.linalg.eigh((x @ x.T).numpy())
    targets = Targets(kt.eigensystem(kernel))
    np.testing.assert_allclose(targets.along(kernel, 5), np.ones(5), rtol=1e-10)
    np.testing.assert_allclose(targets.along(kernel + 2 * torch.eye(14), 3), 1 + 2 / values[::-1][:3], rtol=1e-4)
    agree = (targets.sign(2)[:, 0].numpy() == np.sign(vectors[:, -2])).mean()
    assert agree in (0.0, 1.0)
    assert accuracies(torch.tensor([[1.0], [-2.0], [3.0], [-4.0]]), torch.tensor([[1.0], [1.0], [1.0], [-1.0]]), 2) == [
        0.5,
        1.0,
    ]


def test_infinite_width_is_gradient_descent_in_function_space_update_by_update():
    """f ← f − (η/N)Θ(·, X)(f(X) − y) from 0, and it stops at the first update at which the loss is down to its level."""
    task = Task.of(12, 5)
    limit = Limit.of(task, 0.2)
    theta, y = kt.analytic.relu_ntk(task.points, depth=3).numpy(), task.y.double().numpy()
    f, losses = np.zeros((17, 10)), []
    for _ in range(limit.updates + 1):
        losses.append(np.sum((f[:12] - y) ** 2))
        last, f = f, f - limit.rate * theta[:, :12] @ (f[:12] - y)
    assert losses[-1] <= 0.2 * losses[0] < losses[-2]
    assert limit.rate == pytest.approx(0.5 / np.linalg.eigvalsh(theta[:12, :12])[-1], rel=1e-10)
    np.testing.assert_allclose(limit.mean(task), last[12:], atol=1e-10)
    np.testing.assert_allclose(
        limit.mean(task, np.inf), theta[12:, :12] @ np.linalg.solve(theta[:12, :12], y), atol=1e-8
    )
    ridge = theta[12:, :12] @ np.linalg.solve(theta[:12, :12] + np.eye(12) / (7 * limit.rate), y)
    np.testing.assert_allclose(limit.ridge(task, 7), ridge, atol=1e-10)
    assert apart(2 * ridge, ridge) == pytest.approx(1)


def test_a_very_wide_centred_network_is_the_limit_and_a_decayed_one_is_not():
    """One of width 2,048: fluctuations of order m^−½; plain, it has its start besides."""
    task = Task.of(12, 20)
    limit = Limit.of(task, 0.3)
    off = {kind: apart(outputs(task, limit, kind, 2048, 0, 0.5), limit.mean(task)) for kind in VARIANTS}
    assert off["centred"] < 0.15 < off["decayed"]
    assert off["plain"] > 1
    plain, decayed = (outputs(task, limit, kind, 64, 0, 0.5) for kind in ("plain", "decayed"))
    assert np.linalg.norm(decayed) < 0.6 * np.linalg.norm(
        plain
    )  # three layers of e^−½ each, and what is learned meanwhile
    np.testing.assert_array_equal(outputs(task, limit, "decayed", 64, 0, 0.0), plain)


def test_training_leaves_the_start_as_it_was(linear):
    learner, x, y = linear
    before = copy.deepcopy(learner.network)
    train_network(learner, x, y, 0.01, Momentum(epochs=1), 0)
    assert learner.outputs(x).any()
    np.testing.assert_allclose(learner.outputs(x), (learner.network(x) - before(x)).detach().numpy())


def test_centred_ensembles_come_nearer_with_width_and_plain_ones_do_not(smoke):
    runs = Runs.of(smoke)
    centred, plain = (runs.course(departure(variant)).medians for variant in ("centred", "plain"))
    assert centred[-1] < 0.7 * centred[0]
    assert plain[-1] > centred[-1] * 3
    assert all(run["centred"]["variance"] < run["plain"]["variance"] for run in runs.ensembles)


def test_hard_targets_are_hard_for_all(smoke):
    for target, other in zip(*(Runs.of(smoke).of_mode(mode) for mode in (2, 40)), strict=True):
        assert all(target[learner][1] > other[learner][1] for learner in ("network", "start", "trained"))


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    runs = Runs.of(smoke)
    rows = [*linear_claims(runs), *infinite_claims(runs)]
    assert len(rows) == 13
    assert len(list(why_not(runs, {row.key for row in rows}))) == 10


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
