"""The study on adversarial examples at smoke size: orderings; its attacks on linear functions; its page against its results."""

import copy

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import STUDIES, committed_page_is_of_its_results, made_of_results_alone, script

study = script("adversarial-kernel")

from adversarial_claims import Runs, brittle, claims, fooled, heavier, later, ranks, why_not  # noqa: E402
from adversarial_page import figure, page  # noqa: E402
from adversarial_runs import Kernel, Motion, Points, attack, feature_numbers, gradient, right, train  # noqa: E402
from adversarial_runs import fooled as fooled_share  # noqa: E402
from squares_by_sgd import Learner, Sgd  # noqa: E402
from wide_networks import mlp  # noqa: E402

import kerneltrack as kt  # noqa: E402

FOLDER = STUDIES / "adversarial-kernel"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("adversarial-kernel"))


@pytest.fixture(scope="module")
def few():
    """(network, points): a small network in float64, and 9 points."""
    torch.manual_seed(0)
    return mlp("ntk", "relu", 12, 5).double(), Points(
        torch.randn(9, 5).double(), torch.sign(torch.randn(9, 1)).double()
    )


def test_the_attack_on_a_linear_function_is_its_weights(few):
    """f(x) = w·x: δ = −ε y sign w, whatever x is; of all corners of the box it lowers yf most. ε = 0 changes nothing."""
    _, points = few
    w = torch.tensor([1.0, -2.0, 0.5, -0.1, 3.0], dtype=torch.float64)
    f = lambda x: (x @ w)[:, None]  # noqa: E731  # a function, in a word
    delta = attack(f, points, 0.3)
    torch.testing.assert_close(delta, -0.3 * points.y * torch.sign(w))
    corners = 0.3 * torch.tensor(np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T, dtype=torch.float64)
    for x, y, shift in zip(points.x, points.y, delta, strict=True):
        assert ((x + shift) @ w * y).item() == pytest.approx(((x + corners) @ w * y).min().item())
    assert fooled_share(f, points, attack(f, points, 0.0)) == 0.0
    # by hand: a point is fooled where its margin is below 0.3‖w‖_1
    margins = (points.x @ w)[:, None] * points.y
    wanted = float(((margins > 0) & (margins < 0.3 * w.abs().sum())).sum() / (margins > 0).sum())
    assert fooled_share(f, points, delta) == pytest.approx(wanted)
    assert right(f, points).tolist() == (margins[:, 0] > 0).tolist()


def test_a_kernels_function_is_its_columns_and_its_gradient_is_autograds(few):
    """Θ_0(x, X)α entry by entry, and finite differences along each pixel."""
    network, points = few
    kernel = Kernel.of(network, points.x[:6])
    alpha, new = np.random.default_rng(0).standard_normal(6), points.x[6:]
    f = kernel.function(alpha)
    theta = kt.empirical_ntk(network, new, points.x[:6])[:, :, 0, 0].numpy()
    np.testing.assert_allclose(f(new).detach().numpy()[:, 0], theta @ alpha, rtol=1e-9)
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    differences = [((f(new + e) - f(new - e)) / 2e-6).detach().numpy()[:, 0] for e in step]
    np.testing.assert_allclose(gradient(f, new).numpy(), np.stack(differences, axis=1), atol=1e-6)


def test_features_sum_to_the_targets_and_a_long_flow_ends_there(few):
    """Σ_i f^(i)(X) = Σ_i v_i⟨v_i, y⟩ = y; each alone is y's part along v_i. f_t → y."""
    network, points = few
    seen = points[slice(5)]
    kernel, y = Kernel.of(network, seen.x), seen.y[:, 0].numpy()
    features = [kernel.feature(y, i + 1)(seen.x).detach().numpy()[:, 0] for i in range(5)]
    np.testing.assert_allclose(np.sum(features, axis=0), y, atol=1e-8)
    vector = kernel.pairs.vectors[:, 1]
    np.testing.assert_allclose(features[1], vector * (vector @ y), atol=1e-8)
    np.testing.assert_allclose(kernel.flow(y, 1e9)(seen.x).detach().numpy()[:, 0], y, atol=1e-8)
    assert np.abs(kernel.flow(y, 0.0)(seen.x).detach().numpy()).max() == 0
    useful, robust = feature_numbers(kernel, y, 1, seen, 0.0)
    assert useful == robust == np.mean(features[0] * y > 0)


