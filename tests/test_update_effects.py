"""What one update did, of a network in float32. Oracle: the same two sets of weights in float64, by torch.func alone."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack.errors import KernelError
from kerneltrack.measurement import kept_jacobian
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.measurement.kept_jacobian import KeptJacobian, lasting
from kerneltrack.measurement.references import References
from kerneltrack.ntk import KernelOptions, Network, NetworkState, kernel_and_jacobian
from kerneltrack.ntk import machine as sizes
from kerneltrack.observables import select
from kerneltrack.probe import Probe
from kerneltrack.training.loss import ProbeLoss
from kerneltrack.training.update_rule import UpdateRule

NAMES = ("linearization_error", "linearization_cosine", "kernel_flow_error", "measured_factor", "ledger_curvature")


class InHalf(nn.Module):
    """A body that computes in bfloat16, whatever it is converted to: no pass of it is finer."""

    def forward(self, x):
        return torch.tanh(x.to(torch.bfloat16)).to(x.dtype)


class OnlyFloat32(nn.Module):
    """A forward that is not there in float64."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        return torch.tanh(x)


class FixedBasis(nn.Module):
    """A matrix of constants in float32, which torch multiplies with nothing else: a RuntimeError."""

    def forward(self, x):
        return torch.tanh(x) @ torch.eye(16)


class DerivedIn32(torch.autograd.Function):
    """tanh; its derivative is written for float32 alone: an AssertionError of the backward pass."""

    @staticmethod
    def forward(x):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, gradient):
        assert gradient.dtype == torch.float32
        return gradient * (1 - ctx.saved_tensors[0] ** 2)


class OnlyBackwardIn32(nn.Module):
    """tanh, whose backward pass asserts its dtype."""

    def forward(self, x):
        return DerivedIn32.apply(x)


class Bag(nn.Module):
    """A bag over a fixed table in float32, which is the identity; torch takes no weights of another dtype for it."""

    def forward(self, x):
        places = torch.arange(16).expand(len(x), 16)
        return torch.tanh(nn.functional.embedding_bag(places, torch.eye(16), per_sample_weights=x, mode="sum"))


