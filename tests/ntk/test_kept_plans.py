"""A plan is kept while it holds, and what it rests on is looked at in every call.

Oracle: a plain Jacobian in float64 of the network as it is now; refusals by their kind, in the fifth call of a plan, which is
not audited.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.capture.record import Record
from kerneltrack.ntk.machine import Machine, use
from kerneltrack.ntk.methods import StructuredPlan
from kerneltrack.ntk.network import FEW

OUTPUT = pytest.mark.parametrize("output", ["full", "sum"])
#: Samples are looked at beside a kernel: of several outputs, of one, and by the rows of a plain Jacobian.
ASKED = pytest.mark.parametrize(
    "asked", [{}, {"output": "sum"}, {"method": "jacobian"}], ids=["full", "sum", "jacobian"]
)
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=["accelerator", "cpu"], autouse=True)
def machine(request):
    with use(Machine.accelerator(memory=80e9) if request.param == "accelerator" else Machine()):
        yield request.param


class Switched(nn.Module):
    """A forward pass that a number, which no key of a plan has, may change."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.which, self._run = 0, forward
        for name, part in parts.items():
            setattr(self, name, part)
        self.double()

    def forward(self, x):
        return self._run(self, x)


def layers(*sizes):
    return nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[::2], sizes[1::2], strict=True))


def parameter(*shape):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(1)))


#: Name → a model whose ``which`` changes what is used, and nothing that is asked for shapes would see.
MODELS = {
    "another layer": lambda: Switched(
        lambda m, x: m.head(m.parts[m.which](x).tanh()), parts=layers(4, 5, 4, 5), head=nn.Linear(5, 3)
    ),
    "twice or once": lambda: Switched(
        lambda m, x: m.head(m.parts[m.which](m.parts[0](x).tanh())), parts=layers(4, 4, 4, 4), head=nn.Linear(4, 3)
    ),
    "another scale": lambda: Switched(lambda m, x: x @ (m.w * (1.0, 3.0)[m.which]), w=parameter(4, 3)),
    "slices that meet": lambda: Switched(
        lambda m, x: (x @ m.w[:, :3]).tanh() + x @ m.w[:, 3 - m.which : 6 - m.which], w=parameter(4, 6)
    ),
    "no isometry": lambda: Switched(lambda m, x: x @ (m.w if m.which == 0 else m.w.cumsum(0)), w=parameter(4, 3)),
    "past every use": lambda: Switched(
        lambda m, x: x @ m.w + (m.w[0] if m.which else m.w[0].detach()) * x.sum(1, keepdim=True).detach(),
        w=parameter(4, 3),
    ),
    "writes in place": lambda: Switched(
        lambda m, x: m.head(m.a(x).relu_() if m.which else m.a(x).relu()), a=nn.Linear(4, 5), head=nn.Linear(5, 3)
    ),
}


