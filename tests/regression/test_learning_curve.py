"""Eigenlearning. Oracles: the closed form of equal eigenvalues; ridge regressions on drawn Gaussian features."""

import numpy as np
import pytest

from kerneltrack.errors import RegressionError
from kerneltrack.regression import effective_regularisation, learning_curve


@pytest.mark.parametrize("count", [1, 10, 39])
def test_equal_eigenvalues_learn_in_proportion(count):
    """E = (1 − n/M)‖c‖², for any level of the eigenvalues."""
    powers = np.random.default_rng(0).random(40)
    for level in (1e-8, 1.0, 1e6):
        found = learning_curve(np.full(40, level), powers, np.array([count]))
        assert found == pytest.approx([(1 - count / 40) * powers.sum()], rel=1e-10)


@pytest.mark.parametrize(("ridge", "noise"), [(1e-3, 0.0), (0.5, 0.0), (0.05, 0.2)])
@pytest.mark.parametrize("count", [15, 60])
def test_the_curve_is_the_mean_over_draws(ridge, noise, count):
    """200 training sets of features φ_i ~ N(0, 1), kernel Σ λ_i φ_iφ_i'. The theory is exact as n and M grow; at n = 15 it is
    off by some percent, so 10 % beside three standard errors."""
    rng = np.random.default_rng(1)
    values = np.arange(1, 201.0) ** -1.5
    coefficients = rng.standard_normal(200) * np.arange(1, 201.0) ** -1.0
    errors = []
    for _ in range(200):
        phi = rng.standard_normal((count, 200))
        y = phi @ coefficients + np.sqrt(noise) * rng.standard_normal(count)
        kernel = (phi * values) @ phi.T
        weights = values * (phi.T @ np.linalg.solve(kernel + ridge * np.eye(count), y))
        errors.append(np.sum((coefficients - weights) ** 2) + noise)
    found = learning_curve(values, coefficients**2, np.array([count]), ridge=ridge, noise=noise)[0]
    assert abs(found - np.mean(errors)) < 0.1 * np.mean(errors) + 3 * np.std(errors) / np.sqrt(200)


def test_what_no_mode_holds_is_never_learned():
    """Powers along eigenvalues of zero stay; at many samples with a small ridge nothing else is left."""
    values, powers = np.array([1.0, 0.5, 0.0, -1e-18]), np.array([1.0, 1.0, 0.3, 0.2])
    found = learning_curve(values, powers, np.array([1e9]), ridge=1e-9)
    assert found == pytest.approx([0.5], rel=1e-6)


def test_a_first_sample_and_none_of_the_rank():
    values = np.array([1.0, 0.1])
    assert np.isinf(learning_curve(values, np.ones(2), np.array([2.0]))).all()
    for count in (0.0, 3.0, float("nan")):
        with pytest.raises(RegressionError, match="regularise"):
            learning_curve(values, np.ones(2), np.array([count]))


@pytest.mark.parametrize("count", [0.5, 3, 99.5])
@pytest.mark.parametrize("ridge", [0.0, 1e-12, 10.0])
def test_kappa_solves_its_equation(count, ridge):
    values = np.geomspace(1, 1e-12, 100)
    kappa = effective_regularisation(values, count, ridge)
    assert np.sum(values / (values + kappa)) + ridge / kappa == pytest.approx(count, rel=1e-9)
