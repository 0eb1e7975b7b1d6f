"""The NTK-GP and its evidence. Oracle: Bayesian linear regression in weight space, where f = Xw, w ~ N(0, I/δ), and Θ = XXᵀ;
and the density of y as a multivariate normal by SciPy."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import kerneltrack as kt
from kerneltrack.errors import RegressionError
from kerneltrack.regression import Posterior, information_gain, log_evidence, most_evident, posterior

RNG = np.random.default_rng(0)
#: More features than points, fewer, and a point that stands there twice.
DESIGNS = {
    "wide": RNG.standard_normal((12, 30)),
    "tall": RNG.standard_normal((40, 5)),
    "twice": np.repeat(RNG.standard_normal((8, 20)), 2, axis=0),
}
NEW = {name: np.random.default_rng(1).standard_normal((7, x.shape[1])) for name, x in DESIGNS.items()}


def problem(name, columns=2):
    x = DESIGNS[name]
    return x, NEW[name], kt.eigensystem(x @ x.T), np.random.default_rng(2).standard_normal((len(x), columns))


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("noise", "precision"), [(0.3, 1.0), (2.0, 0.1), (1e-3, 50.0)])
@pytest.mark.parametrize("offset", [False, True])
def test_the_posterior_is_that_of_linear_regression(name, noise, precision, offset):
    """Weight space: covariance (δI + XᵀX/σ²)⁻¹. Condition at most 1e5 here, so 1e-9 of rounding."""
    x, new, pairs, y = problem(name)
    start = (np.full((7, 2), 0.5), np.full_like(y, -0.25)) if offset else None
    covariance = np.linalg.inv(precision * np.eye(x.shape[1]) + x.T @ x / noise)
    weights = covariance @ x.T @ (y - (start[1] if start else 0)) / noise
    found = posterior(new @ x.T, (new**2).sum(1), pairs, y, noise=noise, precision=precision, offset=start)
    np.testing.assert_allclose(found.mean, (start[0] if start else 0) + new @ weights, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.variance, np.einsum("ij,jk,ik->i", new, covariance, new), rtol=1e-7, atol=1e-10)


def test_without_noise_what_was_seen_is_certain():
    """Oracle: at a training point the interpolant is y, its variance 0 to rounding of Θ(x, x)."""
    x, _, pairs, y = problem("wide")
    found = posterior(x @ x.T, (x**2).sum(1), pairs, y, noise=0.0)
    np.testing.assert_allclose(found.mean, y, atol=1e-11)
    assert np.all(found.variance <= 1e-12 * (x**2).sum(1))


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("noise", "precision"), [(0.3, 1.0), (2.0, 0.1)])
def test_evidence_is_the_density_of_the_targets(name, noise, precision):
    x, _, pairs, y = problem(name)
    density = multivariate_normal(np.zeros(len(x)), x @ x.T / precision + noise * np.eye(len(x)))
    found = log_evidence(pairs, y, noise=noise, precision=precision)
    assert found == pytest.approx(sum(map(density.logpdf, y.T)), rel=1e-10)


@pytest.mark.parametrize(("seed", "columns"), [(0, 1), (1, 1), (2, 3)])
def test_no_point_of_a_grid_is_more_evident(seed, columns):
    """Oracle: 200 × 200 values of δ and σ²; the maximum is no lower than any, and no farther from the best than a cell."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 10))
    y = x @ rng.standard_normal((10, columns)) + 0.5 * rng.standard_normal((60, columns))
    pairs = kt.eigensystem(x @ x.T)
    found = most_evident(pairs, y)
    axes = (
        np.geomspace(found.precision / 30, found.precision * 30, 200),
        np.geomspace(found.noise / 30, found.noise * 30, 200),
    )
    values = [[log_evidence(pairs, y, noise=s, precision=d) for s in axes[1]] for d in axes[0]]
    assert found.inside
    assert found.log_evidence >= np.max(values) - 1e-9
    place = np.unravel_index(np.argmax(values), (200, 200))
    cell = 900 ** (1 / 199)
    for axis, index, best in zip(axes, place, (found.precision, found.noise), strict=True):
        assert 1 / cell <= axis[index] / best <= cell
    assert found.noise == pytest.approx(0.25, rel=0.6)  # drawn with 0.25; its relative spread over 50 points is √(2/50)


def test_targets_without_noise_or_without_signal_have_no_maximum_inside():
    x, _, pairs, _ = problem("tall")
    assert not most_evident(pairs, x @ np.ones((5, 1))).inside


