"""The closed-form kernels of infinitely wide ReLU networks, and the flow that a fixed kernel drives."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.stats import norm

import kerneltrack as kt
from kerneltrack.errors import KernelError
from tests.ntk.oracles import distance

#: (depth, weight variance, bias variance)
SETTINGS = [(1, 2.0, 0.0), (1, 1.5, 0.3), (2, 2.0, 0.0), (3, 1.0, 0.0), (4, 1.5, 0.1), (6, 2.0, 0.3)]
settings = pytest.mark.parametrize(("depth", "weight", "bias"), SETTINGS)


def points(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def analytic(kernel, x, y=None, **options):
    y = None if y is None else torch.as_tensor(y)
    return np.asarray(kernel(torch.as_tensor(x), y, **options))


def by_mpmath(xx, xy, yy, depth, weight, bias, digits=60):
    """Σ and Θ of one pair of inputs by the textbook recursion (arc-cosine kernels), in 60 digits."""
    with mpmath.workdps(digits):
        weight, bias = mpmath.mpf(weight), mpmath.mpf(bias)
        xx, xy, yy = (weight * mpmath.mpf(value) + bias for value in (xx, xy, yy))
        sigma, theta = xy, xy
        for _ in range(depth - 1):
            norm = mpmath.sqrt(xx * yy)
            cosine = min(max(sigma / norm, mpmath.mpf(-1)), mpmath.mpf(1))
            angle = mpmath.acos(cosine)
            zeroth = (mpmath.pi - angle) / mpmath.pi
            first = (mpmath.sin(angle) + cosine * (mpmath.pi - angle)) / mpmath.pi
            sigma = weight / 2 * norm * first + bias
            theta = sigma + weight / 2 * zeroth * theta
            xx, yy = weight / 2 * xx + bias, weight / 2 * yy + bias
        return float(sigma), float(theta)


@settings
def test_the_recursion(depth, weight, bias):
    """Oracle: the same formulas in 60 digits; float64 keeps 1e-13 over a few layers."""
    x, y = points(4, 3), points(3, 3, seed=1)
    options = {"depth": depth, "weight_variance": weight, "bias_variance": bias}
    ntk, nngp = (analytic(kt.analytic.relu_ntk, x, y, **options), analytic(kt.analytic.relu_nngp, x, y, **options))
    assert ntk.shape == nngp.shape == (4, 3)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            sigma, theta = by_mpmath(a @ a / 3, a @ b / 3, b @ b / 3, depth, weight, bias)
            assert nngp[i, j] == pytest.approx(sigma, rel=1e-12, abs=1e-14)
            assert ntk[i, j] == pytest.approx(theta, rel=1e-12, abs=1e-14)


def sampled_ntk(x, depth, weight, bias, width, rng):
    """The NTK of one random network in NTK parametrisation, by forward and backward recursion in NumPy."""
    hidden, weights = [x], []
    for layer in range(depth):
        fan_in, fan_out = hidden[-1].shape[1], width if layer < depth - 1 else 1
        w = rng.standard_normal((fan_out, fan_in), dtype=np.float32)
        b = rng.standard_normal(fan_out, dtype=np.float32)
        h = np.sqrt(weight / fan_in) * hidden[-1] @ w.T + np.sqrt(bias) * b
        weights.append(w)
        hidden.append(np.maximum(h, 0) if layer < depth - 1 else h)
    slope, kernel = np.ones((len(x), 1), dtype=np.float32), 0.0
    for h, w in zip(reversed(hidden[:-1]), reversed(weights), strict=True):
        kernel = kernel + (weight / h.shape[1] * h @ h.T + bias) * (slope @ slope.T)
        slope = np.sqrt(weight / h.shape[1]) * (slope @ w) * (h > 0)
    return kernel


@settings
def test_wide_networks_have_this_kernel(depth, weight, bias):
    """Oracle: 24 sampled networks of width 512. Their mean is off by its standard error (five allowed over
    36 entries) and by the bias of a finite width, of order depth/width of the largest entry."""
    x = points(6, 5).astype(np.float32)
    rng = np.random.default_rng(2)
    draws = np.stack([sampled_ntk(x, depth, weight, bias, 512, rng) for _ in range(24)])
    kernel = analytic(kt.analytic.relu_ntk, x, depth=depth, weight_variance=weight, bias_variance=bias)
    allowed = 5 * draws.std(0, ddof=1) / np.sqrt(len(draws)) + 2 * depth / 512 * kernel.max()
    assert (np.abs(draws.mean(0) - kernel) < allowed + 1e-5 * kernel.max()).all()


def test_wide_networks_reject_another_kernel():
    """Negative control: one layer more, or the bias left out, is outside the same tolerance."""
    x = points(6, 5).astype(np.float32)
    rng = np.random.default_rng(2)
    draws = np.stack([sampled_ntk(x, 3, 2.0, 0.3, 512, rng) for _ in range(24)])
    for depth, bias in ((4, 0.3), (3, 0.0)):
        kernel = analytic(kt.analytic.relu_ntk, x, depth=depth, weight_variance=2.0, bias_variance=bias)
        allowed = 5 * draws.std(0, ddof=1) / np.sqrt(len(draws)) + 2 * depth / 512 * kernel.max()
        assert (np.abs(draws.mean(0) - kernel) > allowed).any()


@pytest.mark.parametrize("cosine", [1.0, 1 - 1e-8, 1 - 1e-4, 0.9, 0.3, 0.0, -0.5, -1.0])
def test_a_thousand_layers(cosine):
    """Oracle: 60 digits. Near cosine 1 the plain float64 recursion has lost 0.16 % by then."""
    sine = np.sqrt((1 - cosine) * (1 + cosine))
    x, y = np.array([[1.0, 0.0]]), np.array([[cosine, sine]])
    _, theta = by_mpmath(0.5, mpmath.mpf(cosine) / 2, 0.5, 1000, 2.0, 0.0)
    assert analytic(kt.analytic.relu_ntk, x, y, depth=1000).item() == pytest.approx(theta, rel=1e-6)


@pytest.mark.parametrize(("depth", "expected"), [(100, 0.2727), (1000, 0.2533)])
def test_orthogonal_inputs_tend_to_a_quarter(depth, expected):
    """Weight variance 2, no bias: Θ(x, x) = depth Σ¹, and Θ(x, x’)/Θ(x, x) → ¼ as log(L)/L."""
    kernel = analytic(kt.analytic.relu_ntk, np.eye(2), depth=depth)
    assert kernel[0, 0] == pytest.approx(depth * 2.0 / 2, rel=1e-12)
    assert kernel[0, 1] / kernel[0, 0] == pytest.approx(expected, abs=5e-5)


def test_deep_kernels_become_well_conditioned():
    """Θ/L → ¾ I + ¼ 11ᵀ, whose condition number is (n + 3)/3; at depth 4000, n = 100 it is within 5 %."""
    x = points(100, 20)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(analytic(kt.analytic.relu_ntk, x, depth=4000))
    assert values[-1] / values[0] == pytest.approx(103 / 3, rel=0.05)


def test_zero_and_opposite_inputs_are_finite():
    """Oracle: by hand. A zero input has no angle; opposite inputs share no active unit of the first layer.

    Their hidden activations are then orthogonal: the second layer sees a cosine of 0, and Σ³ = 2/π.
    """
    x = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    two, three = (analytic(kt.analytic.relu_ntk, x, depth=depth) for depth in (2, 3))
    np.testing.assert_allclose(two, np.diag([0.0, 4.0, 4.0]), atol=1e-12)
    np.testing.assert_allclose(three, [[0, 0, 0], [0, 6, 2 / np.pi], [0, 2 / np.pi, 6]], atol=1e-12)
    assert np.isfinite(analytic(kt.analytic.relu_ntk, x, depth=3, bias_variance=0.5)).all()


def test_square_is_the_rectangle_with_itself():
    x = points(5, 3)
    square = analytic(kt.analytic.relu_ntk, x, depth=4)
    assert distance(square, analytic(kt.analytic.relu_ntk, x, x, depth=4)) < 1e-13
    assert np.linalg.eigvalsh(square)[0] > -1e-12


# ------------------------------------------------------------ biased gates


class Gates(torch.nn.Module):
    """m^−½ Σ_r a_r relu(w_r·x − b_r); w and b are trained."""

    def __init__(self, inputs, width, bias):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = torch.nn.Parameter(torch.randn(width, inputs, generator=generator))
        self.b = torch.nn.Parameter(torch.full((width,), float(bias)))
        self.a = torch.where(torch.rand(width, generator=generator) < 0.5, -1.0, 1.0) / width**0.5

    def forward(self, x):
        return (torch.relu(x @ self.w.T - self.b) @ self.a)[:, None]


def by_quadrature(x, y, bias):
    """(x·y + 1) ∫_h^∞ φ(g) Φ((ρg − k)/√(1 − ρ²)) dg, by SciPy's adaptive rule."""
    h, k, rho = bias / np.linalg.norm(x), bias / np.linalg.norm(y), x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    both, _ = quad(
        lambda g: norm.pdf(g) * norm.cdf((rho * g - k) / np.sqrt(1 - rho**2)), h, 12, epsabs=1e-13, limit=200
    )
    return (x @ y + 1) * both


