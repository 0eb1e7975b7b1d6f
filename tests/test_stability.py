"""ρ by products, by the measured kernel, and where a schedule ends: no learning rate, no curvature."""

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.measurement.curvature import curvature_of_halves, largest_curvature
from kerneltrack.measurement.curvature import stability_ratio as ratio_of
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.loss_root import SoftmaxRoot
from kerneltrack.measurement.metric import LANCZOS_TOLERANCE
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.ntk import KernelOptions, empirical_ntk, kernel_and_jacobian
from kerneltrack.ntk.network.network import Network
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule


def stability_ratio(network, x, outputs, targets, loss, rule, **known):
    """ρ of a network, without an instrument."""
    return ratio_of(
        rule,
        list(network.parameters),
        lambda metric: largest_curvature(network, x, outputs, targets, loss, metric, **known),
    )


def test_a_learning_rate_of_zero_has_ratio_zero():
    """Oracle: P = 0, so the operator is zero. Lanczos used to refuse a start that it maps to zero."""
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(3, 4), torch.randn(5, 3), torch.eye(4)[[0, 1, 2, 3, 0]]
    network = Network(model)
    names = {id(p): name for name, p in model.named_parameters()}
    ratios = []
    for rate in (0.0, 0.1):
        rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=rate)], names)
        ratios.append(stability_ratio(network, x, network.outputs(x), y, ProbeLoss.of("cross_entropy"), rule))
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
    Swapped outputs move this λ_1 by 6e-6 only: test_the_measured_kernel_is_read_with_its_outputs_in_order sees them.

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
    for _ in range(40):  # Adam's threshold is one of the long run
        made.step()
    model.load_state_dict(before)
    rule = UpdateRule.of([made], names)
    loss, passes = ProbeLoss.of("cross_entropy"), []
    one_hot, kernel = nn.functional.one_hot(y, 4).double(), empirical_ntk(model, x)
    inner = Network.vjp
    monkeypatch.setattr(Network, "vjp", lambda *a, **k: passes.append(1) or inner(*a, **k))
    arguments = (network, x, network.outputs(x), one_hot, loss, rule)
    by_passes = stability_ratio(*arguments)
    assert 1 <= len(passes) < 20
    passes.clear()
    by_kernel = stability_ratio(*arguments, kernel=kernel)
    assert bool(passes) == (optimizer == "adam")
    warm_up = 1 - 0.9**40 if optimizer == "adam" else 1
    expected = curvature(model, x, y, rate=0.1) / rule.threshold / warm_up
    for found in (by_passes, by_kernel):
        assert found == pytest.approx(expected, rel=LANCZOS_TOLERANCE)


def test_the_root_of_softmax_is_one_and_forms_no_block():
    """Oracle: the Hessian of torch's cross-entropy. Soft targets of any sum, and probabilities that are zero."""
    generator = torch.Generator().manual_seed(0)
    outputs = 4 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    outputs[0, 0] = 900.0
    targets = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    root = SoftmaxRoot.of(outputs, targets)
    found = torch.zeros(15, 15, dtype=torch.float64)
    for i, unit in enumerate(torch.eye(15, dtype=torch.float64)):
        found[:, i] = root.times(root.transposed(unit.reshape(5, 3))).flatten()
    expected = torch.func.hessian(lambda f: ProbeLoss.of("cross_entropy").value(f, targets))(outputs).reshape(15, 15)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    with pytest.raises(NotMeasured, match="not convex"):
        SoftmaxRoot.of(outputs, -targets)


