"""Sharpness of the whole Hessian, of batches, along the update. Oracle: the Hessian as a matrix, by torch.func, in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kerneltrack as kt
from kerneltrack.measurement import hessian as hessians
from kerneltrack.measurement.clipped import clipped
from kerneltrack.measurement.hessian import LossHessian, gradient_curvature, hessian_of
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.metric import LANCZOS_TOLERANCE
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.ntk.network.network import Network
from kerneltrack.observables import one_step_criterion, select
from kerneltrack.probe import Probe
from kerneltrack.training.clipping import Clipping
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

TRIO = (
    "gauss_newton_sharpness", "hessian_sharpness", "hessian_stability_ratio", "gauss_newton_share", "stability_ratio",
)  # fmt: skip
BATCHES = ("batch_sharpness", "batch_sharpness_error", "batch_stability_ratio")


def problem(seed=0):
    torch.manual_seed(seed)
    return (
        nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double(),
        torch.randn(8, 3).double(),
        torch.arange(8) % 4,
    )


def one_hot(y):
    return nn.functional.one_hot(y, 4).double()


def mean_loss(name, outputs, y):
    return (
        nn.functional.cross_entropy(outputs, y)
        if name == "cross_entropy"
        else (outputs - one_hot(y)).square().sum() / (2 * len(y))
    )


def formed(model, x, y, name):
    """H (P, P) and g (P,), rows in the order of the parameters."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    flat = torch.cat([p.flatten() for p in parameters.values()])

    def loss(theta):
        parts = torch.split(theta, [p.numel() for p in parameters.values()])
        values = {n: part.reshape(p.shape) for part, (n, p) in zip(parts, parameters.items(), strict=True)}
        return mean_loss(name, torch.func.functional_call(model, values, (x,)), y)

    return torch.func.hessian(loss)(flat), torch.func.grad(loss)(flat)


def rule_of(model, kind, x, y):
    """The rule of an optimizer that has made enough updates to have one."""
    if kind == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(31):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    elif kind == "two rates":
        groups = [
            {"params": model[0].parameters(), "lr": 0.1, "momentum": 0.5},
            {"params": model[2].parameters(), "lr": 0.3, "momentum": 0.5},
        ]
        optimizer = torch.optim.SGD(groups)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    return UpdateRule.of([optimizer], {id(p): n for n, p in model.named_parameters()})


def flat_metric(model, rule):
    metric = rule.stability_metric([n for n, _ in model.named_parameters()])
    named = dict(model.named_parameters())
    each = metric if isinstance(metric, dict) else dict.fromkeys(named, metric)
    return torch.cat([(torch.ones_like(p) * each[n]).detach().flatten() for n, p in named.items()])


@pytest.mark.parametrize("name", ["half_mse", "cross_entropy"])
@pytest.mark.parametrize("kind", ["sgd", "two rates", "adam"])
def test_the_largest_eigenvalue_is_that_of_the_matrix_raw_and_in_the_optimizer_s_metric(name, kind):
    """Lanczos stops at a residual of LANCZOS_TOLERANCE, which bounds its error."""
    model, x, y = problem()
    rule = rule_of(model, kind, x, y)
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of(name), observables=select(TRIO))
    values = instrument.measure(model, rule, step=40).values
    matrix, _ = formed(model, x, y, name)
    root = flat_metric(model, rule).sqrt()
    raw, scaled = (float(torch.linalg.eigvalsh(m)[-1]) for m in (matrix, root[:, None] * matrix * root))
    assert values["hessian_sharpness"] == pytest.approx(raw, rel=LANCZOS_TOLERANCE)
    assert values["hessian_stability_ratio"] == pytest.approx(scaled / rule.threshold, rel=LANCZOS_TOLERANCE)
    assert values["gauss_newton_share"] == pytest.approx(values["gauss_newton_sharpness"] / raw, rel=LANCZOS_TOLERANCE)
    # negative control: the two matrices differ by much more than the tolerance
    assert abs(values["gauss_newton_sharpness"] / raw - 1) > 10 * LANCZOS_TOLERANCE