@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.5, 2.0])
def test_biased_gates_by_quadrature(bias):
    """Points of all norms and angles, opposite and parallel ones among them; both are right to 1e-12."""
    x = points(5, 3) * np.array([[0.3], [0.7], [1.0], [1.5], [4.0]])
    x = np.concatenate([x, -x[:1], 2 * x[:1]])
    kernel = analytic(kt.analytic.biased_relu_ntk, x, bias=bias)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-15)
    np.testing.assert_allclose(
        kernel[:5, :5], analytic(kt.analytic.biased_relu_ntk, x[:5], x[:5], bias=bias), rtol=1e-14
    )
    for i, j in zip(*np.tril_indices(5, -1), strict=True):
        assert kernel[i, j] == pytest.approx(by_quadrature(x[i], x[j], bias), abs=1e-11)
    # by hand: with itself one gate, with the opposite point none (both of a threshold below 0), with twice itself the lesser
    h = bias / np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(np.diag(kernel), (np.sum(x**2, axis=1) + 1) * norm.sf(h), rtol=1e-12)
    assert kernel[0, 6] == pytest.approx((2 * x[0] @ x[0] + 1) * norm.sf(max(h[0], h[6])), rel=1e-12)
    assert kernel[0, 5] == pytest.approx((1 - x[0] @ x[0]) * max(norm.sf(h[0]) - norm.cdf(h[0]), 0), abs=1e-14)


