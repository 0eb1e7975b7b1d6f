"""Kernel logistic regression. Oracles: ridge regression by one solve, logistic regression on features by SciPy's BFGS,
derivatives by torch's autograd, and the network itself where the penalty leaves nothing else.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.special import log_softmax

from kerneltrack.conventions import helmert
from kerneltrack.errors import ObservableError
from kerneltrack.observables import CrossEntropy, State, Through, compute, kernel_newton, kernel_regression, select
from kerneltrack.spectrum import eigensystem

N, M, O, P = 9, 5, 3, 12  # noqa: E741  # the notation's letter


@dataclass
class Squares:
    """The mean of ½‖z − y‖², which is no loss of the package's."""

    y: np.ndarray

    def value(self, z):
        return float(np.sum((z - self.y) ** 2) / (2 * len(z)))

    def gradient(self, z):
        return (z - self.y) / len(z)

    def curvature(self, z, v):
        return v / len(z)

    def mean_curvature(self, z):
        return 1 / len(z)


def problem(full, seed=0, outputs=O):
    """Features of two probes, their kernels, offsets and one-hot targets; rows ordered (n, o) where ``full``."""
    rng = np.random.default_rng(seed)
    rows = outputs if full else 1
    train, test = rng.standard_normal((N * rows, P)), rng.standard_normal((M * rows, P))
    start, beyond = rng.standard_normal((N, outputs)), rng.standard_normal((M, outputs))
    return train, test, start, beyond, np.eye(outputs)[np.arange(N) % outputs]


def predicted(train, test, start, beyond, loss, ridge):
    alpha = kernel_newton(eigensystem(train @ train.T), start, loss, ridge=ridge)
    return beyond + (test @ train.T @ alpha).reshape(beyond.shape)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_squares_give_kernel_ridge_regression(full, ridge):
    train, test, start, beyond, y = problem(full)
    flat = (lambda phi: phi.reshape(-1, 1)) if full else (lambda phi: phi)
    expected = kernel_regression(
        test @ train.T, eigensystem(train @ train.T), flat(y), ridge=ridge, offset=(flat(beyond), flat(start))
    )
    found = predicted(train, test, start, beyond, Squares(y), ridge / N)  # a mean over N samples, and a sum
    np.testing.assert_allclose(flat(found), expected, rtol=1e-10)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("ridge", [1e-2, 1.0])
def test_a_kernel_of_features_gives_logistic_regression_on_them(full, ridge):
    train, test, start, beyond, y = problem(full)
    width = 1 if full else O

    def objective(w):
        logits = start + (train @ w.reshape(P, width)).reshape(start.shape)
        return -np.sum(y * log_softmax(logits, axis=1)) / N + ridge / 2 * w @ w

    solved = scipy.optimize.minimize(
        objective, np.zeros(P * width), method="BFGS", options={"gtol": 1e-8, "maxiter": 2000}
    )
    expected = beyond + (test @ solved.x.reshape(P, width)).reshape(beyond.shape)
    # BFGS by finite differences leaves 1e-7 of a gradient, over γ
    np.testing.assert_allclose(predicted(train, test, start, beyond, CrossEntropy(y), ridge), expected, atol=1e-5)


@pytest.mark.parametrize("full", [True, False])
def test_a_large_penalty_leaves_the_network_itself(full):
    train, test, start, beyond, y = problem(full)
    np.testing.assert_allclose(predicted(train, test, start, beyond, CrossEntropy(y), 1e12), beyond, atol=1e-10)


def test_the_minimum_is_one_where_newtons_first_step_is_far_too_long():
    """A start that is certain and wrong: the curvature is 1e-40 there, and the classes can be separated."""
    train, _, _, _, y = problem(False)
    start = 90 * np.roll(y, 1, axis=1)
    loss, ridge = CrossEntropy(y), 1e-4
    kernel = train @ train.T
    alpha = kernel_newton(eigensystem(kernel), start, loss, ridge=ridge)
    # The gradient's factor beside Θ is zero: α = −(1/γ) ∂L/∂z.
    np.testing.assert_allclose(alpha, -loss.gradient(start + kernel @ alpha) / ridge, atol=1e-6 * np.abs(alpha).max())
    assert loss.value(start + kernel @ alpha) < 1e-2 * loss.value(start)


