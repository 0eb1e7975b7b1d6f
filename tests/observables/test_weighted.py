"""The kernel weighed by the loss, and ranks of the optimizer's. Oracle: the Gauss–Newton matrix JᵀSJ from torch."""

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.errors import ObservableError
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.metric import LANCZOS_TOLERANCE
from kerneltrack.observables import catalogue
from kerneltrack.observables.weighted import curvature_roots
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

NAMES = (
    "loss_weighted_eigenvalues", "loss_weighted_effective_rank", "loss_weighted_participation_ratio",
    "loss_weighted_stable_rank", "gauss_newton_sharpness", "effective_rank", "participation_ratio", "stable_rank",
    "optimizer_effective_rank", "optimizer_participation_ratio",
)  # fmt: skip


def measured(loss, gauge="raw", output="full", shift=0.0):
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double(),
        torch.randn(6, 3).double(),
        torch.arange(6) % 4,
    )
    with torch.no_grad():  # a function added to all outputs: one row added to every row of the readout
        model[2].weight += shift * torch.linspace(-1, 1, 8).double()
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    instrument = Instrument(
        probe=Probe(x, y),
        loss=ProbeLoss.of(loss),
        observables=[catalogue()[name] for name in NAMES],
        gauge=gauge,
        output=output,
    )
    return model, x, y, instrument.measure(model, rule, step=1)


def gauss_newton(model, x, y, loss):
    """The eigenvalues of JᵀSJ, descending."""
    parameters = dict(model.named_parameters())
    rows = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(parameters).values()
    jacobian = torch.cat([j.flatten(2).detach() for j in rows], 2).flatten(0, 1)
    target = nn.functional.one_hot(y, 4).double()
    mean = {
        "half_mse": lambda f: ((f - target) ** 2).sum() / 12,
        "mse": lambda f: nn.functional.mse_loss(f, target),
        "cross_entropy": lambda f: nn.functional.cross_entropy(f, y),
    }[loss]
    hessian = torch.func.hessian(mean)(model(x).detach()).reshape(24, 24)
    return torch.linalg.eigvalsh(jacobian.T @ hessian @ jacobian).flip(0).numpy()


@pytest.mark.parametrize("loss", ["half_mse", "mse", "cross_entropy"])
def test_roots_are_those_of_the_loss_s_own_hessian_whatever_targets_sum_to(loss):
    """Oracle: autograd's blocks of the mean loss; soft targets of sums 0, ½, 1 and 3. The root of a zero is good to 1e-8."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(4, 3).double(), torch.rand(4, 3).double()
    targets = targets / targets.sum(1, keepdim=True) * torch.tensor([[0.0], [0.5], [1.0], [3.0]])
    expected = ProbeLoss.of(loss).hessian_blocks(outputs, targets).numpy() / 4
    roots = curvature_roots(loss, outputs.numpy(), targets.numpy())
    np.testing.assert_allclose(roots @ roots, expected, atol=1e-14)
    if loss == "cross_entropy":
        with pytest.raises(ObservableError, match="not convex"):
            curvature_roots(loss, outputs.numpy(), -targets.numpy())


@pytest.mark.parametrize(
    ("loss", "gauge"), [("half_mse", "raw"), ("mse", "raw"), ("cross_entropy", "raw"), ("cross_entropy", "softmax")]
)
def test_its_eigenvalues_are_those_of_gauss_newton_in_any_gauge(loss, gauge):
    """Rounding of a matrix product in float64: 1e-12 of λ_1."""
    model, x, y, reading = measured(loss, gauge)
    expected, values = gauss_newton(model, x, y, loss), reading.values
    found = values["loss_weighted_eigenvalues"]
    assert len(found) == (18 if gauge == "softmax" else 24)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-12 * expected[0])
    assert values["gauss_newton_sharpness"] == pytest.approx(found[0], rel=LANCZOS_TOLERANCE)
    assert values["loss_weighted_participation_ratio"] == pytest.approx(found.sum() ** 2 / (found**2).sum(), rel=1e-9)
    assert values["loss_weighted_stable_rank"] == pytest.approx(found.sum() / found[0], rel=1e-9)
    p = found[found > 1e-12] / found.sum()
    assert values["loss_weighted_effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-6)


def test_of_squares_ranks_are_the_kernel_s_own_and_of_plain_descent_the_optimizer_s_too():
    values = measured("half_mse")[-1].values
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        assert values[f"loss_weighted_{name}"] == pytest.approx(values[name], rel=1e-9)
    for name in ("effective_rank", "participation_ratio"):
        assert values[f"optimizer_{name}"] == pytest.approx(values[name], rel=1e-9)
    # negative control: a cross-entropy weighs points
    assert measured("cross_entropy")[-1].values["loss_weighted_stable_rank"] != pytest.approx(
        values["stable_rank"], rel=1e-2
    )


def test_a_function_added_to_all_outputs_changes_nothing_of_it():
    """Law: f → f + u(x)1 under cross-entropy. In the gauge raw, where the kernel's own spectrum does change."""
    before, after = (measured("cross_entropy", shift=shift)[-1].values for shift in (0.0, 3.0))
    scale = before["loss_weighted_eigenvalues"][0]
    # the first layer's part of J changes along 1 alone, which S does not see
    np.testing.assert_allclose(
        after["loss_weighted_eigenvalues"], before["loss_weighted_eigenvalues"], atol=1e-11 * scale
    )
    assert abs(after["stable_rank"] / before["stable_rank"] - 1) > 1e-2


def test_roots_are_roots():
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((5, 3)), np.eye(3)[[0, 1, 2, 0, 1]]
    root = curvature_roots("cross_entropy", outputs, targets)
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    blocks = np.einsum("no,op->nop", p, np.eye(3)) - np.einsum("no,np->nop", p, p)
    np.testing.assert_allclose(root @ root, blocks / 5, atol=1e-14)


def test_a_reduction_has_none_and_says_so():
    reading = measured("cross_entropy", output="trace")[-1]
    assert np.isnan(reading.values["loss_weighted_stable_rank"])
    assert "weighs pairs of outputs" in reading.reasons["loss_weighted_stable_rank"]
