"""Kernel regression against explicit solves and refits."""

import math

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import (
    State,
    compute,
    energy_k,
    extended_energy,
    held_out,
    in_training,
    kernel_alignment_risk,
    kernel_regression,
    leave_one_out,
    select,
)
from kerneltrack.observables.regression import RIDGE
from kerneltrack.spectrum.decomposition import eigensystem


def problem_of(samples=6, others=4, features=20, seed=0):
    rng = np.random.default_rng(seed)
    train, test = rng.standard_normal((samples, features)), rng.standard_normal((others, features))
    return train @ train.T, test @ train.T, rng.standard_normal((samples, 2)), rng.standard_normal((others, 2))


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_regression_is_the_linear_solve(ridge):
    kernel, cross, y, _ = problem_of()
    expected = cross @ np.linalg.solve(kernel + ridge * np.eye(6), y)
    np.testing.assert_allclose(kernel_regression(cross, eigensystem(kernel), y, ridge=ridge), expected, rtol=1e-9)


def test_an_offset_is_where_regression_starts():
    kernel, cross, y, start = problem_of()
    inner = 0.3 * y
    expected = start + cross @ np.linalg.solve(kernel, y - inner)
    found = kernel_regression(cross, eigensystem(kernel), y, ridge=0.0, offset=(start, inner))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # a network that already fits is left where it is
    fitted = kernel_regression(cross, eigensystem(kernel), y, ridge=0.0, offset=(start, y))
    np.testing.assert_array_equal(fitted, start)


def test_a_singular_kernel_is_inverted_where_it_can_be():
    # Oracle: NumPy's pseudo-inverse.
    kernel, cross, y, _ = problem_of(features=3)
    found = kernel_regression(cross, eigensystem(kernel), y, ridge=0.0)
    np.testing.assert_allclose(found, cross @ np.linalg.pinv(kernel, rcond=1e-12) @ y, atol=1e-10)
    assert np.isfinite(kernel_regression(cross, eigensystem(np.zeros((6, 6))), y, ridge=0.0)).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_leaving_one_out_is_refitting_without_it(outputs):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((5 * outputs, 30))
    kernel, y, ridge = features @ features.T, rng.standard_normal((5 * outputs, 1)), 0.4
    found = leave_one_out(eigensystem(kernel), y, 5, ridge=ridge)
    for point in range(5):
        out = np.arange(point * outputs, (point + 1) * outputs)
        rest = np.setdiff1d(np.arange(5 * outputs), out)
        fitted = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(len(rest)), y[rest])
        np.testing.assert_allclose(found[out], y[out] - kernel[np.ix_(out, rest)] @ fitted, rtol=1e-9)


def test_the_alignment_risk_is_its_formula():
    kernel, _, y, _ = problem_of()
    ridge, size = 0.4, 6
    inverse = np.linalg.inv(kernel / size + ridge / size * np.eye(size))
    expected = np.trace(y.T @ inverse @ inverse @ y) / size / (np.trace(inverse) / size) ** 2
    assert kernel_alignment_risk(eigensystem(kernel), y, ridge=ridge) == pytest.approx(expected)


def test_regression_needs_every_pair():
    kernel, cross, y, _ = problem_of()
    with pytest.raises(ObservableError, match="every eigenpair"):
        kernel_regression(cross, eigensystem(kernel, 2), y, ridge=0.1)


def test_relative_errors_of_a_state(problem, reduction):
    matrix, columns = problem.matrix(reduction), problem.columns(problem.targets, reduction)
    size = len(matrix)
    ridge = RIDGE * np.trace(matrix) / size
    values = compute(
        select(["network_error", "leave_one_out_error", "kernel_alignment_risk", "kernel_regression_error"]),
        problem.state(
            reduction, regression=problem.targets * 1.5, settings={"dtype": "float64", "loss": "half_mse", "step": 0}
        ),
    )
    inverse = np.linalg.inv(matrix + ridge * np.eye(size))
    norm = np.vdot(columns, columns)
    risk = np.trace(columns.T @ inverse @ inverse @ columns) / (np.trace(inverse) / size) ** 2 / norm
    assert values["kernel_alignment_risk"] == pytest.approx(risk, rel=1e-9)
    assert values["kernel_regression_error"] == pytest.approx(0.25)
    expected = np.sum((problem.outputs - problem.targets) ** 2) / np.sum(problem.targets**2)
    assert values["network_error"] == pytest.approx(expected)
    errors = leave_one_out(eigensystem(matrix), columns, 7, ridge=ridge)
    assert values["leave_one_out_error"] == pytest.approx(np.vdot(errors, errors) / norm, rel=1e-9)


def test_targets_of_zero_have_no_relative_error(problem):
    state = problem.state(targets=0 * problem.targets, settings={"loss": "mse", "step": 0})
    values = compute(select(["network_error", "leave_one_out_error"]), state)
    assert math.isnan(values["network_error"])
    assert math.isnan(values["leave_one_out_error"])


def test_energies_out_of_sample_are_projections_on_the_span():
    # Oracle: least squares on the first k extended functions.
    rng = np.random.default_rng(0)
    extension, phi = rng.standard_normal((9, 4)), rng.standard_normal((9, 2))
    found = extended_energy(extension, phi, (1, 2, 4))
    for value, k in zip(found, (1, 2, 4), strict=True):
        fitted = extension[:, :k] @ np.linalg.lstsq(extension[:, :k], phi, rcond=None)[0]
        assert value == pytest.approx(np.vdot(fitted, fitted) / np.vdot(phi, phi))
    # the Nyström factors 1/λ_i, and signs, do not change a span
    np.testing.assert_allclose(extended_energy(extension * [1, -3, 0.1, 9], phi, (1, 2, 4)), found)
    assert np.isnan(extended_energy(extension, 0 * phi, (1, 2))).all()