@pytest.mark.parametrize("seed", [0, 2, 3, 8])
def test_separated_classes_have_a_minimum(seed):
    """Outputs are near 10 and the loss near 1e-4, so its rounding is far above 1e-16 of it; at the minimum ∇L = −γα."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((24, 3))
    y = np.sign(x[:, :1])
    x = x + 2 * y * np.array([[1, 0, 0]])
    loss = CrossEntropy(np.hstack([1 + y, 1 - y]) / 2)
    for ridge in (1e-6, 1e-5, 1e-4):
        alpha = kernel_newton(eigensystem(x @ x.T), np.zeros((24, 2)), loss, ridge=ridge)
        slope = x.T @ loss.gradient(x @ x.T @ alpha)
        np.testing.assert_allclose(
            slope, -ridge * x.T @ alpha, atol=1e-11 * np.linalg.norm(x.T @ loss.gradient(0 * alpha))
        )


def test_derivatives_are_autograds():
    rng = np.random.default_rng(1)
    y = rng.random((4, O)) + 0.1  # soft, and of no mass in particular
    z, v = torch.tensor(rng.standard_normal((4, O))), torch.tensor(rng.standard_normal((4, O)))

    def mean(f):
        return -(torch.tensor(y) * torch.log_softmax(f, 1)).sum() / 4

    loss = CrossEntropy(y)
    assert loss.value(z.numpy()) == pytest.approx(float(mean(z)))
    np.testing.assert_allclose(loss.gradient(z.numpy()), torch.func.grad(mean)(z), atol=1e-15)
    product = torch.func.jvp(torch.func.grad(mean), (z,), (v,))[1]
    np.testing.assert_allclose(loss.curvature(z.numpy(), v.numpy()), product, atol=1e-15)
    hessian = torch.func.hessian(mean)(z).reshape(4 * O, -1)
    assert loss.mean_curvature(z.numpy()) == pytest.approx(float(hessian.trace()) / (4 * O))


def test_the_gauge_changes_no_prediction_of_a_full_kernel():
    """α1 = 0 at the minimum, so that Θα and CΘCα are the same but for the gauge."""
    train, test, start, beyond, y = problem(True)
    basis = helmert(O)
    turn = [np.kron(np.eye(count), basis.T) for count in (N, M)]
    raw = predicted(train, test, start, beyond, CrossEntropy(y), 0.01)
    found = predicted(
        turn[0] @ train, turn[1] @ test, start @ basis, beyond @ basis, Through(CrossEntropy(y), basis), 0.01
    )
    np.testing.assert_allclose(found @ basis.T, raw - raw.mean(axis=1, keepdims=True), atol=1e-9)


def state(**changes):
    train, _, start, _, y = problem(False)
    kernel = train @ train.T
    fields = {"targets": y, "settings": {"loss": "cross_entropy"}, "logistic": start + 4 * y, **changes}
    return State(eigensystem=eigensystem(kernel), kernel=kernel, reduction="trace", outputs=start, **fields)


NAMES = ["kernel_logistic_loss", "kernel_logistic_accuracy", "network_accuracy"]


def test_observables_are_the_loss_and_the_accuracy_of_the_prediction():
    found = compute(select(NAMES), one := state())
    y = one.targets
    logits = torch.tensor(one.logistic)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(y.argmax(1)))
    assert found["kernel_logistic_loss"] == pytest.approx(float(expected))
    assert found["kernel_logistic_accuracy"] == np.mean(logits.argmax(1).numpy() == y.argmax(1))
    assert found["network_accuracy"] == np.mean(one.outputs.argmax(1) == y.argmax(1))
    assert found["network_accuracy"] < found["kernel_logistic_accuracy"]


def test_in_a_gauge_they_are_the_same():
    raw, basis = state(), helmert(O)
    train = problem(False)[0]
    turned = State(
        eigensystem=eigensystem(train @ train.T),
        reduction="trace",
        gauge="softmax",
        outputs=raw.outputs @ basis,
        targets=raw.targets @ basis,
        given_targets=raw.targets,
        logistic=raw.logistic @ basis,
        settings=raw.settings,
    )
    one, other = compute(select(NAMES), raw), compute(select(NAMES), turned)
    assert [other[n] for n in NAMES] == pytest.approx([one[n] for n in NAMES])


@pytest.mark.parametrize("loss", [None, "half_mse", "mse", "cross_entropy (a callable)"])
def test_another_loss_has_none_of_them(loss):
    found = compute(select(NAMES), state(settings={"loss": loss}))
    assert np.isnan([found[n] for n in NAMES[:2]]).all()
    assert all("the loss is not a cross-entropy of several outputs" in found.reasons[n] for n in NAMES[:2])
    assert np.isfinite(found["network_accuracy"])


@pytest.mark.parametrize(
    ("step", "seen", "told"), [(0, "yes", True), (3, "yes", False), (3, "no", True), (3, "unknown", True)]
)
def test_points_that_were_trained_on_are_no_test(step, seen, told):
    """As of kernel regression. Oracle: the table in docs/notation.md."""
    found = compute(select(NAMES), state(settings={"loss": "cross_entropy", "step": step, "in_training": seen}))
    for name in NAMES[:2]:
        assert np.isfinite(found[name]) == told
        assert ("has seen these labels" in found.reasons.get(name, "")) != told


def test_soft_targets_have_a_loss_and_no_accuracy():
    found = compute(select(NAMES), state(targets=np.full((N, O), 1 / O)))
    assert np.isfinite(found["kernel_logistic_loss"])
    assert "no classes" in found.reasons["kernel_logistic_accuracy"]
    assert "no classes" in found.reasons["network_accuracy"]


def test_what_cannot_be_minimised_is_refused():
    train, _, start, _, y = problem(False)
    with pytest.raises(ObservableError, match="γ > 0"):
        kernel_newton(eigensystem(train @ train.T), start, CrossEntropy(y), ridge=0.0)
    with pytest.raises(ObservableError, match="every eigenpair"):
        kernel_newton(eigensystem(torch.tensor(train @ train.T), 3), start, CrossEntropy(y), ridge=1.0)