@pytest.mark.parametrize("name", ["half_mse", "cross_entropy"])
def test_of_a_linear_model_both_are_one_matrix(name):
    """∇²f = 0, so the Hessian is Gauss–Newton's; 16 parameters, so that Lanczos ends with the whole space."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.randn(8, 3).double(), torch.arange(8) % 4
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of(name), observables=select(TRIO))
    values = instrument.measure(model, rule_of(model, "sgd", x, y), step=1).values
    assert values["gauss_newton_share"] == pytest.approx(1, abs=2 * LANCZOS_TOLERANCE**2)
    assert values["hessian_stability_ratio"] == pytest.approx(values["stability_ratio"], abs=LANCZOS_TOLERANCE**2)


def test_a_product_is_the_matrix_s_however_samples_are_cut():
    """Rounding of float64 sums of 8 terms: 1e-13."""
    model, x, y = problem()
    matrix, gradient = formed(model, x, y, "cross_entropy")
    network = Network(model)
    v = {n: torch.randn_like(p) for n, p in network.parameters.items()}
    flat = torch.cat([part.flatten() for part in v.values()])
    whole = LossHessian(network, x, one_hot(y), ProbeLoss.of("cross_entropy"))
    with network.one_by_one():
        single = whole.gradient_and_product(v)
    for g, product in (whole.gradient_and_product(v), single):
        torch.testing.assert_close(torch.cat([p.flatten() for p in g.values()]), gradient, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            torch.cat([p.flatten() for p in product.values()]), matrix @ flat, rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_batch_sharpness_is_the_mean_of_the_batches_ratios(kind):
    """Oracle: gᵀHg/gᵀg of each batch's own matrix, the ratio inside the mean; the ratio of the means is another number."""
    model, x, y = problem()
    rule = rule_of(model, kind, x, y)
    cuts = [slice(0, 3), slice(3, 6), slice(5, 8)]
    batches = tuple(Probe(x[cut], y[cut]) for cut in cuts)
    loss = ProbeLoss.of("cross_entropy")
    instrument = Instrument(probe=Probe(x, y), loss=loss, observables=select(BATCHES), batches=batches)
    values = instrument.measure(model, rule, step=40).values
    found, scaled, metric = [], [], flat_metric(model, rule)
    for cut in cuts:
        matrix, g = formed(model, x[cut], y[cut], "cross_entropy")
        found.append((g @ matrix @ g, g @ g))
        scaled.append(float((metric * g) @ matrix @ (metric * g) / (g @ (metric * g))) / rule.threshold)
    ratios = [float(a / b) for a, b in found]
    assert values["batch_sharpness"] == pytest.approx(np.mean(ratios), rel=1e-10)
    assert values["batch_sharpness_error"] == pytest.approx(np.std(ratios, ddof=1) / 3**0.5, rel=1e-10)
    assert values["batch_stability_ratio"] == pytest.approx(np.mean(scaled), rel=1e-10)
    of_means = float(sum(a for a, _ in found) / sum(b for _, b in found))
    assert abs(values["batch_sharpness"] / of_means - 1) > 1e-3


def test_every_ratio_is_of_the_rate_that_a_clipped_update_used():
    """Law: a reading at rate η of an update that was shortened by c is the reading at cη; what has no rate in it stays."""
    model, x, y = problem()
    names = select([*TRIO, "batch_sharpness", "batch_stability_ratio"])
    given = {"loss": ProbeLoss.of("half_mse"), "observables": names, "batches": (Probe(x[:3], y[:3]),)}
    instrument = Instrument(probe=Probe(x, y), **given)
    whole, shortened = (
        instrument.measure(
            model,
            UpdateRule.of(
                [torch.optim.SGD(model.parameters(), lr=lr)], {id(p): n for n, p in model.named_parameters()}
            ),
            step=1,
        )
        for lr in (0.2, 0.05)
    )
    found = clipped(whole, Clipping(0.25)).values
    for name in (o.name for o in names):
        assert found[name] == pytest.approx(shortened.values[name], rel=1e-12), name
    assert sum(found[o.name] != pytest.approx(whole.values[o.name], rel=1e-12) for o in names) == 3  # negative control


def test_of_one_batch_of_everything_it_is_the_rayleigh_quotient():
    model, x, y = problem()
    matrix, g = formed(model, x, y, "half_mse")
    whole = LossHessian(Network(model), x, one_hot(y), ProbeLoss.of("half_mse"))
    assert gradient_curvature(whole, 1.0) == pytest.approx(float(g @ matrix @ g / (g @ g)), rel=1e-12)
    # plain descent's criterion is η times it
    assert one_step_criterion(-0.3 * float(g @ g), 0.09 * float(g @ matrix @ g)) == pytest.approx(
        0.3 * gradient_curvature(whole, 1.0), rel=1e-12
    )


