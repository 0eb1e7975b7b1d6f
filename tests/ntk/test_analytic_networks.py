"""Σ, Θ and each layer's part of infinitely wide networks of any activation, against sampled ones and in many digits."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.activations import ACTIVATIONS

WEIGHT, BIAS = 1.6, 0.2
OPTIONS = {"depth": 3, "weight_variance": WEIGHT, "bias_variance": BIAS}


def points(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


class Dense(nn.Module):
    """σ_w x Wᵀ/√n + σ_b b, every parameter N(0, 1)."""

    def __init__(self, fan_in, fan_out, generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(fan_out, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return (WEIGHT / x.shape[1]) ** 0.5 * x @ self.weight.T + BIAS**0.5 * self.bias


class Phi(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def sampled(function, x, width, seed):
    """The outputs' product and each layer's kernel of one random network."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], width, width]
    hidden = [part for a, b in itertools.pairwise(sizes) for part in (Dense(a, b, generator), Phi(function))]
    network = nn.Sequential(*hidden, Dense(width, 1, generator))
    return torch.stack([k[..., 0, 0] for k in kt.empirical_ntk(network, x, by_layer=True).values()])


NETWORKS, WIDTH = 8, 96
FUNCTIONS = {"tanh": torch.tanh, "abs": torch.abs}


@pytest.fixture(scope="module", params=FUNCTIONS)
def draws(request):
    """Points, the name of the activation and (networks, L, N, N)."""
    x = points(4, 3)
    return (
        x,
        request.param,
        torch.stack([sampled(FUNCTIONS[request.param], x, WIDTH, seed) for seed in range(NETWORKS)]),
    )


def allowed(found, kernel):
    """Five standard errors of the mean, over a hundred entries, and the bias of a finite width, of order depth/width."""
    return 5 * found.std(0) / NETWORKS**0.5 + 2 * 3 / WIDTH * kernel.amax((-1, -2), keepdim=True)


def test_each_layer_of_wide_networks_has_its_limit(draws):
    """Oracle: the engine's layer kernels of sampled networks, whose autograd knows of no limit; the parts in its order."""
    x, name, found = draws
    parts = kt.analytic.ntk(x, activation=name, by_layer=True, **OPTIONS)
    assert parts.shape == (3, 4, 4)
    assert ((found.mean(0) - parts).abs() < allowed(found, parts)).all()
    torch.testing.assert_close(parts.sum(0), kt.analytic.ntk(x, activation=name, **OPTIONS))
    # the readout's part is the covariance of what it reads
    torch.testing.assert_close(parts[-1], kt.analytic.nngp(x, activation=name, **OPTIONS))


def test_wide_networks_reject_other_limits(draws):
    """Negative control: the layers in another order, another activation, another depth of the bias."""
    x, name, found = draws
    right = kt.analytic.ntk(x, activation=name, by_layer=True, **OPTIONS)
    other = "abs" if name != "abs" else "linear"
    for wrong in (
        right.flip(0),
        kt.analytic.ntk(x, activation=other, by_layer=True, **OPTIONS),
        kt.analytic.ntk(x, activation=name, by_layer=True, **OPTIONS | {"bias_variance": 0.0}),
    ):
        assert ((found.mean(0) - wrong).abs() > allowed(found, right)).any()


def test_linear_layers_by_hand():
    """Σ^l = σ_w^{2l} x·x'/d + σ_b² (1 + … + σ_w^{2(l−1)}), and what is above layer l multiplies by σ_w² each."""
    x = points(4, 3)
    parts = kt.analytic.ntk(x, activation="linear", by_layer=True, **OPTIONS)
    sigma = torch.zeros(4, 4, dtype=torch.float64)
    for layer, part in enumerate(parts, 1):
        sigma = WEIGHT * (x @ x.T / 3 if layer == 1 else sigma) + BIAS
        torch.testing.assert_close(part, sigma * WEIGHT ** (3 - layer), rtol=1e-13, atol=1e-14)