def test_adversarial_training_learns_the_attacked_minibatch(few):
    """One epoch of whole batches by hand: torch's SGD on f(x + δ) − f_0(x + δ), δ of the learner as it is then."""
    network, points = few
    learner, twin = Learner(copy.deepcopy(network)), Learner(copy.deepcopy(network))
    assert not gradient(learner, points.x).any()  # f − f_0 is flat at the start: the first attack is none
    optimizer = torch.optim.SGD(twin.network.parameters(), lr=0.05)
    assert list(train(learner, points, Sgd(0.05, 9), 2, 0, 0.2)) == [0, 1, 2]
    for _ in range(2):
        shift = attack(twin, points, 0.2)
        optimizer.zero_grad()
        (0.5 * (twin(points.x + shift) - points.y).square().mean()).backward()
        optimizer.step()
    torch.testing.assert_close(learner.network[0].weight, twin.network[0].weight, rtol=1e-9, atol=1e-12)


def test_a_kernel_that_stands_does_not_turn_and_all_of_a_small_one_is_in_ten_modes(few):
    network, points = few
    torch.manual_seed(1)
    motion = Motion(points.x)
    motion.look(network)
    motion.look(mlp("ntk", "relu", 12, 5).double())
    motion.look(network)
    found = motion.numbers
    assert found["turns"][0] == found["turns"][1] > 1
    assert found["cosines"][0] == found["cosines"][2] == 1
    assert found["cosines"][1] == pytest.approx(np.cos(found["turns"][0] / 1e3), rel=1e-3)
    assert found["top10"] == [1.0, 1.0, 1.0]


def test_points_are_centred_and_held_out_ones_by_the_same_mean():
    points = Points.load("digits", (20, 10), 0)
    assert points.x[:20].mean(dim=0).abs().max() < 1e-6
    assert points.x[20:].mean(dim=0).abs().max() > 1e-3
    assert set(points.y[:, 0].tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="than the 357 there are"):
        Points.load("digits", (300, 100), 0)


def test_the_kernels_examples_fool_and_random_ones_do_not(smoke):
    for run in Runs.of(smoke).all:
        assert fooled("kernel")(run) > 3 * fooled("random")(run)
        assert fooled("own", "adversarial")(run) < fooled("own")(run)
        assert run["adversarial"]["robust"] > run["standard"]["robust"]


def test_numbers_of_a_run_by_hand():
    """Features that are ever less robust; late motion is the median of the last half."""
    moved = {"turns": [9.0, 9.0, 2.0, 4.0], "top10": [0.5, 0.7]}
    run = {
        "features": [[0.9, 0.9], [0.7, 0.4], [0.55, 0.1]],
        "standard": moved,
        "adversarial": {"turns": [9.0, 9.0, 1.0, 2.0], "top10": [0.5, 0.8]},
    }
    assert ranks(run) == pytest.approx(-1)
    assert brittle(run) == [2]
    assert later(run) == pytest.approx(0.5)
    assert heavier(run) == pytest.approx(10)


def test_the_page_and_the_figure_are_made_of_results_alone(smoke, tmp_path):
    made_of_results_alone(smoke, page, figure, tmp_path)
    rows = list(claims(Runs.of(smoke)))
    assert len(rows) == 8
    assert len(list(why_not(Runs.of(smoke), {row.key for row in rows}))) == 7


def test_the_committed_page_is_that_of_the_committed_results():
    committed_page_is_of_its_results(FOLDER.name, page)
