"""The study on convolutional networks at smoke size: against networks that are their own linearisation; its page."""

import re

import numpy as np
import pytest
import torch

from tests.studies.study_scripts import script

study = script("convolutional-networks")

from conv_claims import Runs, gap  # noqa: E402
from conv_page import figure, page  # noqa: E402
from conv_runs import Start, Task, both, lenet, regression, task  # noqa: E402
from squares_by_sgd import Sgd  # noqa: E402


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Trained once."""
    return study.measure("smoke", study.SIZES["smoke"], tmp_path_factory.mktemp("convolutional-networks"))


@pytest.fixture(scope="module")
def digits():
    return task("digits", "classes", 60, 100, seed=0)


def test_where_only_the_last_layer_learns_the_network_is_its_linearisation(digits):
    """f is affine in the last layer's parameters: the same outputs up to float32 rounding of 30 updates, and the same gap: none."""
    torch.manual_seed(0)
    model = lenet(0.5, 8, 10)
    for layer in model[:-1]:
        layer.requires_grad_(False)
    found = both(model, digits, Sgd(0.05, 20), epochs=10, seed=0)
    assert found["network"] == found["linear"]
    assert found["network_loss"] < 0.449  # ½‖y‖² is 0.45
    assert found["network_loss"] == pytest.approx(found["linear_loss"], rel=1e-5)


def test_the_whole_network_is_not(digits):
    torch.manual_seed(0)
    found = both(lenet(0.5, 8, 10), digits, Sgd(0.2, 20), epochs=10, seed=0)
    assert abs(found["network_loss"] / found["linear_loss"] - 1) > 1e-3


def test_a_linear_network_has_no_departure_and_its_kernel_regresses_as_least_squares(digits):
    """J is constant: C' = 0. Regression with XXᵀ + 1 is the least-norm fit of inputs and a bias, which NumPy finds as well."""
    flat = Task(digits.x[:40], digits.y[:40], digits.unseen, digits.labels)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    start = Start.of(model, flat, 100)
    with torch.no_grad():
        model[1].weight += 1.0
    assert start.stability(model, flat.x) < 1e-6
    ones = [np.c_[part.flatten(1).double().numpy(), np.ones(len(part))] for part in (flat.x, flat.unseen[:100])]
    fitted = ones[1] @ np.linalg.lstsq(ones[0], flat.y.double().numpy(), rcond=None)[0]
    want = np.mean(fitted.argmax(axis=1) == flat.labels[:100].numpy())
    assert regression(start.kernel, flat) == pytest.approx(want, abs=0.011)  # one of a hundred may be a tie


def test_tasks_are_the_same_images_with_other_labels_or_pixels():
    named = {name: task("digits", name, 50, 30, seed=1) for name in ("parity", "classes", "permuted", "random")}
    classes = named["classes"]
    torch.testing.assert_close(named["parity"].labels, classes.labels % 2)
    assert named["parity"].outputs == 2
    moved, plain = (named[name].x.flatten(1).sort(dim=1).values for name in ("permuted", "classes"))
    torch.testing.assert_close(moved, plain)
    assert not torch.equal(named["permuted"].x, classes.x)
    assert not torch.equal(named["random"].labels, classes.labels)
    torch.testing.assert_close(named["random"].x, classes.x)
    torch.testing.assert_close(classes.y.sum(dim=1), torch.zeros(50), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="are more than 1797"):
        task("digits", "classes", 1700, 100, seed=0)


def test_parameters_grow_as_the_square_of_the_multiplier():
    """By hand, layer by layer: weights and biases; the second convolution is padded, so 7 × 7 positions are left."""
    counts = {c: sum(p.numel() for p in lenet(c, 28, 10).parameters()) for c in (1.0, 2.0)}
    assert counts[1.0] == 156 + 2416 + (16 * 49 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert 3.8 < counts[2.0] / counts[1.0] < 4.0


def test_the_wider_one_changes_its_kernel_less(smoke):
    runs = Runs.of(smoke)
    course = runs.course(lambda run: run["change"], "classes")
    assert course.medians[1] < course.medians[0]
    assert all(np.isfinite(gap(run)) for run in runs.all)


def test_a_figure_and_a_page_are_made_of_results_alone(smoke, tmp_path):
    figure(smoke, tmp_path / "convolutional.png")
    assert (tmp_path / "convolutional.png").stat().st_size > 10_000
    assert re.search(r"\d of 7 claims that can be decided hold", page(smoke))