def test_relu_is_one_of_the_activations():
    x, y = points(5, 3), points(4, 3, seed=1)
    for one, same in ((kt.analytic.relu_ntk, kt.analytic.ntk), (kt.analytic.relu_nngp, kt.analytic.nngp)):
        assert torch.equal(one(x, y, **OPTIONS), same(x, y, activation="relu", **OPTIONS))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_symmetric_finite_and_positive(name):
    """With a zero point, the opposite, twice and nearly the same one; the rectangle of x with itself is the square."""
    x = points(4, 3)
    x = torch.cat([x, 0 * x[:1], -x[:1], 2 * x[:1], x[:1] * (1 + 1e-9)])
    for bias in (0.0, 0.3):
        options = {"depth": 3, "activation": name, "weight_variance": 1.5, "bias_variance": bias}
        for kernel in (kt.analytic.ntk(x, **options), kt.analytic.nngp(x, **options)):
            assert torch.isfinite(kernel).all()
            torch.testing.assert_close(kernel, kernel.T, rtol=1e-15, atol=1e-15 * float(kernel.max()))
            assert float(torch.linalg.eigvalsh(kernel)[0]) > -1e-13 * float(kernel.max())
    torch.testing.assert_close(kt.analytic.nngp(x[:5], x[3:], **options), kernel[:5, 3:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["erf", "tanh", "cos", "relu", "softplus"])
def test_the_diagonal_is_that_of_each_point_alone(name):
    """Oracle: one point at a time, where ρ is 1 in every layer: Σ and Θ by the variances alone."""
    x = points(4, 3)
    size = WEIGHT * x.square().sum(1) / 3 + BIAS
    sigma, theta = size, size
    for _ in range(2):
        both, slopes = kt.analytic.dual_pair(sigma, sigma, sigma, activation=name)
        sigma = WEIGHT * both + BIAS
        theta = sigma + WEIGHT * slopes * theta
    torch.testing.assert_close(kt.analytic.ntk(x, activation=name, **OPTIONS).diagonal(), theta, rtol=1e-13, atol=0)


def erf_by_mpmath(xx, xy, yy, depth, weight, bias):
    """Θ of one pair of inputs by the textbook recursion of erf, in 80 digits."""
    with mpmath.workdps(80):
        weight, bias = mpmath.mpf(weight), mpmath.mpf(bias)
        p, c, q = (weight * value + bias for value in (xx, xy, yy))
        theta = c
        for _ in range(depth - 1):
            slope = 4 / mpmath.pi / mpmath.sqrt((1 + 2 * p) * (1 + 2 * q) - 4 * c**2)
            p, c, q = (
                weight * 2 / mpmath.pi * mpmath.asin(2 * k / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))) + bias
                for a, k, b in ((p, p, p), (p, c, q), (q, q, q))
            )
            theta = c + weight * slope * theta
        return float(theta)


@pytest.mark.parametrize(("weight", "bias"), [(1.5, 0.1), (4.0, 0.0)])
@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.5, 3.0])
def test_near_points_part_as_they_should(weight, bias, angle):
    """Oracle: 80 digits. With σ_w² = 4 what is apart by 1e-18 grows threefold in a layer: as 1 − ρ rounded, it would stay 0."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[np.cos(angle), np.sin(angle)]])
    kernel = kt.analytic.ntk(x, y, depth=25, activation="erf", weight_variance=weight, bias_variance=bias)
    with mpmath.workdps(80):
        cosine = mpmath.cos(mpmath.mpf(angle)) / 2
    expected = erf_by_mpmath(mpmath.mpf("0.5"), cosine, mpmath.mpf("0.5"), 25, weight, bias)
    assert kernel.item() == pytest.approx(expected, rel=1e-6)


def test_the_dtype_is_that_of_the_points():
    x = points(3, 2).float()
    for name in ("relu", "tanh"):
        single, double = (kt.analytic.ntk(z, activation=name, **OPTIONS) for z in (x, x.double()))
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth >= 1"),
        ({"weight_variance": -1.0}, "variances are not negative"),
        ({"bias_variance": float("nan")}, "variances are not negative"),
        ({"activation": "swish"}, "no such activation"),
        ({"activation": torch.relu}, "not smooth enough"),
    ],
)
def test_what_is_no_network_is_refused(options, message):
    with pytest.raises(KernelError, match=message):
        kt.analytic.ntk(points(2, 3), **{"activation": "erf"} | OPTIONS | options)