def test_where_less_noise_is_ever_more_evident_it_is_told():
    """Of fewer modes than points ln p grows by (M − rank)/2 · ln 10 a decade; of as many it has a limit, and a search that ends
    there has it: Θ/δ alone as the covariance."""
    x, _, pairs, _ = problem("tall")
    assert most_evident(pairs, x @ np.ones((5, 1))).unbounded
    assert not most_evident(
        pairs, x @ np.ones((5, 1)) + np.random.default_rng(0).standard_normal((len(x), 1))
    ).unbounded
    x, _, pairs, _ = problem("wide")
    y = x @ np.ones((x.shape[1], 1))
    found = most_evident(pairs, y)
    assert not found.unbounded
    if not found.inside:
        expected = max(log_evidence(pairs, y, noise=1e-13, precision=d) for d in np.geomspace(0.1, 10, 400))
        assert found.log_evidence == pytest.approx(expected, abs=1e-2)


def test_information_is_half_the_log_determinant():
    """Oracle: ½ ln det(I + Θ/γ) by LU."""
    x, _, pairs, _ = problem("wide")
    found = information_gain(pairs.values, 0.7)
    assert found == pytest.approx(np.linalg.slogdet(np.eye(12) + x @ x.T / 0.7)[1] / 2, rel=1e-12)


def test_likelihood_is_the_normal_density_with_the_noise():
    rng = np.random.default_rng(3)
    told, y = Posterior(rng.standard_normal((5, 2)), rng.random(5)), rng.standard_normal((5, 2))
    terms = [
        multivariate_normal(m, v + 0.2).logpdf(t)
        for row, v, own in zip(told.mean, told.variance, y, strict=True)
        for m, t in zip(row, own, strict=True)
    ]
    assert told.negative_log_likelihood(y, noise=0.2) == pytest.approx(-np.mean(terms), rel=1e-12)


def test_laplace_of_a_linear_network_is_its_posterior():
    """Θ at any θ*, targets y − f* + Jθ*: for f = Xw the linearised Laplace is Bayesian regression whatever θ* is."""
    x, new, pairs, y = problem("wide", 1)
    theta = np.random.default_rng(4).standard_normal((30, 1))
    outputs, tangent = x @ theta, x @ theta
    found = posterior(new @ x.T, (new**2).sum(1), pairs, y - outputs + tangent, noise=0.3)
    direct = posterior(new @ x.T, (new**2).sum(1), pairs, y, noise=0.3)
    np.testing.assert_allclose(found.mean, direct.mean, atol=1e-12)


def test_the_laplace_of_weighted_outputs_is_that_of_the_weights():
    """Λ no multiple of I. Oracle: weight space, (δI + JᵀΛJ)⁻¹."""
    x, new, _, _ = problem("wide")
    weights = np.random.default_rng(5).random(12) + 0.1
    root = np.sqrt(weights)
    pairs = kt.eigensystem(root[:, None] * (x @ x.T) * root)
    found = posterior((new @ x.T) * root, (new**2).sum(1), pairs, np.zeros((12, 1)), noise=1.0, precision=0.4)
    covariance = np.linalg.inv(0.4 * np.eye(30) + x.T @ (weights[:, None] * x))
    np.testing.assert_allclose(found.variance, np.einsum("ij,jk,ik->i", new, covariance, new), rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p, y: log_evidence(p, y, noise=0.0), "noise"),
        (lambda p, y: log_evidence(p, y, noise=1.0, precision=0.0), "precision"),
        (lambda p, y: posterior(np.ones((1, 12)), np.ones(1), p, y, noise=-1.0), "negative"),
        (lambda p, y: posterior(np.ones((1, 12)), np.ones(1), p, y, noise=float("nan")), "negative"),
        (lambda p, y: most_evident(p, 0 * y), "zeros"),
        (lambda p, y: information_gain(p.values, 0.0), "noise"),
    ],
)
def test_what_cannot_be_told_is_refused(call, said):
    _, _, pairs, y = problem("wide")
    with pytest.raises(RegressionError, match=said):
        call(pairs, y)


def test_a_part_of_the_spectrum_is_refused():
    x, _, _, y = problem("wide")
    part = kt.eigensystem(x @ x.T, k=3)
    for call in (
        lambda: log_evidence(part, y, noise=1.0),
        lambda: most_evident(part, y),
        lambda: posterior(x @ x.T, (x**2).sum(1), part, y, noise=1.0),
    ):
        with pytest.raises(RegressionError, match="every eigenpair"):
            call()
