"""ρ by products, by the measured kernel, and where a schedule ends: no learning rate, no curvature."""

import pytest
import torch
from torch import nn

from kerneltrack.measurement.stability_ratio import LANCZOS_TOLERANCE, stability_ratio
from kerneltrack.ntk import empirical_ntk
from kerneltrack.ntk.network.network import Network
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule


def test_a_learning_rate_of_zero_has_ratio_zero():
    """Oracle: P = 0, so the operator is zero. Lanczos used to refuse a start that it maps to zero."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(3, 4), torch.randn(5, 3), torch.eye(4)[[0, 1, 2, 3, 0]]
    network = Network(model)
    names = {id(p): name for name, p in model.named_parameters()}
    ratios = []
    for rate in (0.0, 0.1):
        rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=rate)], names)
        ratios.append(stability_ratio(network, x, network.outputs(x), y, ProbeLoss.of("cross_entropy"), rule)[0])
    assert ratios[0] == 0.0
    assert ratios[1] > 0


def curvature(model, x, y, rate=0.1):
    """λ_1(η J S Jᵀ), which is λ_1 of the parameters' Gauss–Newton matrix times η, from plain autodiff in float64."""
    parameters = dict(model.named_parameters())

    def outputs(values):
        return torch.func.functional_call(model, values, (x,))

    rows = [j.flatten(2).detach() for j in torch.func.jacrev(outputs)(parameters).values()]
    jacobian = torch.cat(rows, 2).flatten(0, 1)
    f = model(x).detach()
    hessian = torch.func.hessian(lambda f: nn.functional.cross_entropy(f, y))(f).reshape(f.numel(), f.numel())
    return rate * float(torch.linalg.eigvalsh(jacobian.T @ hessian @ jacobian)[-1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_ratio_is_that_of_the_gauss_newton_matrix_by_either_route(optimizer, monkeypatch):
    """Oracle: the Gauss–Newton matrix formed from Jacobians. Lanczos' residual bounds its error by LANCZOS_TOLERANCE.
    Two hidden layers: behind one, Θ[n, m, o, p] is symmetric in o and p. Fails where the product swaps the two.

    A measured kernel answers for one learning rate without a pass through the network; with Adam's own rates it cannot.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    x, y = torch.randn(12, 3).double(), torch.arange(12) % 4
    network = Network(model)
    names = {id(p): name for name, p in model.named_parameters()}
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](model.parameters(), lr=0.1)
    for parameter in model.parameters():  # one second moment for all: P is η/(√v + ε) everywhere
        parameter.grad = torch.ones_like(parameter)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    made.step()
    model.load_state_dict(before)
    rule = UpdateRule.of([made], names)
    loss, passes = ProbeLoss.of("cross_entropy"), []
    one_hot, kernel = nn.functional.one_hot(y, 4).double(), empirical_ntk(model, x)
    inner = Network.vjp
    monkeypatch.setattr(Network, "vjp", lambda *a, **k: passes.append(1) or inner(*a, **k))
    arguments = (network, x, network.outputs(x), one_hot, loss, rule)
    by_passes, _ = stability_ratio(*arguments)
    assert 1 <= len(passes) < 20
    passes.clear()
    by_kernel, _ = stability_ratio(*arguments, kernel=kernel)
    assert bool(passes) == (optimizer == "adam")
    expected = curvature(model, x, y, rate=0.1) / rule.threshold
    for found in (by_passes, by_kernel):
        assert found == pytest.approx(expected, rel=LANCZOS_TOLERANCE)