def test_many_classes_need_no_square_of_their_number(monkeypatch):
    """Oracle: Rᵀ(K ⊗ I)R as a matrix, for the kernel K ⊗ I of a linear model. Blocks of S would raise."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 100).double(), torch.randn(4, 3).double(), torch.arange(4)
    monkeypatch.setattr(ProbeLoss, "hessian_blocks", None)
    network, one_hot = Network(model), nn.functional.one_hot(y, 100).double()
    outputs = network.outputs(x)
    found = largest_curvature(network, x, outputs, one_hot, ProbeLoss.of("cross_entropy"), 1.0)
    p = torch.softmax(outputs, 1)
    roots = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None]
    matrix = torch.einsum("nop,nm,moq->npmq", roots, x @ x.T + 1, roots).reshape(400, 400) / 4
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=LANCZOS_TOLERANCE)


def test_the_measured_kernel_is_read_with_its_outputs_in_order():
    """Oracle: S^½ Θ S^½ as a matrix, rows ordered (n, o), of a kernel whose entries [n, m, o, p] and [n, m, p, o] differ
    by far more than the tolerance. Fails where the product swaps the two, which networks of one hidden layer cannot show.
    """
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.randn(6, 3).double(), torch.arange(6) % 4
    rows = torch.randn(24, 2).double()  # a Jacobian of two parameters
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    network, outputs = Network(model), model(x).detach()
    kernel = (rows @ rows.T).reshape(6, 4, 6, 4).transpose(1, 2)
    hessian = torch.func.hessian(lambda f: nn.functional.cross_entropy(f, y))(outputs).reshape(24, 24)

    def top(matrix):
        return 0.1 * float(torch.linalg.eigvals(matrix @ hessian).real.max()) / rule.threshold

    one_hot, loss = nn.functional.one_hot(y, 4).double(), ProbeLoss.of("cross_entropy")
    found = stability_ratio(network, x, outputs, one_hot, loss, rule, kernel=kernel)
    assert found == pytest.approx(top(rows @ rows.T), rel=LANCZOS_TOLERANCE)
    assert found != pytest.approx(top(kernel.transpose(2, 3).transpose(1, 2).reshape(24, 24)), rel=0.05)


@pytest.mark.parametrize("loss", ["half_mse", "cross_entropy"])
def test_the_ratio_of_a_part_of_the_parameters_is_that_of_all(loss):
    """The optimizer moves every parameter, whatever ``params=`` the kernel is of. Oracle: the Gauss–Newton matrix of all.

    Fails where λ_1 of the part, or its kernel, is taken for that of the whole.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x, y = torch.randn(6, 3).double(), torch.arange(6) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = UpdateRule.of([optimizer], {id(p): name for name, p in model.named_parameters()})
    probe, chosen = Probe(x, y), select(["stability_ratio"])
    part = Instrument(probe=probe, params=["2.weight"], loss=ProbeLoss.of(loss), observables=chosen)
    found = float(part.measure(model, rule, step=0).values["stability_ratio"])
    if loss == "half_mse":
        kernel = empirical_ntk(model, x).transpose(1, 2).reshape(24, 24)
        expected = 0.1 * float(torch.linalg.eigvalsh(kernel)[-1]) / 6 / rule.threshold
    else:
        expected = curvature(model, x, y) / rule.threshold
    assert found == pytest.approx(expected, rel=LANCZOS_TOLERANCE)