def test_biased_gates_on_the_sphere():
    """B = 0: (ρ + 1)(π − arccos ρ)/2π. B → ∞: 0. A zero input: its gates are all open below a threshold of 0, else closed."""
    x = points(6, 4)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rho = np.clip(x @ x.T, -1, 1)
    expected = (rho + 1) * (np.pi - np.arccos(rho)) / (2 * np.pi)
    off = ~np.eye(6, dtype=bool)  # arccos has lost half of its digits at 1
    kernel = analytic(kt.analytic.biased_relu_ntk, x, bias=0.0)
    np.testing.assert_allclose(kernel[off], expected[off], atol=1e-14)
    np.testing.assert_allclose(np.diag(kernel), 1.0, rtol=1e-12)
    assert np.abs(analytic(kt.analytic.biased_relu_ntk, x, bias=40.0)).max() == 0
    zero = np.concatenate([np.zeros((1, 4)), x[:2]])
    assert (analytic(kt.analytic.biased_relu_ntk, zero, bias=0.5)[0] == 0).all()
    np.testing.assert_allclose(
        analytic(kt.analytic.biased_relu_ntk, zero, bias=-0.5)[0], [1, *[norm.cdf(0.5)] * 2], rtol=1e-14
    )


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_wide_network_of_biased_gates_has_this_kernel(bias):
    """One network of 40,000 neurons by autograd: every entry is a mean of m gates, five standard errors at most off."""
    x = torch.tensor(points(5, 3), dtype=torch.float32)
    x = x / x.norm(dim=1, keepdim=True)
    sampled = kt.empirical_ntk(Gates(3, 40_000, bias), x)[:, :, 0, 0].numpy()
    kernel = kt.analytic.biased_relu_ntk(x, bias=bias)
    assert kernel.dtype == torch.float32
    factor = np.asarray(x @ x.T + 1)
    both = kernel.numpy() / factor
    allowed = 5 * np.abs(factor) * np.sqrt(both * (1 - both) / 40_000) + 1e-6
    assert (np.abs(sampled - kernel.numpy()) < allowed).all()
    other = kt.analytic.biased_relu_ntk(x, bias=bias + 0.1).numpy()
    assert (np.abs(sampled - other) > allowed).any()