@torch.library.custom_op("kerneltrack_tests::identity", mutates_args=())
def identity(x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.float32:
        raise NotImplementedError("compiled for float32")
    return x.clone()


identity.register_autograd(lambda ctx, gradient: gradient)


class CustomOp(nn.Module):
    """tanh behind an operator of the user's own."""

    def forward(self, x):
        return identity(torch.tanh(x))


class Inside32(nn.Module):
    """A norm's habit: inside it computes in float32, whatever comes."""

    def forward(self, x):
        return torch.tanh(x.float()).to(x.dtype)


class ByTable(nn.Module):
    """A bug of the model's own, and no word on float64."""

    def forward(self, x):
        return torch.tanh(x) * {torch.float32: 1.0}[x.dtype]


WITHOUT_FLOAT64 = (OnlyFloat32, FixedBasis, OnlyBackwardIn32, Bag, CustomOp)


def one_step(rate, body, width=2, **more):
    """(measured values and reasons, weights before, weights after) of a float32 network's step of gradient descent."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), body, nn.Linear(16, width)).eval()
    x, y = torch.randn(12, 3), torch.randn(12, width)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    rule = UpdateRule.of([optimizer], {id(p): n for n, p in net.named_parameters()})
    given = {"observables": select(NAMES), **more}
    instrument = Instrument(probe=Probe(x, y), loss=ProbeLoss.of("half_mse"), **given)
    reading, before = instrument.measure(net, rule, step=0), copy.deepcopy(net).double()
    ((net(x) - y).square().sum(1).mean() / 2).backward()
    optimizer.step()
    return instrument.complete(net, reading, rule), before, copy.deepcopy(net).double(), x.double(), y.double()


def exact(before, after, x, y, rate):
    start, end = (dict(net.named_parameters()) for net in (before, after))
    step = {name: (end[name] - value).detach() for name, value in start.items()}
    f, linear = torch.func.jvp(lambda p: torch.func.functional_call(before, p, (x,)), (start,), (step,))
    change, gradient = after(x) - f, torch.autograd.grad((f - y).square().sum(1).mean() / 2, list(start.values()))
    flow = {name: -rate * g for name, g in zip(start, gradient, strict=True)}
    _, flow = torch.func.jvp(lambda p: torch.func.functional_call(before, p, (x,)), (start,), (flow,))
    scale = change.square().sum()
    cosine = (change * linear).sum() / (change.norm() * linear.norm())
    return [
        float(v.detach())
        for v in ((change - linear).square().sum() / scale, cosine, (change - flow).square().sum() / scale)
    ]


@pytest.mark.parametrize("exponent", range(1, 9))
def test_errors_of_an_update_are_those_of_its_weights_not_of_their_rounding(exponent):
    """Taylor: the error is ∝ η². In float32 alone it stops at 5e-9 for η = 10⁻³ and is 0.96 for η = 10⁻⁸.

    Below η = 10⁻⁵ the weights' own rounding is part of the real update: the kernel's flow misses it, J Δθ does not.
    """
    rate = 10.0**-exponent
    found, *weights = one_step(rate, nn.Tanh())
    error, cosine, flow = exact(*weights, rate)
    assert found.values["linearization_error"] == pytest.approx(error, rel=0.02, abs=1e-15)
    assert found.values["linearization_cosine"] == pytest.approx(cosine, abs=1e-7)
    assert found.values["kernel_flow_error"] == pytest.approx(flow, rel=0.02, abs=1e-15)
    assert np.isfinite(found.values["measured_factor"]).all()
    assert np.isfinite(found.values["ledger_curvature"]).all()
    if exponent < 6:
        first, *weights = one_step(0.1, nn.Tanh())
        assert error == pytest.approx(first.values["linearization_error"] * (rate / 0.1) ** 2, rel=0.5)


def passes_of(monkeypatch):
    """Where every J v and Jᵀ u by a pass of its own is noted."""
    found = []
    for name in ("jvp", "vjp"):
        way = getattr(Network, name)
        monkeypatch.setattr(Network, name, lambda *a, way=way, **k: found.append(way) or way(*a, **k))
    return found


@pytest.mark.parametrize(("output", "width", "spared"), [("full", 2, 2), ("trace", 2, 3), ("full", 1, 3)])
def test_the_linear_models_come_of_what_the_kernel_has_left(monkeypatch, output, width, spared):
    """J Δθ and J P Jᵀ m by the factors of a reduced kernel, the second by the modes of a whole one; of one output both.

    Oracle: torch.func in float64.

    1e-5: rounding of float32 in numbers of order one, of which the error is a hundredth.
    """
    monkeypatch.setattr(sizes, "SMALL", 0)  # a recorded kernel leaves nothing
    passes, rate = passes_of(monkeypatch), 0.1
    seen = []
    monkeypatch.setattr(KeptJacobian, "of", lambda *a, of=KeptJacobian.of, **k: seen.append(len(passes)) or of(*a, **k))
    found, *weights = one_step(
        rate, nn.Tanh(), width, output=output, observables=select((*NAMES[:3], "gauss_newton_sharpness"))
    )
    assert len(passes) - seen[0] == 3 - spared
    expected = exact(*weights, rate)
    assert [found.values[name] for name in NAMES[:3]] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.jacobian is None
    assert found.before is None


def test_factors_wait_only_where_nothing_in_them_moves_and_memory_is_free(monkeypatch):
    """What lies in a parameter or a buffer moves before it is asked: the factors are let go of, and passes do it."""
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    jacobian = kernel_and_jacobian(net, torch.randn(8, 3), KernelOptions(output="trace"))[1]
    assert lasting(jacobian, net) is jacobian
    moving = nn.Module()
    moving.register_buffer("view", next(iter(jacobian.tensors()))[:1])
    assert lasting(jacobian, moving) is None
    monkeypatch.setattr(kept_jacobian, "available_bytes", lambda device: 8 * jacobian.held_bytes - 1)
    assert lasting(jacobian, net) is None


@pytest.mark.parametrize("body", [InHalf(), OnlyFloat32()], ids=["bfloat16", "no float64"])
def test_what_no_finer_arithmetic_decides_is_nan_with_its_reason(body):
    """A tanh in bfloat16 (ε = 2⁻⁷) hides changes below 40 ε of the outputs, one in float32 below 40 · 2⁻²³."""
    found, *_ = one_step(1e-7, body)
    assert math.isnan(found.values["linearization_error"])
    assert found.reasons["linearization_error"] == "change of the outputs is rounding"


@pytest.mark.parametrize("body", [*WITHOUT_FLOAT64, Inside32], ids=lambda kind: kind.__name__)
def test_what_rounding_leaves_of_a_resolved_update_is_nan_where_float64_does_not_run(body):
    """Taylor: the error is ∝ η², 3e-10 at η = 10⁻⁴ here, where the rounding of float32 gives some 1e-8: NaN with its reason.

    Δf itself is known to a thousandth, and so is the cosine. Oracle: the tanh network in float64.
    """
    found = one_step(1e-4, body())[0]
    _, cosine, _ = exact(*one_step(1e-4, nn.Tanh())[1:], 1e-4)
    for name in ("linearization_error", "ledger_curvature"):
        assert np.isnan(found.values[name]).all(), name
        assert found.reasons[name].startswith("rounding decides it: the network"), found.reasons[name]
    assert found.values["linearization_cosine"] == pytest.approx(cosine, abs=1e-4)


def anchored_after(way, body):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), body, nn.Linear(16, 2)).eval()
    x, start = torch.randn(12, 3), NetworkState.of(net)
    instrument = Instrument(probe=Probe(x, x[:, :2]), observables=select("anchored_linearization_error"))
    rule = UpdateRule.of([torch.optim.SGD(net.parameters(), lr=0.1)], {})
    first = instrument.measure(net, rule, step=0, references=References(start=start))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(way * torch.randn_like(p))
    return instrument.measure(net, rule, step=1, references=References(start=start, initial=first.state))


@pytest.mark.parametrize("body", [*WITHOUT_FLOAT64, Inside32], ids=lambda kind: kind.__name__)
def test_an_anchored_error_of_rounding_is_nan_where_float64_does_not_run(body):
    """Taylor: ∝ way², 1e-8 for a way of 10⁻⁴, of which the rounding of float32 makes 1e-7. A longer way has its number."""
    name = "anchored_linearization_error"
    short, far = anchored_after(1e-4, body()), anchored_after(0.3, body())
    assert math.isnan(short.values[name])
    assert short.reasons[name].startswith("rounding decides it: the network"), short.reasons[name]
    assert far.values[name] == pytest.approx(anchored_after(0.3, nn.Tanh()).values[name], rel=1e-3)


def test_an_error_that_is_no_word_on_float64_comes_through():
    """A bug, memory that is short, and an error of kerneltrack are no missing arithmetic: the caller is told."""
    for trial in (lambda: one_step(1e-4, ByTable()), lambda: anchored_after(1e-4, ByTable())):
        with pytest.raises(KeyError):
            trial()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), KernelError("ours")], ids=["memory", "ours"])
def test_a_device_without_memory_is_no_device_without_float64(error):
    class Fails(nn.Module):
        def forward(self, x):
            if x.dtype == torch.float64:
                raise error
            return torch.tanh(x)

    with pytest.raises(type(error)):
        one_step(1e-4, Fails())


def test_a_coarse_body_counts_where_weights_and_outputs_are_fine():
    """‖Δf‖/‖f‖ is near a hundredth: enough for float32, and nothing to a tanh in bfloat16."""
    assert math.isnan(one_step(1e-2, InHalf())[0].values["linearization_error"])
    assert math.isfinite(one_step(1e-2, OnlyFloat32())[0].values["linearization_error"])


@pytest.mark.parametrize("exponent", range(1, 6))
def test_the_error_since_initialisation_is_not_the_rounding_of_a_short_way(exponent):
    """The same for f_t − f_0: ∝ (way)² by Taylor. In float32 alone it is 5e-9 for a way of 10⁻³, and 3e-6 for one of 10⁻⁵."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    x, start, before = torch.randn(12, 3), NetworkState.of(net), copy.deepcopy(net).double()
    instrument = Instrument(probe=Probe(x, x[:, :2]), observables=select("anchored_linearization_error"))
    rule = UpdateRule.of([torch.optim.SGD(net.parameters(), lr=0.1)], {})
    first = instrument.measure(net, rule, step=0, references=References(start=start))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(10.0**-exponent * torch.randn_like(p))
    found = instrument.measure(net, rule, step=1, references=References(start=start, initial=first.state))
    error, *_ = exact(before, copy.deepcopy(net).double(), x.double(), x[:, :2].double(), 1.0)
    # relative to a way that is known to ε/way
    assert found.values["anchored_linearization_error"] == pytest.approx(error, rel=0.02 + 4e-7 / 10.0**-exponent)