def test_more_functions_than_points_hold_everything():
    rng = np.random.default_rng(0)
    found = extended_energy(rng.standard_normal((3, 5)), rng.standard_normal((3, 1)), (2, 3, 5))
    assert found[0] < 1
    np.testing.assert_allclose(found[1:], 1)


def test_a_probe_extended_to_itself_gives_its_own_energy(problem, reduction):
    # Θ V_k = V_k Λ_k spans what V_k does.
    state = problem.state(reduction)
    extension = problem.matrix(reduction) @ state.eigensystem.vectors[:, :5]
    values = compute(
        select(["target_energy", "target_energy_out_of_sample", "output_energy", "output_energy_out_of_sample"]),
        problem.state(reduction, extension=extension),
    )
    reach = sum(k <= 5 for k in energy_k(len(state.eigensystem.values)))
    for name in ("target_energy", "output_energy"):
        np.testing.assert_allclose(values[f"{name}_out_of_sample"][:reach], values[name][:reach], rtol=1e-9)
        assert np.isnan(values[f"{name}_out_of_sample"][reach:]).all()


SQUARES = ["network_error", "kernel_regression_error"]


@pytest.mark.parametrize("loss", [None, "cross_entropy", "MyLoss", "mse_loss", "mse (a callable)", ""])
def test_regression_by_squares_is_not_set_beside_another_loss(problem, loss):
    """Nothing says that such a loss is a mean of squares; a callable's name does not either."""
    state = problem.state(regression=problem.targets, settings={"loss": loss})
    values = compute(select(SQUARES), state)
    for name in SQUARES:
        assert math.isnan(values[name])
        assert "the loss is not a mean of squares" in values.reasons[name]


@pytest.mark.parametrize("loss", ["half_mse", "mse"])
def test_regression_by_squares_stands_beside_a_mean_of_squares(problem, loss):
    values = compute(select(SQUARES), problem.state(regression=0 * problem.targets, settings={"loss": loss}))
    assert values["kernel_regression_error"] == pytest.approx(1)
    expected = np.sum((problem.outputs - problem.targets) ** 2) / np.sum(problem.targets**2)
    assert values["network_error"] == pytest.approx(expected)


PREDICTED = ["leave_one_out_error", "kernel_alignment_risk"]


def random_labels(settings, *, seen):
    """30 random ±1 labels; a kernel of random features that has taken the labels in, as training does, or has not."""
    rng = np.random.default_rng(5)
    features, labels = rng.standard_normal((30, 400)), np.sign(rng.standard_normal((30, 1)))
    kernel = features @ features.T / 400 + (3 * labels @ labels.T if seen else 0)
    return State(eigensystem=eigensystem(kernel), outputs=0 * labels, targets=labels, settings=settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"step": 7},
        {"step": 7, "in_training": "yes"},
        {"step": 7, "in_training": "unknown"},
        {},
        {"step": None},
        {"step": 1},
    ],
)
def test_no_error_is_predicted_from_labels_that_the_kernel_has_seen(settings):
    """Law: labels thrown at random cannot be predicted, so no error below 1 − 2 standard errors may be told."""
    values = compute(select(PREDICTED), random_labels(settings, seen=True))
    told = compute(select(PREDICTED), random_labels({"step": 0}, seen=True))
    for name in PREDICTED:
        assert told[name] < 0.1  # what would have been told of this kernel: the negative control
        assert math.isnan(values[name])
        assert "the kernel has seen these labels" in values.reasons[name]


@pytest.mark.parametrize("settings", [{"step": 0}, {"step": 9, "in_training": "no"}])
def test_an_error_is_predicted_at_the_start_and_on_what_is_held_out(settings):
    """The standard error of a mean of 30 squares that are 1 each is below 1/√30."""
    values = compute(select(PREDICTED), random_labels(settings, seen=False))
    for name in PREDICTED:
        assert values[name] > 1 - 2 / math.sqrt(30)


@pytest.mark.parametrize(
    ("identity", "known"),
    [
        ({"split": "val"}, True),
        ({"split": "Validation"}, True),
        ({"split": "test[:100]"}, True),
        ({"split": "held-out"}, True),
        ({"split": "hold_out"}, True),
        ({"split": "holdout"}, True),
        ({"dataset": "CIFAR10", "split": "test", "indices": [1, 2]}, True),
        ({"split": "validation_matched"}, True),
        (None, False),
        ({}, False),
        ({"split": "train"}, False),
        ({"split": ""}, False),
        ({"split": None}, False),
        ({"split": "training"}, False),
        ({"split": "test+train"}, False),
        ({"split": "train_test"}, False),
        ({"split": "unsupervised"}, False),
        ({"dataset": "test"}, False),
        ({"split": 3}, False),
        ({"split": "held"}, False),
        ({"split": "contest"}, False),
        ({"dataset": "TensorDataset", "seed": 0, "indices": [0]}, False),
    ],
)
def test_what_is_known_to_be_held_out(identity, known):
    assert held_out(identity) is known
    trained = known is False and identity is not None and identity.get("split") in ("train", "training")
    assert in_training(identity) == ("no" if known else "yes" if trained else "unknown")


@pytest.mark.parametrize("said", ["yes", "no", "unknown"])
def test_regression_on_points_that_were_trained_on_is_no_prediction(problem, said):
    """Points of which nobody knows keep it: a second probe is there to be predicted."""
    settings = {"loss": "mse", "step": 3, "in_training": said}
    values = compute(select(SQUARES), problem.state(regression=0 * problem.targets, settings=settings))
    assert math.isnan(values["kernel_regression_error"]) == (said == "yes")
    assert not math.isnan(values["network_error"])
