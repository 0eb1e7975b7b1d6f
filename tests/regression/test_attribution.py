"""The linear datamodelling score. Oracles: refits in weight space, and attributions that are the outputs themselves."""

import numpy as np
import pytest

import kerneltrack as kt
from kerneltrack.errors import RegressionError
from kerneltrack.regression import half_sets, influence, linear_datamodelling_score, refitted

RNG = np.random.default_rng(0)
X, NEW, Y = RNG.standard_normal((24, 8)), RNG.standard_normal((5, 8)), RNG.standard_normal((24, 2))


def test_halves_are_halves_and_the_same_each_time():
    sets = half_sets(25, 50, seed=3)
    assert sets.shape == (50, 25)
    assert set(sets.sum(axis=1)) == {12}
    assert np.array_equal(sets, half_sets(25, 50, seed=3))
    assert not np.array_equal(sets, half_sets(25, 50, seed=4))
    assert abs(sets.mean(axis=0) - 0.48).max() < 4 * 0.5 / 50**0.5  # every point in about half of them


def test_a_refit_is_ridge_regression_on_the_set():
    """Weight space, where the condition is below 100: rounding of 1e-12."""
    sets = half_sets(24, 4)
    found = refitted(X @ X.T, NEW @ X.T, Y, sets, ridge=0.5)
    for own, outputs in zip(sets, found, strict=True):
        weights = np.linalg.solve(X[own].T @ X[own] + 0.5 * np.eye(8), X[own].T @ Y[own])
        np.testing.assert_allclose(outputs, NEW @ weights, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "score"), [(lambda f: f, 1), (lambda f: -f, -1), (np.exp, 1), (lambda f: 0 * f, np.nan)]
)
def test_the_score_is_a_rank_correlation(change, score):
    """Outputs that are the sums, or a monotone function of them."""
    influences, sets = RNG.standard_normal((5, 24, 2)), half_sets(24)
    outputs = change(np.einsum("ki,xic->kxc", sets.astype(float), influences))
    np.testing.assert_allclose(
        linear_datamodelling_score(influences, sets, outputs), np.full((5, 2), score), atol=1e-12
    )


def test_influences_tell_refits_and_shuffled_ones_do_not():
    """In the regime of a strong ridge influences are near exact; of 50 halves a chance correlation has sd 1/7."""
    sets = half_sets(24)
    outputs = refitted(X @ X.T, NEW @ X.T, Y, sets, ridge=30.0)
    own = influence(NEW @ X.T, kt.eigensystem(X @ X.T), Y, ridge=30.0)
    assert linear_datamodelling_score(own, sets, outputs).min() > 0.7
    shuffled = own[:, RNG.permutation(24)]
    assert abs(linear_datamodelling_score(shuffled, sets, outputs).mean()) < 3 / 7


def test_what_does_not_fit_is_refused():
    with pytest.raises(RegressionError, match="two points and two halves"):
        half_sets(1)
    with pytest.raises(RegressionError, match=r"\(K, 24\) of True and False"):
        refitted(X @ X.T, NEW @ X.T, Y, np.ones((2, 24)), ridge=1.0)
    with pytest.raises(RegressionError, match="needs a ridge"):
        refitted(X @ X.T, NEW @ X.T, Y, half_sets(24), ridge=0.0)
    with pytest.raises(RegressionError, match=r"trained on each set: expected \(50, 5, 2\)"):
        linear_datamodelling_score(np.ones((5, 24, 2)), half_sets(24), np.ones((3, 5, 2)))