class Orthogonal(torch.optim.Optimizer):
    """A rule that is known to nobody: u = −η UVᵀ of the gradient of a matrix, the sign of a vector's."""

    def __init__(self, parameters, lr, sign=1.0):
        super().__init__(parameters, {"lr": lr})
        self.sign = sign

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                u, _, v = torch.linalg.svd(p.grad if p.dim() == 2 else p.grad[None], full_matrices=False)
                p -= self.sign * group["lr"] * (u @ v).reshape(p.shape)


def trained(optimizer, model, x, y, path, *, observables, tracked=True, updates=2):
    """A run of full batches, and its rows."""
    data = DataLoader(TensorDataset(x, y), batch_size=len(x))
    if not tracked:
        for _ in range(updates):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return ()
    with kt.Tracker(
        path, model, optimizer, probe=Probe(x, y), loader=data, loss="cross_entropy", schedule=1, log=False,
        observables=observables,
    ) as tracker:  # fmt: skip
        for _ in range(updates):
            with tracker.update((x, y)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    with kt.open_archive(path) as archive:
        return list(archive)


RULES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "heavy ball": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    "orthogonal": lambda p: Orthogonal(p, 0.05),
    "ascent": lambda p: Orthogonal(p, 0.05, -1.0),
}


@pytest.mark.parametrize("kind", RULES)
def test_the_criterion_is_of_the_real_update_of_any_rule(kind, tmp_path):
    """Oracle: u from the parameters before and after, g and H as formed before. An update that climbs has none, and says so."""
    model, x, y = problem()
    start = copy.deepcopy(model)
    names = ["one_step_criterion"] if kind == "ascent" else [*BATCHES, "one_step_criterion", "hessian_stability_ratio"]
    rows = trained(RULES[kind](model.parameters()), model, x, y, tmp_path / "run.h5", observables=names, updates=1)
    values, message = rows[0].probes["probe"], rows[0].message
    matrix, g = formed(start, x, y, "cross_entropy")
    u = torch.cat([(b - a).detach().flatten() for a, b in zip(start.parameters(), model.parameters(), strict=True)])
    if kind == "ascent":
        assert math.isnan(values.get("one_step_criterion", math.nan))
        assert "does not descend" in message
        return
    assert values["one_step_criterion"] == pytest.approx(float(-(u @ matrix @ u) / (g @ u)), rel=1e-9)
    # one batch holds the whole set: the Rayleigh quotient at g, without an error
    quotient = float(g @ matrix @ g / (g @ g))
    assert values["batch_sharpness"] == pytest.approx(quotient, rel=1e-9)
    assert math.isnan(values.get("batch_sharpness_error", math.nan))
    if kind == "sgd":
        assert values["one_step_criterion"] == pytest.approx(0.3 * quotient, rel=1e-9)
    if kind == "orthogonal":
        assert math.isnan(values.get("hessian_stability_ratio", math.nan))
        assert "not known" in message
    assert "one_step_criterion" not in rows[-1].probes["probe"]  # no update leaves the last state


@pytest.mark.parametrize("kind", ["sgd", "orthogonal"])
def test_the_criterion_on_its_own_batch_is_of_the_batches_that_were_accumulated(kind, tmp_path):
    """Oracle: u from the parameters before and after, g and H of the batches' mean loss, formed. The probe has other points.

    Of plain descent it is η times the curvature along the batch's gradient. q tells the batch's quadratic model: L + gᵀu + ½uᵀHu is
    below L if and only if q < 2. Without a batch it says so.
    """
    model, x, y = problem()
    optimizer, start = RULES[kind](model.parameters()), copy.deepcopy(model)
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6])]
    with kt.Tracker(
        tmp_path / "run.h5", model, optimizer, probe=Probe(x[5:], y[5:]), loss="cross_entropy", schedule=1, log=False,
        observables=["one_step_criterion", "one_step_criterion_batch"],
    ) as tracker:  # fmt: skip
        with tracker.update(batches[0]):
            optimizer.zero_grad()
            for number, (inputs, classes) in enumerate(batches):
                if number:
                    tracker.add((inputs, classes))
                (nn.functional.cross_entropy(model(inputs), classes) / 2).backward()
            optimizer.step()
        after = copy.deepcopy(model)
        with tracker.update():
            optimizer.step()
    with kt.open_archive(tmp_path / "run.h5") as archive:
        rows = list(archive)
    matrix, g = formed(start, x[:6], y[:6], "cross_entropy")  # two batches of three: the mean over both
    u = torch.cat([(b - a).detach().flatten() for a, b in zip(start.parameters(), after.parameters(), strict=True)])
    q = rows[0].probes["probe"]["one_step_criterion_batch"]
    assert q == pytest.approx(float(-(u @ matrix @ u) / (g @ u)), rel=1e-9)
    assert (q < 2) == bool(g @ u + u @ matrix @ u / 2 < 0)
    if kind == "sgd":
        assert q == pytest.approx(0.3 * float(g @ matrix @ g / (g @ g)), rel=1e-9)
    assert q != pytest.approx(rows[0].probes["probe"]["one_step_criterion"], rel=1e-3)
    assert "one_step_criterion_batch: the loop handed no batch over" in rows[1].message


