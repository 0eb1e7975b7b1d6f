"""E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of every activation, over variances and correlations up to ±1."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import torch
from scipy import special
from scipy.integrate import quad

import kerneltrack as kt
from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.activations import ACTIVATIONS, dual_of
from kerneltrack.ntk.analytic.covariances import Covariances

PiecewiseLinear, Smooth, dual_pair = kt.analytic.PiecewiseLinear, kt.analytic.Smooth, kt.analytic.dual_pair

#: The same functions in NumPy.
SMOOTH = {
    "erf": special.erf,
    "sin": np.sin,
    "cos": np.cos,
    "gelu": lambda u: u * special.ndtr(u),
    "sigmoid": special.expit,
    "silu": lambda u: u * special.expit(u),
    "softplus": lambda u: np.logaddexp(0, u),
    "tanh": np.tanh,
    "linear": lambda u: u,
    "cube": lambda u: u**3,
    "one": np.ones_like,
}
OTHERS = {"cube": lambda u: u**3, "one": lambda u: 0 * u + 1, "leaky": PiecewiseLinear(0.3)}
VARIANCES = [(0.3, 0.3), (0.5, 2.0), (2.0, 1e-6), (0.0, 1.0), (0.0, 0.0)]
CORRELATIONS = [-1.0, -0.6, 0.0, 0.5, 0.999, 1.0]
CASES = np.array([(p, q, rho * np.sqrt(p * q)) for (p, q), rho in itertools.product(VARIANCES, CORRELATIONS)])
EVERY = [*ACTIVATIONS, *OTHERS]


def pair(name, cases=CASES):
    """Both numbers of every case, as arrays."""
    p, q, c = torch.from_numpy(np.asarray(cases, dtype=np.float64).T)
    return tuple(found.numpy() for found in dual_pair(p, q, c, activation=OTHERS.get(name, name)))


@pytest.mark.parametrize("name", SMOOTH)
def test_the_covariance_by_a_plane_of_nodes(name):
    """Oracle: the trapezoidal rule over both normal variables. At a step of 1/12 and a strip of analyticity of 1.1
    (tanh at a standard deviation of 1.4) it is exact to e^{−80}, and cut at ±9.5 to 1e-19."""
    nodes = np.linspace(-9.5, 9.5, 229)
    density = np.exp(-(nodes**2) / 2)
    density /= density.sum()
    found, _ = pair(name)
    for (p, q, c), value in zip(CASES, found, strict=True):
        rho = c / np.sqrt(p * q) if p * q else 1.0
        v = rho * nodes[:, None] + np.sqrt(max(1 - rho**2, 0)) * nodes
        expected = density @ (SMOOTH[name](np.sqrt(q) * v) @ density * SMOOTH[name](np.sqrt(p) * nodes))
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("leaky_relu", 0.01), ("abs", -1.0), ("leaky", 0.3)])
def test_kinks_by_one_angle(name, slope):
    """Oracle: SciPy's adaptive rule. φ is homogeneous, so E[φφ] = √(pq)/π ∫ φ(cos t) φ(cos(t − θ)) dt, E[φ'φ'] the mean of φ'φ'."""

    def phi(t):
        return np.cos(t) * (1 if np.cos(t) > 0 else slope)

    def gate(t):
        return 1 if np.cos(t) > 0 else slope

    for (p, q, c), both, slopes in zip(CASES, *pair(name), strict=True):
        theta = np.arccos(np.clip(c / np.sqrt(p * q), -1, 1)) if p * q else 0.0
        kinks = sorted({(turn + shift) % (2 * np.pi) for turn in (np.pi / 2, 1.5 * np.pi) for shift in (0, theta)})
        size, share = (
            quad(lambda t, f=f, by=theta: f(t) * f(t - by), 0, 2 * np.pi, points=kinks, epsabs=1e-13)[0]
            for f in (phi, gate)
        )
        assert both == pytest.approx(np.sqrt(p * q) / np.pi * size, rel=1e-9, abs=1e-11)
        assert slopes == pytest.approx(share / (2 * np.pi), abs=3e-8)  # arccos has half the digits at ±1