@pytest.mark.parametrize("name", MODELS)
@OUTPUT
def test_what_a_plan_rests_on_may_change(name, output):
    model = MODELS[name]()
    for which in (0, 0, 0, 1, 1, 0):
        model.which = which
        found, expected = (
            kt.empirical_ntk(model, X, output=output),
            kt.empirical_ntk(model, X, output=output, method="jacobian"),
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def asks(m, x):
    """A value is asked for, from some call on; then a layer may have the samples in another order."""
    if m.which and bool((x > 5).any()):
        return m.head(m.a(x.flip(0)).flip(0).sin())
    return m.head(m.a(x).sin())


def test_batches_are_planned_once(monkeypatch):
    """Oracle: a count. Of a model that vmap refuses a plan is kept too; one from before, for fewer samples, is not taken."""
    model = Switched(asks, a=nn.Linear(4, 4), head=nn.Linear(4, 3))
    kt.empirical_ntk(model, X[:4])
    model.which = 1
    kt.empirical_ntk(model, X)
    made, of = [], StructuredPlan.of
    monkeypatch.setattr(StructuredPlan, "of", lambda *given: made.append(given) or of(*given))
    for count, x in ((0, X), (0, X), (1, X[:4]), (1, X[:4])):
        kt.empirical_ntk(model, x)
        assert len(made) == count


def test_a_plan_that_leaves_a_parameter_to_its_jacobian_is_kept(monkeypatch):
    """Oracle: a count. Rows of one layer are not the samples', and a kept plan does not ask for them again."""
    model = Switched(asks, a=nn.Linear(4, 4), head=nn.Linear(4, 3))
    model.which = 1
    made, of = [], StructuredPlan.of
    monkeypatch.setattr(StructuredPlan, "of", lambda *given: made.append(given) or of(*given))
    for _ in range(3):
        found = kt.empirical_ntk(model, 9 + X)
    assert len(made) == 2  # the second of them without the layer that the first batch has left
    torch.testing.assert_close(found, kt.empirical_ntk(model, 9 + X, method="jacobian"), rtol=1e-9, atol=1e-11)


def test_a_model_that_vmap_refuses_later_is_captured_in_batches():
    """A kept plan is of no use then, also not for fewer samples; "structured" is not refused, and a batch that differs is seen."""
    model = Switched(asks, a=nn.Linear(4, 4), head=nn.Linear(4, 3))
    calls = [(which, x, "structured") for which, x in ((0, X), (0, X[:4]), (0, X), (1, X), (1, X[:4]))]
    calls += [
        (which, x, "auto") for which, x in ((1, 9 + X), (1, X), (0, X))
    ]  # a layer is left to its Jacobian from then on
    for which, x, method in calls:
        model.which = which
        found, expected = kt.empirical_ntk(model, x, method=method), kt.empirical_ntk(model, x, method="jacobian")
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_weights_that_train_need_no_new_plan():
    model = MODELS["another layer"]()
    for _ in range(4):
        found, expected = kt.empirical_ntk(model, X), kt.empirical_ntk(model, X, method="jacobian")
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))


#: What couples samples, or spoils them, from a later call on, though the witness sees the same structure: by the outputs, by
#: the derivative alone, by what only other samples' rows show.
COUPLED = {
    "mean in the outputs": lambda m, x: m.head(x + m.which * (x.mean(0) - x).detach()),
    "mean in the derivative": lambda m, x: _mixed(m.head(x).tanh(), m.which),
    "neighbour in the derivative": lambda m, x: _rolled(m.a(x).tanh(), m.which) @ m.head.weight.T,
}