@pytest.mark.parametrize("kernel", [kt.analytic.relu_ntk, kt.analytic.biased_relu_ntk])
def test_points_of_two_dimensions_are_refused(kernel):
    options = {"depth": 2} if kernel is kt.analytic.relu_ntk else {"bias": 1.0}
    with pytest.raises(KernelError, match="points of one dimension"):
        kernel(torch.zeros(2, 3), torch.zeros(2, 4), **options)


def test_a_network_without_layers_is_refused():
    with pytest.raises(KernelError, match="depth >= 1"):
        kt.analytic.relu_ntk(torch.zeros(2, 3), depth=0)


# ------------------------------------------------------------ gradient flow


def flow(kernel, targets, outputs, time, **test):
    tensors = {key: torch.as_tensor(value) for key, value in test.items()}
    return kt.analytic.gradient_flow(*map(torch.as_tensor, (kernel, targets, outputs)), time, **tensors).numpy()


@pytest.fixture
def regression():
    """A kernel with a duplicated sample, so that its inverse does not exist, on two outputs."""
    x = points(6, 3)
    x[5] = x[0]
    kernel = analytic(kt.analytic.relu_ntk, x, depth=3)
    rng = np.random.default_rng(4)
    return x, kernel, rng.standard_normal((6, 2)), rng.standard_normal((6, 2))


@pytest.mark.parametrize("time", [0.0, 1e-6, 0.3, 2.0, 50.0])
def test_flow_of_the_training_outputs(regression, time):
    """Oracle: SciPy's matrix exponential (Padé, no eigenvectors) of u' = −Θ (u − y)."""
    _, kernel, targets, outputs = regression
    expected = targets + expm(-kernel * time) @ (outputs - targets)
    np.testing.assert_allclose(flow(kernel, targets, outputs, time), expected, rtol=1e-11, atol=1e-12)
    one = flow(kernel, targets[:, 0], outputs[:, 0], time)
    np.testing.assert_allclose(one, expected[:, 0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("time", [0.3, 2.0])
def test_flow_of_other_outputs(regression, time):
    """Oracle: the exponential of the joint linear system of the training and the test residuals."""
    x, kernel, targets, outputs = regression
    y = points(4, 3, seed=9)
    cross = analytic(kt.analytic.relu_ntk, y, x, depth=3)
    start = np.random.default_rng(5).standard_normal((4, 2))
    system = np.zeros((10, 10))
    system[:6, :6], system[6:, :6] = -kernel, -cross
    joint = expm(system * time) @ np.concatenate([outputs - targets, start])
    got = flow(kernel, targets, outputs, time, test_kernel=cross, test_outputs=start)
    np.testing.assert_allclose(got, joint[6:], rtol=1e-10, atol=1e-11)
    unstarted = flow(kernel, targets, outputs, time, test_kernel=cross)
    np.testing.assert_allclose(unstarted, joint[6:] - start, rtol=1e-10, atol=1e-11)


def test_flow_is_the_limit_of_small_steps(regression):
    """Oracle: gradient descent with 20 000 steps, whose error is of order η t λ²: here below 1e-3."""
    _, kernel, targets, outputs = regression
    step, steps = 1.0 / 20_000, 20_000
    u = outputs.copy()
    for _ in range(steps):
        u -= step * kernel @ (u - targets)
    np.testing.assert_allclose(flow(kernel, targets, outputs, 1.0), u, atol=1e-3)
    assert np.abs(flow(kernel, targets, outputs, 1.1) - u).max() > 5e-3  # negative control: another time


def test_flow_ends_at_the_targets_where_it_can(regression):
    """Where a sample is duplicated only the mean of its two residuals can be learned."""
    _, kernel, targets, outputs = regression
    end = flow(kernel, targets, outputs, float("inf"))
    np.testing.assert_allclose(end[1:5], targets[1:5], atol=1e-8)
    np.testing.assert_allclose(end[0] + end[5], targets[0] + targets[5], atol=1e-8)
    np.testing.assert_allclose(end[0] - end[5], outputs[0] - outputs[5], atol=1e-8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"time": -1.0}, "(?i)time"),
        ({"kernel": np.eye(5)}, "(?i)fit"),
        ({"targets": np.zeros(6)}, "(?i)fit"),
        ({"kernel": np.ones((6, 5))}, "(?i)fit"),
    ],
)
def test_flow_refuses_what_does_not_fit(regression, change, match):
    _, kernel, targets, outputs = regression
    given = {"kernel": kernel, "targets": targets, "outputs": outputs, "time": 1.0} | change
    with pytest.raises(KernelError, match=match):
        flow(*given.values())
