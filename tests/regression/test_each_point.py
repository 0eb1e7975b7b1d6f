"""What each point adds to a prediction. Oracle: refits, with another weight on one point and without it."""

import numpy as np
import pytest

import kerneltrack as kt
from kerneltrack.errors import RegressionError
from kerneltrack.regression import influence, removal

RNG = np.random.default_rng(0)
X, NEW, Y = RNG.standard_normal((15, 6)), RNG.standard_normal((4, 6)), RNG.standard_normal((15, 2))
RIDGES = [1e-2, 1.0, 30.0]


def fitted(weights, ridge):
    """Weighted ridge regression in weight space, (4, 2): min Σ_i w_i ‖y_i − f(x_i)‖² + γ‖θ‖²."""
    return NEW @ np.linalg.solve(X.T @ (weights[:, None] * X) + ridge * np.eye(6), X.T @ (weights[:, None] * Y))


@pytest.mark.parametrize("ridge", RIDGES)
def test_influence_is_the_derivative_by_a_weight(ridge):
    """Central differences of step 1e-5: error of order 1e-10 of the third derivative, rounding 1e-11."""
    found = influence(NEW @ X.T, kt.eigensystem(X @ X.T), Y, ridge=ridge)
    for i in range(15):
        up, down = np.ones(15), np.ones(15)
        up[i], down[i] = 1 + 1e-5, 1 - 1e-5
        np.testing.assert_allclose(found[:, i], (fitted(up, ridge) - fitted(down, ridge)) / 2e-5, atol=1e-8)


@pytest.mark.parametrize("ridge", RIDGES)
def test_removal_is_the_difference_to_a_refit(ridge):
    found = removal(NEW @ X.T, kt.eigensystem(X @ X.T), Y, ridge=ridge)
    for i in range(15):
        without = np.ones(15)
        without[i] = 0
        np.testing.assert_allclose(found[:, i], fitted(np.ones(15), ridge) - fitted(without, ridge), atol=1e-11)


def test_the_outputs_of_a_point_go_together():
    """Of a full kernel of 5 points with 3 outputs: refits with another weight on three rows, and without them."""
    y = Y[:, :1]

    def refit(weights):
        w = np.repeat(weights, 3)[:, None]
        return NEW @ np.linalg.solve(X.T @ (w * X) + np.eye(6), X.T @ (w * y))

    given = (NEW @ X.T, kt.eigensystem(X @ X.T), y)
    derivative, gone = (each(*given, ridge=1.0, samples=5) for each in (influence, removal))
    for i in range(5):
        one = np.eye(5)[i]
        np.testing.assert_allclose(gone[:, i], refit(np.ones(5)) - refit(1 - one), atol=1e-11)
        expected = (refit(1 + 1e-5 * one) - refit(1 - 1e-5 * one)) / 2e-5
        np.testing.assert_allclose(derivative[:, i], expected, atol=1e-8)
    with pytest.raises(RegressionError, match="a multiple of 4, the points"):
        removal(*given, ridge=1.0, samples=4)


def test_half_of_the_points_are_told_by_the_sum_of_what_each_adds():
    """The linear datamodelling score: over 50 random halves the summed influences rank the predictions as refits do.

    Oracle: refits; a score below 0.5 would mean that influences do not tell them.
    """
    rng, pairs = np.random.default_rng(1), kt.eigensystem(X @ X.T)
    own = influence(NEW @ X.T, pairs, Y, ridge=30.0)[0, :, 0]
    halves = [rng.permutation(15)[:8] for _ in range(50)]
    told = [own[half].sum() for half in halves]
    seen = [fitted(np.isin(np.arange(15), half).astype(float), 30.0)[0, 0] for half in halves]
    assert np.corrcoef(np.argsort(np.argsort(told)), np.argsort(np.argsort(seen)))[0, 1] > 0.8


def test_a_ridge_is_needed():
    with pytest.raises(RegressionError, match="ridge"):
        influence(NEW @ X.T, kt.eigensystem(X @ X.T), Y, ridge=0.0)