class _Mix(torch.autograd.Function):
    """The identity; its backward pass adds ``by`` times what ``spread`` makes of the batch's gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, by, rolled):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.by, ctx.rolled = inputs

    @staticmethod
    def backward(ctx, gradient):
        other = gradient.roll(1, 0) if ctx.rolled else gradient.mean(0, keepdim=True).expand_as(gradient)
        return gradient + ctx.by * (other - gradient), None, None


def _mixed(y, by):
    return _Mix.apply(y, by, False)


def _rolled(y, by):
    return _Mix.apply(y, by, True)


def batched(forward):
    """The same, of a model that vmap refuses because it asks for a value."""
    return lambda m, x: forward(m, x + 0 * bool((x > 99).any()))


@pytest.mark.parametrize("name", COUPLED)
@ASKED
def test_a_coupling_of_a_later_call_is_refused(name, asked):
    refused(Switched(COUPLED[name], a=nn.Linear(4, 4), head=nn.Linear(4, 4)), X, asked)


@pytest.mark.parametrize(("count", "output"), [(2, "sum"), (6, "full")])
@pytest.mark.parametrize("name", COUPLED)
def test_a_coupling_in_later_batches_is_refused(name, count, output):
    """The capture is a batch itself: a mean of two outputs is the same in a batch of these two, and not of one alone."""
    model = Switched(batched(COUPLED[name]), a=nn.Linear(4, 4), head=nn.Linear(4, 4))
    refused(model, X[:count], {"output": output})


def refused(model, x, asked):
    """A model that couples from the fifth call on is refused, and accepted where it does not any more."""
    for _ in range(4):
        kt.empirical_ntk(model, x, **asked)
    model.which = 1
    with pytest.raises(UnsupportedModelError, match="couples samples"):
        kt.empirical_ntk(model, x, **asked)
    model.which = 0
    kt.empirical_ntk(model, x, **asked)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@ASKED
def test_outputs_that_are_no_longer_finite_are_refused(value, asked):
    model = nn.Linear(4, 3).double()
    for _ in range(4):
        kt.empirical_ntk(model, X, **asked)
    with torch.no_grad():
        model.bias[1] = value
    with pytest.raises(UnsupportedModelError, match="finite"):
        kt.empirical_ntk(model, X, **asked)


@ASKED
def test_a_forward_pass_that_becomes_random_is_refused(asked):
    model = Switched(lambda m, x: m.head(x) * (1 + m.which * torch.rand(1).item()), head=nn.Linear(4, 3))
    for _ in range(4):
        kt.empirical_ntk(model, X, **asked)
    model.which = 1
    with pytest.raises(UnsupportedModelError, match="random"):
        kt.empirical_ntk(model, X, **asked)


@ASKED
def test_other_samples_are_looked_at_closely(asked):
    """Coupled where samples are large and more than are compared at every call: the kept plan knows nothing of these."""
    model = Switched(lambda m, x: m.head(x + (x - x.mean(0)) * (x.amax() > 100) * (len(x) > FEW)), head=nn.Linear(4, 3))
    for _ in range(4):
        kt.empirical_ntk(model, X, **asked)
    with pytest.raises(UnsupportedModelError):
        kt.empirical_ntk(model, 1000 * X, **asked)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize(
    ("method", "way", "sizes"),
    [("auto", lambda f: f, [1, 3]), ("jacobian", lambda f: f, [1, 3]), ("auto", batched, [6, 3, 1])],
    ids=["auto", "jacobian", "batches"],
)
def test_a_warm_call_looks_at_three_samples(outputs, method, way, sizes):
    """Oracle: the batches that the model is called with: a sample under vmap for all of them, and one of three samples.

    A model that vmap refuses is called with all samples, and with three of them, and with one alone.
    """
    seen = []
    model = Switched(way(lambda m, x: (seen.append(len(x)), m.head(x))[1]), head=nn.Linear(4, outputs))
    for _ in range(6):  # the sixth is not audited
        seen.clear()
        kt.empirical_ntk(model, X, method=method)
    assert seen == sizes


def test_on_a_cpu_a_look_takes_no_backward_pass_of_its_own(machine, monkeypatch):
    """Oracle: a count. Of several outputs u is mixed of their gradients; where launches count, it is a row of the one pass."""
    model = Switched(lambda m, x: m.head(m.a(x)), a=nn.Linear(4, 512), head=nn.Linear(512, 2))
    passes, grad = [], torch.autograd.grad
    for _ in range(3):
        monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k))
        passes.clear()
        kt.empirical_ntk(model, X.repeat(300, 1), output="trace")
    assert len(passes) == (
        2 if machine == "accelerator" else 3
    )  # that of the three samples is one; a weight itself needs none


@pytest.mark.parametrize(("which", "copied"), [(0, False), (1, True)])
def test_results_are_copied_only_where_the_model_writes(which, copied, monkeypatch):
    """Oracle: the memory that the model gets. A weight's first result is a leaf, and a copy for that reason; the second is none."""
    model, handed, hand = MODELS["writes in place"](), [], Record.hand
    model.which = which

    def seen(record, y):
        given = hand(record, y)
        handed.append(given.data_ptr() != y.data_ptr())
        return given

    for _ in range(3):
        kt.empirical_ntk(model, X)
    monkeypatch.setattr(Record, "hand", seen)
    kt.empirical_ntk(model, X)
    assert handed[-1] == copied
