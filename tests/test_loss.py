"""Losses against torch.nn, residuals and Hessians against plain double backward."""

import pytest
import torch
from torch import nn

from kerneltrack.errors import TrackerError
from kerneltrack.training.loss import ProbeLoss

N, OUTPUTS = 6, 3


def half_mse(f, y):
    return (f - y).square().sum(dim=1).mean() / 2


REFERENCE = {
    "half_mse": half_mse,
    "mse": nn.MSELoss(),
    "cross_entropy": nn.CrossEntropyLoss(),
    nn.HuberLoss(): nn.HuberLoss(),
}


@pytest.mark.parametrize("loss", REFERENCE, ids=str)
def test_value_residual_and_curvature(loss):
    """Oracle: torch.nn's loss and its derivatives by plain autograd, N·∂L/∂f and N·∂²L/∂f²; rounding of float64."""
    f = torch.randn(N, OUTPUTS, dtype=torch.float64, requires_grad=True)
    y = torch.eye(OUTPUTS, dtype=torch.float64)[torch.tensor([0, 1, 2, 2, 1, 0])]
    reference = REFERENCE[loss]
    probe_loss = ProbeLoss.of(loss)
    value = reference(f, y)
    (gradient,) = torch.autograd.grad(value, f, create_graph=True)
    torch.testing.assert_close(probe_loss.value(f, y), value, rtol=1e-13, atol=0)
    torch.testing.assert_close(probe_loss.residual(f, y), N * gradient, rtol=1e-12, atol=1e-15)
    hessian = torch.autograd.functional.hessian(lambda g: reference(g, y), f.detach())
    blocks = torch.stack([hessian[n, :, n, :] for n in range(N)])
    torch.testing.assert_close(probe_loss.hessian_blocks(f, y), N * blocks, rtol=1e-12, atol=1e-14)


def test_mse_is_two_over_o_times_half_mse():
    f, y = torch.randn(N, OUTPUTS), torch.randn(N, OUTPUTS)
    torch.testing.assert_close(ProbeLoss.of("mse").value(f, y), ProbeLoss.of("half_mse").value(f, y) * 2 / OUTPUTS)


def test_a_sum_is_not_a_mean():
    """A callable that sums over samples would give m and S that are N times too large."""
    f, y = torch.randn(N, OUTPUTS), torch.randn(N, OUTPUTS)
    ProbeLoss.of(nn.MSELoss()).verify(f, y)
    with pytest.raises(TrackerError, match="mean of its values on single samples"):
        ProbeLoss.of(nn.MSELoss(reduction="sum")).verify(f, y)


def test_the_cross_entropy_of_one_output_is_refused():
    """Its softmax is 1 and the loss 0, whatever the network says: a logit for two classes has another loss."""
    one, two = torch.randn(N, 1), torch.randn(N, 2)
    assert float(ProbeLoss.of("cross_entropy").value(one, torch.ones(N, 1))) == 0
    with pytest.raises(TrackerError, match=r"two or more, got one output.*binary_cross_entropy_with_logits"):
        ProbeLoss.of("cross_entropy").verify(one, torch.ones(N, 1))
    ProbeLoss.of("cross_entropy").verify(two, torch.softmax(two, 1))
    ProbeLoss.of(nn.functional.binary_cross_entropy_with_logits).verify(one, torch.rand(N, 1))


def test_unknown_losses_are_refused():
    with pytest.raises(TrackerError, match="half_mse, mse, cross_entropy"):
        ProbeLoss.of("hinge")


def mse(outputs, targets):
    """A user's own, which is no mean of squares."""
    return (outputs - targets).abs().mean()


def test_a_callable_that_borrows_a_known_name_is_not_taken_for_it():
    assert ProbeLoss.of(mse).name == "mse (a callable)"
    assert ProbeLoss.of("mse").name == "mse"
    assert ProbeLoss.of(torch.nn.functional.cross_entropy).name == "cross_entropy (a callable)"
    assert ProbeLoss.of(torch.nn.functional.mse_loss).name == "mse_loss"
