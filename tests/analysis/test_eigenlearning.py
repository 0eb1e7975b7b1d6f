"""Learning curves from a spectrum. Oracles: equal eigenvalues in closed form, and regression on drawn rows."""

import dataclasses

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived import eigenlearning, unseen_rows
from kerneltrack.analysis.derived.eigenlearning import at_other_points
from kerneltrack.analysis.figures import Scene, choose
from kerneltrack.analysis.report.learning import learning
from kerneltrack.errors import AnalysisError
from tests.analysis.altered import stored
from tests.analysis.h5_by_hand import numbers, sig


@pytest.fixture(scope="module")
def seen(archives):
    """The synthetic run, of whose points nobody knows; 48 modes of 48 points, kernels at both ends."""
    return load(archives[0]).only


@pytest.fixture(scope="module")
def run(seen):
    return dataclasses.replace(seen, in_training="no")


@pytest.mark.parametrize("n", [1, 5, 20])
def test_of_equal_eigenvalues_nothing_is_learned_of_other_points(n):
    """Closed form: E = (1 − n/M)‖c‖² over all rows, so ‖c‖² over the M − n others."""
    found = at_other_points(np.full(40, 0.3), np.full(40, 0.1), np.array([n]), ridge=0.0)
    np.testing.assert_allclose(found, 4.0, rtol=1e-9)


def test_gaussian_features_learn_as_predicted():
    """400 rows whose features are Gaussian, of which n are drawn; 60 draws. The theory is exact for many features, here to 8 %."""
    rng = np.random.default_rng(0)
    rows, features = 400, 200
    x = rng.standard_normal((rows, features)) * np.arange(1, features + 1) ** -0.75
    kernel, y = x @ x.T, x @ rng.standard_normal((features, 1))
    values, vectors = np.linalg.eigh(kernel)
    ridge, sizes = 1e-3 * np.trace(kernel) / rows, np.array([20, 50, 100])
    predicted = at_other_points(values / rows, (vectors.T @ y)[:, 0] ** 2 / rows, sizes, ridge=ridge)
    for n, expected in zip(sizes, predicted, strict=True):
        errors = []
        for _ in range(60):
            own = np.isin(np.arange(rows), rng.permutation(rows)[:n])
            alpha = np.linalg.solve(kernel[np.ix_(own, own)] + ridge * np.eye(n), y[own])
            errors.append(np.mean((y[~own] - kernel[np.ix_(~own, own)] @ alpha) ** 2))
        assert np.mean(errors) == pytest.approx(expected, rel=0.08)
        assert np.mean(errors) > 1.05 * expected * (1 - n / rows) or n < 50  # negative control: over all rows


def test_what_is_predicted_is_of_the_stored_numbers(run):
    """κ by bisection, written out; n rows for n points of one output."""
    row, m = len(run) - 1, run.count
    found = eigenlearning(run, [row], points=[3, 12])
    values = run.values("eigenvalues")[row] / m
    powers = run.values("target_coefficients")[row][:, 0] ** 2 / m
    ridge = 1e-3 * values.sum()
    for n, predicted in zip((3, 12), found.predicted[0], strict=True):
        low, high = 1e-12, 1e12
        for _ in range(300):
            kappa = np.sqrt(low * high)
            low, high = (kappa, high) if np.sum(values / (values + kappa)) + ridge / kappa > n else (low, kappa)
        share = values / (values + kappa)
        everywhere = np.sum((1 - share) ** 2 * powers) / (1 - np.sum(share**2) / n)
        other = (m * everywhere - n * (ridge / n / kappa) ** 2 * everywhere) / (m - n)
        assert predicted == pytest.approx(other / powers.sum(), rel=1e-9)


def test_regression_is_tried_where_a_kernel_is_known(run):
    found = eigenlearning(run)
    assert np.isfinite(found.measured[[0, -1]]).all()
    assert np.isnan(found.measured[1:-1]).all()
    assert found.points[-1] == 12
    np.testing.assert_array_equal(found.network, run.values("network_error"))


def test_a_subset_s_error_is_that_of_regression_written_out(run):
    """One size, the documented draws."""
    kernel = run.at("kernel", 0)[:, :, 0, 0]
    y, rng, errors = run.values("targets"), np.random.default_rng(0), []
    for _ in range(20):
        own = np.sort(rng.permutation(48)[:7])
        rest = np.setdiff1d(np.arange(48), own)
        inner = kernel[np.ix_(own, own)] + 1e-3 * np.trace(kernel) / 48 * np.eye(7)
        missed = y[rest] - kernel[np.ix_(rest, own)] @ np.linalg.inv(inner) @ y[own]
        errors.append(np.mean(missed**2) / np.mean(y**2))
    found = eigenlearning(run, [0], points=[7])
    assert found.measured[0, 0] == pytest.approx(np.mean(errors), rel=1e-9)
    assert found.spread[0, 0] == pytest.approx(np.std(errors, ddof=1), rel=1e-9)


def test_points_that_were_trained_on_are_predicted_at_step_0_alone(seen):
    for said in (None, "unknown", "yes"):
        here = dataclasses.replace(seen, in_training=said)
        assert unseen_rows(here).tolist() == [0]
        assert learning(here) is None
        with pytest.raises(AnalysisError, match="has seen these labels"):
            choose("learning-curves")(Scene(here))
        with pytest.raises(AnalysisError, match="has seen their labels"):
            eigenlearning(here, [3])
    later = seen.window(1, None)
    with pytest.raises(AnalysisError, match="has seen these labels"):
        unseen_rows(later)


def test_too_many_points_and_too_few_are_refused(run):
    for points in ([13], [0], []):
        with pytest.raises(AnalysisError, match="1 to 12, a quarter"):
            eigenlearning(run, [0], points=points)
    with pytest.raises(AnalysisError, match="every eigenvalue"):
        eigenlearning(dataclasses.replace(run, dataset=run.dataset.isel(mode=slice(0, 20))))
    with pytest.raises(AnalysisError, match="targets are zero"):
        eigenlearning(
            dataclasses.replace(
                run, dataset=run.dataset.assign(target_coefficients=0 * run.dataset["target_coefficients"])
            )
        )


def test_the_sentence_and_the_figure_have_these_numbers(run):
    found = eigenlearning(run)
    told = learning(run)
    two = [
        sig(v, 2) for v in (found.predicted[-1, -1], found.predicted[0, -1], found.measured[-1, -1], found.network[-1])
    ]
    assert numbers(told.sentence) == pytest.approx([700, 12, two[0], 0, *two[1:]])
    without = learning(stored(run, without=["kernel", "network_error"]))
    assert numbers(without.sentence) == pytest.approx([700, 12, two[0], 0, two[1]])
    left, right = choose("learning-curves")(Scene(run)).axes
    line = next(one for one in left.lines if one.get_label() == "step 700")
    assert line.get_ydata().tolist() == found.predicted[-1].tolist()
    course = next(one for one in right.lines if one.get_label() == "predicted")
    assert course.get_ydata().tolist() == found.predicted[:, -1].tolist()