class Detached(torch.autograd.Function):
    """x², whose backward pass forgets that it depends on x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * gradient


class Once(Detached):
    """The same, marked as one that is differentiated once."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Squares(nn.Module):
    def __init__(self, square):
        super().__init__()
        self.square = square

    def forward(self, x):
        return self.square(x)


def distances(x):
    """Of x to 1, by an operator whose backward pass has no derivative."""
    return torch.cdist(x[:, :, None], x.new_ones(1, 1, 1), p=3.0)[:, :, 0] ** 2


@pytest.mark.parametrize(
    ("square", "reason"),
    [
        (Detached.apply, "not that of the gradient"),
        (Once.apply, "not that of the gradient"),  # torch takes its node for a constant where inputs may be unused
        (distances, "no second derivative"),
        (torch.square, ""),
    ],
)
def test_a_second_derivative_that_is_wrong_or_not_there_is_refused(square, reason):
    """Negative control: the same squares by torch's own operator are measured."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), Squares(square), nn.Linear(5, 4)).double()
    x, y = torch.randn(6, 3).double(), torch.arange(6) % 4

    def found():
        return hessian_of(Network(model), Network(model, dtype=torch.float64), x, one_hot(y), ProbeLoss.of("half_mse"))

    if reason:
        with pytest.raises(NotMeasured, match=reason):
            found()
    else:
        matrix, _ = formed(model, x, y, "half_mse")
        assert found().largest(1.0) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=LANCZOS_TOLERANCE)


def test_without_a_loss_or_batches_it_says_so():
    model, x, y = problem()
    rule, names = rule_of(model, "sgd", x, y), ["hessian_sharpness", "batch_sharpness"]
    bare = Instrument(probe=Probe(x, y), observables=select(names)).measure(model, rule, step=1)
    assert set(bare.reasons.values()) == {"no loss was given"}
    told = Instrument(probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), observables=select(names))
    assert told.measure(model, rule, step=1).reasons == {"batch_sharpness": "no training batches were drawn"}


class Restless(nn.Module):
    """What two backward passes might leave traces in: running statistics, dropout, a counter."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 4))

    def forward(self, x):
        return self.net(x)


def test_training_is_the_same_bit_for_bit(tmp_path):
    """Oracle: the same training without a tracker; parameters, buffers, momentum and the generator."""
    ends = []
    for tracked in (True, False):
        torch.manual_seed(0)
        model, x, y = Restless(), torch.randn(8, 3), torch.arange(8) % 4
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        names = [*TRIO, *BATCHES, "one_step_criterion"]
        rows = trained(optimizer, model, x, y, tmp_path / "run.h5", observables=names, tracked=tracked)
        if tracked:  # the measurement was there
            assert all(np.isfinite(rows[1].probes["probe"][name]) for name in ("hessian_sharpness", "batch_sharpness"))
        momentum = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
        gradients = [p.grad for p in model.parameters()]
        ends.append([*model.state_dict().values(), *momentum, *gradients, torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_what_is_not_chosen_costs_nothing(monkeypatch, tmp_path):
    """Oracle: no second backward pass, and no batch drawn, is made for any number but these; with one of them it is."""

    def refused(*_, **__):
        raise AssertionError("asked for")

    monkeypatch.setattr(hessians.LossHessian, "_passes", refused)
    monkeypatch.setattr(Probe, "from_dataloader", refused)
    others = [
        o.name
        for o in select("all")
        if not o.needs & {"hessian", "hessian_ratio", "batches", "batch_ratios", "update_curvature", "update_batch"}
    ]
    model, x, y = problem()
    trained(RULES["sgd"](model.parameters()), model, x, y, tmp_path / "run.h5", observables=others, updates=1)
    with pytest.raises(AssertionError, match="asked for"):
        trained(
            RULES["sgd"](model.parameters()), model, x, y, tmp_path / "second.h5",
            observables=["hessian_sharpness"], updates=1,
        )  # fmt: skip