@pytest.mark.parametrize("loss", ["half_mse", "cross_entropy"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_sharpness_is_the_gauss_newton_matrix_s_whatever_the_optimizer(loss, optimizer):
    """Oracle: JᵀSJ from plain autodiff. No rate, no preconditioner and no threshold is in it; beside ρ of SGD it is cρ/η."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x, y = torch.randn(6, 3).double(), torch.arange(6) % 4
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    names = {id(p): name for name, p in model.named_parameters()}
    expected = curvature(model, x, y, rate=1.0)
    if loss == "half_mse":
        expected = float(torch.linalg.eigvalsh(empirical_ntk(model, x).transpose(1, 2).reshape(24, 24))[-1]) / 6
    chosen = select(["gauss_newton_sharpness", "stability_ratio"])
    for rate in (0.05, 0.5):
        rule = UpdateRule.of([kinds[optimizer](model.parameters(), lr=rate)], names)
        instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of(loss), observables=chosen)
        values = instrument.measure(model, rule, step=0).values
        assert values["gauss_newton_sharpness"] == pytest.approx(expected, rel=LANCZOS_TOLERANCE)
        if optimizer == "sgd":
            assert values["stability_ratio"] * 2 / rate == pytest.approx(values["gauss_newton_sharpness"], rel=1e-12)
        else:
            assert torch.isnan(torch.tensor(float(values["stability_ratio"])))


@pytest.mark.parametrize("count", [8, 7])
@pytest.mark.parametrize("loss", ["half_mse", "cross_entropy"])
@pytest.mark.parametrize("optimizer", ["sgd", "two rates"])
def test_the_bias_is_what_halves_of_the_probe_have_more(loss, optimizer, count):
    """Oracle: ρ measured on each half as a probe of its own, weighed by its points. Law: λ_1 is convex, so b̂ ≥ 0 (Jensen).

    With the kernel formed and by passes, and where P is not one number.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x, y = torch.randn(count, 3).double(), torch.arange(count) % 4
    rates = (0.1, 0.1) if optimizer == "sgd" else (0.1, 0.3)
    made = torch.optim.SGD([{"params": m.parameters(), "lr": r} for m, r in zip(model[::2], rates, strict=True)])
    rule = UpdateRule.of([made], {id(p): n for n, p in model.named_parameters()})

    def measured(points, name, **how):
        probe = Probe(x[points], y[points])
        instrument = Instrument(probe=probe, loss=ProbeLoss.of(loss), observables=select([name]), **how)
        return float(instrument.measure(model, rule, step=0).values[name])

    order = np.random.default_rng(0).permutation(count)
    halves = [torch.from_numpy(half) for half in (order[: count // 2], order[count // 2 :])]
    whole = measured(torch.arange(count), "stability_ratio")
    expected = sum(len(h) / count * measured(h, "stability_ratio") for h in halves) - whole
    for how in ({}, {"output": "trace"}):
        found = measured(torch.arange(count), "stability_ratio_bias", **how)
        assert found == pytest.approx(expected, abs=3 * LANCZOS_TOLERANCE * whole)
        assert found > 0


@pytest.mark.parametrize(
    ("loss", "gauge"), [("half_mse", "raw"), ("cross_entropy", "raw"), ("cross_entropy", "softmax")]
)
@pytest.mark.parametrize("metric", [0.3, "by parameter", "by entry"])
def test_halves_by_factors_are_those_of_the_dense_matrix(metric, loss, gauge, monkeypatch):
    """Oracle: S^½ J P Jᵀ S^½ of each half, formed in float64 from plain autodiff. No pass of the network, and both halves'
    vectors in one product: as many products as the longer Lanczos has, not as both together.

    Fails where a half's vector meets the other half's rows, or its column the other's entries of P.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Flatten()),
        *(nn.LayerNorm(8), nn.Linear(8, 4)),
    )
    model, x, y = model.double().eval(), torch.randn(7, 1, 4, 4).double(), torch.arange(7) % 4
    own = {n: p.detach() for n, p in model.named_parameters()}
    draw = torch.Generator().manual_seed(5)
    entries = {n: torch.rand(p.shape, generator=draw, dtype=torch.float64) + 0.1 for n, p in own.items()}
    given = {"by parameter": {n: 0.1 * (k + 1) for k, n in enumerate(own)}, "by entry": entries}.get(metric, metric)
    _, factors = kernel_and_jacobian(model, x, KernelOptions(output="trace", gauge=gauge))
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(own)
    every = [torch.as_tensor(given if isinstance(given, float) else given[n]).expand_as(p) for n, p in own.items()]
    rows = torch.cat(
        [j.flatten(2) * p.double().sqrt().flatten() for j, p in zip(jacobian.values(), every, strict=True)], 2
    )
    network, f, kind = Network(model), model(x).detach(), ProbeLoss.of(loss)
    one_hot, expected, order = nn.functional.one_hot(y, 4).double(), 0.0, np.random.default_rng(0).permutation(7)
    for half in (order[:3], order[3:]):
        s = torch.block_diag(*kind.hessian_blocks(f[half], one_hot[half])) / len(half)
        formed = rows[half].flatten(0, 1)
        expected += len(half) / 7 * float(torch.linalg.eigvals(formed @ formed.T @ s).real.max())
    monkeypatch.setattr(Network, "vjp", None)
    products, multiply = [], factors.product
    monkeypatch.setattr(factors, "product", lambda *a: products.append(a[0].shape[2]) or multiply(*a))
    monkeypatch.setattr(factors, "audit_when_due", lambda: None)
    arguments = (network, x, f, one_hot, kind, given)
    found = curvature_of_halves(*arguments, jacobian=factors, gauge=gauge)
    assert found == pytest.approx(expected, rel=LANCZOS_TOLERANCE)
    assert products[0] == 2
    assert len(products) <= 16


def test_the_bias_of_samples_is_about_what_halving_says():
    """λ_1 of the mean of xxᵀ over N points of 600, against that of all 600, over 30 samples of N = 60.

    Its excess falls as 1/N, so halving adds as much again: the means agree to a third. Without b̂ every sample is above.
    """
    torch.manual_seed(0)
    model, x = nn.Linear(20, 1, bias=False).double(), torch.randn(600, 20).double()
    network, loss = Network(model), ProbeLoss.of("half_mse")

    def top(points):
        return float(torch.linalg.eigvalsh(points.T @ points / len(points))[-1])

    excess, said = [], []
    for _ in range(30):
        points = x[torch.randperm(600)[:60]]
        y = torch.zeros(60, 1).double()
        excess.append(top(points) - top(x))
        said.append(curvature_of_halves(network, points, network.outputs(points), y, loss, 1.0) - top(points))
    assert min(said) > 0
    assert np.mean(said) == pytest.approx(np.mean(excess), rel=0.35)


def test_the_whole_training_set_has_no_bias():
    model, x = nn.Linear(3, 1), torch.randn(6, 3)
    rule = UpdateRule.of([torch.optim.SGD(model.parameters(), lr=0.1)], {id(p): n for n, p in model.named_parameters()})
    for scope, count, reason in (("exact", 6, "whole training set"), ("probe estimate", 1, "one point has no halves")):
        instrument = Instrument(
            probe=Probe(x[:count], x[:count, :1]),
            loss=ProbeLoss.of("half_mse"),
            observables=select(["stability_ratio_bias"]),
            scope=scope,
        )
        assert reason in instrument.measure(model, rule, step=0).reasons["stability_ratio_bias"]
