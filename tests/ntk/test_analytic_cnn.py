"""Σ, Θ and each layer's part of CNNs of infinitely many channels with a vectorised readout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import KernelError

WEIGHT, BIAS, SIZE = 1.6, 0.2, 3
OPTIONS = {"depth": 3, "kernel_size": SIZE, "weight_variance": WEIGHT, "bias_variance": BIAS}
PADDINGS = "zeros", "circular"
paddings = pytest.mark.parametrize("padding", PADDINGS)


def images(n, channels=2, height=4, width=3, seed=0):
    """Of several sizes, so that a norm for another's is seen."""
    draw = np.random.default_rng(seed).standard_normal((n, channels, height, width))
    return torch.from_numpy(draw * np.linspace(0.5, 1.5, n)[:, None, None, None])


def windows(padding, height, width):
    """(P, P): 1/k² where one pixel is in the window of another, counted by hand."""
    found = np.zeros((height, width, height, width))
    for i, j, a, b in itertools.product(range(height), range(width), *[range(-(SIZE // 2), SIZE // 2 + 1)] * 2):
        if padding == "circular":
            found[i, j, (i + a) % height, (j + b) % width] += 1 / SIZE**2
        elif 0 <= i + a < height and 0 <= j + b < width:
            found[i, j, i + a, j + b] += 1 / SIZE**2
    return torch.from_numpy(found.reshape(height * width, height * width))


def twin(x, y, name, padding):
    """Σ and each layer's part for one pair of images, by the textbook formulas of each pixel."""
    mean, pixels = windows(padding, *x.shape[1:]), x.shape[1] * x.shape[2]
    readout = torch.full((1, pixels), 1 / pixels, dtype=torch.float64)
    inside = [(a.flatten(1) * b.flatten(1)).mean(0) for a, b in ((x, x), (y, y), (x, y))]
    p, q, c = (WEIGHT * mean @ value + BIAS for value in inside)
    parts = [c]
    for window in (mean, readout):
        both, slopes = kt.analytic.dual_pair(p, q, c, activation=name)
        c = WEIGHT * window @ both + BIAS
        parts = [WEIGHT * window @ (slopes * part) for part in parts] + [c]
        p, q = (WEIGHT * window @ kt.analytic.dual_pair(k, k, k, activation=name)[0] + BIAS for k in (p, q))
    return c, torch.stack(parts)


@paddings
@pytest.mark.parametrize("name", ["relu", "erf", "cos", "softplus"])
def test_the_recursion_of_every_pixel(name, padding):
    """Oracle: windows counted by hand and 1 − ρ as a difference, which leaves 1e-7 of it for a ReLU, more than enough here."""
    x, y = images(2), images(1, seed=1)
    options = OPTIONS | {"activation": name, "padding": padding}
    sigma, parts = kt.analytic.cnn_nngp(x, y, **options), kt.analytic.cnn_ntk(x, y, by_layer=True, **options)
    assert sigma.shape == (2, 1)
    for i, j in ((0, 0), (1, 0)):
        expected, shares = twin(x[i], y[j], name, padding)
        torch.testing.assert_close(sigma[i, j].reshape(1), expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(parts[:, i, j], shares[:, 0], rtol=1e-10, atol=0)
    torch.testing.assert_close(parts.sum(0), kt.analytic.cnn_ntk(x, y, **options), rtol=1e-13, atol=0)


class Filters(nn.Module):
    """σ_w/(k√n) W ∗ x + σ_b b with ``after`` it, every parameter N(0, 1)."""

    def __init__(self, shape, after, mode, generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(shape[0], generator=generator, dtype=torch.float64))
        self.after, self.mode = after, mode

    def forward(self, x):
        weight, bias = (WEIGHT / self.weight[0].numel()) ** 0.5 * self.weight, BIAS**0.5 * self.bias
        if weight.dim() == 2:
            return x.flatten(1) @ weight.T + bias
        padded = nn.functional.pad(x, (SIZE // 2,) * 4, mode=self.mode)
        return self.after(nn.functional.conv2d(padded, weight, bias))


@paddings
def test_each_layer_of_cnns_of_many_channels_has_its_limit(padding):
    """Oracle: the engine's layer kernels of six sampled CNNs; five standard errors and depth/channels of the largest are allowed.

    Negative control: the other padding, and the layers in another order, are outside.
    """
    x, found, channels, mode = images(2), [], 48, {"zeros": "constant", "circular": "circular"}[padding]
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        shapes = [(channels, 2, SIZE, SIZE), (channels, channels, SIZE, SIZE), (1, channels * 12)]
        network = nn.Sequential(*(Filters(shape, torch.erf, mode, generator) for shape in shapes))
        layers = kt.empirical_ntk(network, x, by_layer=True).values()
        found.append(torch.stack([kernel[..., 0, 0] for kernel in layers]))
    draws = torch.stack(found)
    right, other = (
        kt.analytic.cnn_ntk(x, activation="erf", padding=kind, by_layer=True, **OPTIONS)
        for kind in (padding, *({*PADDINGS} - {padding}))
    )
    allowed = 5 * draws.std(0) / 6**0.5 + 3 / channels * right.amax((-1, -2), keepdim=True)
    assert ((draws.mean(0) - right).abs() < allowed).all()
    for wrong in (other, right.flip(0)):
        assert ((draws.mean(0) - wrong).abs() > allowed).any()


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_one_pixel_is_a_fully_connected_network(name):
    x, y = images(4, 3, 1, 1), images(3, 3, 1, 1, seed=1)
    options = OPTIONS | {"activation": name}
    dense = {key: value for key, value in options.items() if key != "kernel_size"}
    for cnn, mlp in ((kt.analytic.cnn_ntk, kt.analytic.ntk), (kt.analytic.cnn_nngp, kt.analytic.nngp)):
        found = cnn(x, y, **options | {"kernel_size": 1})
        torch.testing.assert_close(found, mlp(x.flatten(1), y.flatten(1), **dense), rtol=1e-12, atol=1e-13)


def test_both_images_rolled_are_the_same_pair():
    """Circular: Θ(Tx, Ty) = Θ(x, y) for every shift T. With zeros beyond the border it is not."""
    x, y = images(3), images(2, seed=1)
    rolled = [torch.roll(z, (1, 2), (2, 3)) for z in (x, y)]
    for padding in PADDINGS:
        one, two = (
            kt.analytic.cnn_ntk(*pair, activation="relu", padding=padding, **OPTIONS) for pair in ((x, y), rolled)
        )
        assert torch.allclose(one, two, rtol=1e-12) == (padding == "circular")


@paddings
def test_symmetric_with_near_and_zero_images(padding):
    """Of images that are parallel and of unequal size 1 − ρ is rounded by 1e-16, an angle of 1e-8 to a kink."""
    x = images(2)
    x = torch.cat([x, 0 * x[:1], -x[:1], x[:1] * (1 + 1e-9), 2 * x[:1]])
    for name in ("relu", "abs", "tanh"):
        kernel = kt.analytic.cnn_ntk(x, activation=name, padding=padding, **OPTIONS | {"bias_variance": 0.0})
        torch.testing.assert_close(kernel, kernel.T, rtol=1e-14, atol=1e-14)
        assert torch.isfinite(kernel).all()
        assert float(torch.linalg.eigvalsh(kernel)[0]) > (-1e-8 if name != "tanh" else -1e-13) * float(kernel.max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "odd kernel_size"),
        ({"kernel_size": -1}, "odd kernel_size"),
        ({"padding": "reflect"}, "no such padding"),
        ({"padding": "circular", "kernel_size": 9}, "kernel_size <= 7"),
        ({"depth": 0}, "depth >= 1"),
        ({"x2": images(2, width=5)}, "images of one shape"),
        ({"x2": images(2)[0]}, "images of one shape"),
    ],
)
def test_what_is_no_cnn_is_refused(options, message):
    with pytest.raises(KernelError, match=message):
        kt.analytic.cnn_ntk(images(2), **{"activation": "relu"} | OPTIONS | options)