@pytest.mark.parametrize("name", EVERY)
def test_the_slopes_are_the_derivative(name):
    """∂E[φφ]/∂c = E[φ'φ'], by central differences: h² × the third derivative (up to 30 here) and 1e-14/h are below 1e-6."""
    inside = np.array([(p, q, rho * np.sqrt(p * q)) for p, q in VARIANCES[:2] for rho in (-0.8, -0.3, 0.0, 0.4, 0.8)])
    step = 1e-4 * np.array([0, 0, 1])
    (up, _), (down, _), (_, slopes) = pair(name, inside + step), pair(name, inside - step), pair(name, inside)
    np.testing.assert_allclose((up - down) / 2e-4, slopes, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_left_near_one_has_its_own_digits(name):
    """E[φ²] − E[φφ] = p ∫ E[φ'φ'] dδ from 0 to 1 − ρ, so p(1 − ρ)E[φ'²] to first order; the next is √(1 − ρ) smaller at kinks.

    As a difference of float64 numbers it would have no digit at 1e-15.
    """
    p = torch.tensor([[0.2], [1.0], [2.0]], dtype=torch.float64)
    delta = torch.tensor([1e-15, 1e-10, 1e-6], dtype=torch.float64)
    found = dual_of(OTHERS.get(name, name)).moments(Covariances(p, p, p * (1 - delta), delta.expand(3, 3)))
    _, slopes = pair(name, torch.cat([p, p, p], 1))
    expected = p.numpy() * slopes[:, None] * delta.numpy()
    assert (np.abs(found.gap.numpy() - expected) <= expected * (2 * delta.sqrt().numpy() + 1e-12)).all()


def gelu_pair(p, q, c):
    """In closed form: uΦ(u) = u P(g < u) for a normal g, so both are moments of four normal variables above 0.

    With D = (1+p)(1+q) − c², E[φφ] = c(¼ + asin(c/√((1+p)(1+q)))/2π) + (pq + c²(1 − pq)/((1+p)(1+q)))/(2π√D).
    """
    p, q = mpmath.mpf(p), mpmath.mpf(q)

    def covariance(c):
        both, d = (1 + p) * (1 + q), (1 + p) * (1 + q) - c**2
        gate = mpmath.mpf(1) / 4 + mpmath.asin(c / mpmath.sqrt(both)) / (2 * mpmath.pi)
        return c * gate + (p * q + c**2 * (1 - p * q) / both) / (2 * mpmath.pi * mpmath.sqrt(d))

    return float(covariance(mpmath.mpf(c))), float(mpmath.diff(covariance, mpmath.mpf(c)))


def test_gelu_by_its_closed_form():
    """A second channel, and wider: standard deviations up to 5. The series promises 1e-10 of the largest."""
    sizes = [0.1, 1.0, 9.0, 25.0]
    cases = [(p, q, rho * np.sqrt(p * q)) for p in sizes for q in sizes for rho in (-1, -0.5, 0, 0.7, 1)]
    with mpmath.workdps(30):
        expected = np.array([gelu_pair(*case) for case in cases])
    found = np.stack(pair("gelu", cases), 1)
    np.testing.assert_array_less(np.abs(found - expected).max(0), 1e-10 * np.abs(expected).max(0))


def test_what_is_promised_is_kept_where_it_is_rough():
    """ELU has a kink in its derivative: refused at 1e-10, within 1e-4 where that is allowed. Oracle: SciPy at ρ = 1."""
    elu = torch.nn.functional.elu
    with pytest.raises(KernelError, match="not smooth enough"):
        dual_pair(1.0, 1.0, 1.0, activation=elu)
    found = dual_pair(1.0, 1.0, 1.0, activation=Smooth(elu, tolerance=1e-4))
    normal = lambda g: np.exp(-(g**2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731  # a formula
    below = [quad(lambda g, f=f: f(g) ** 2 * normal(g), -12, 0)[0] for f in (np.expm1, np.exp)]
    expected = np.array([0.5 + below[0], 0.5 + below[1]])
    assert (np.abs(np.array([float(value) for value in found]) - expected) < 1e-4 * expected).all()


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (torch.relu, "PiecewiseLinear"),
        (torch.sign, "not smooth enough"),
        (lambda u: torch.tanh(u) + 0.5 * torch.tanh(u).detach(), "not smooth enough"),  # another derivative
        (lambda u: torch.softmax(u, -1), "not smooth enough"),  # no function of each entry
        (lambda u: torch.tanh(50 * u), "standard deviation up to 1"),
        (torch.log, "not smooth enough"),
        (torch.sum, "each entry"),
        (torch.ones_like, "without one"),
        ("swish", "softplus, tanh"),
        (3, "got 3"),
    ],
)
def test_what_is_no_smooth_activation_is_refused(activation, message):
    with pytest.raises(KernelError, match=message):
        dual_pair(1.0, 0.5, 0.1, activation=activation)


@pytest.mark.parametrize("covariances", [(1.0, 1.0, 1.1), (-1.0, 1.0, 0.0), (0.0, 1.0, 0.5), (1.0, float("nan"), 0.0)])
def test_what_no_two_variables_have_is_refused(covariances):
    with pytest.raises(KernelError, match="no covariances"):
        dual_pair(*covariances, activation="erf")


def test_numbers_and_tensors_broadcast():
    """Oracle: entry by entry."""
    p, c = torch.tensor([[0.5], [1.0]]), torch.tensor([0.1, -0.4, 0.7])
    for name in ("relu", "erf", "sin", "tanh"):
        found = dual_pair(p, 1.0, c, activation=name)
        for value, k in zip(found, (0, 1), strict=True):
            assert value.shape == (2, 3)
            single = [[float(dual_pair(float(a), 1.0, float(b), activation=name)[k]) for b in c] for a in p]
            np.testing.assert_allclose(value, single, rtol=1e-5, atol=1e-7)


def test_the_activation_may_be_a_module():
    first, second = (kt.analytic.dual_pair(1.0, 1.0, 0.5, activation=a) for a in (torch.nn.Tanh(), "tanh"))
    assert first == second
