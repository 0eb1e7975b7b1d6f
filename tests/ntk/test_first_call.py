"""A first call: one plain pass of all samples serves every check that needs one, and sees what the passes before it saw.

Oracles: counts of rows that go through a model; an error that is put into a kernel, seen in Θv; forward mode.
"""

import importlib
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.parametrizations import weight_norm

import kerneltrack as kt
from kerneltrack.errors import KernelError, UnsupportedModelError
from kerneltrack.ntk.methods import KernelOptions, KernelRequest, rounding
from kerneltrack.ntk.network import Network
from tests.ntk.models import With

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
room = importlib.import_module("kerneltrack.ntk.methods.audit")


def net(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def asks(m, x):
    """vmap refuses it: it asks for a value."""
    return m.net(x) if bool((x < 9).all()) else m.net(x - 9)


@pytest.mark.parametrize("build", [net, lambda: With(asks, net=net())], ids=["vmap", "batches"])
def test_passes_of_all_samples_are_shared(build):
    """The kernel's capture and the plain pass: twice all samples, and some alone."""
    model, rows = build(), []
    model.register_forward_hook(lambda module, given, outputs: rows.append(len(outputs)))
    kt.empirical_ntk(model, X, method="structured")
    assert sum(count for count in rows if count > len(X) // 4) <= 2 * len(X)
    assert sum(count for count in rows if count <= len(X) // 4) <= 32


@pytest.mark.parametrize("build", [net, lambda: With(asks, net=net())], ids=["vmap", "batches"])
def test_an_audited_call_runs_them_twice_too(build):
    """The second: its capture and a plain pass, a few neighbours beside the kernel, and some samples alone."""
    model, rows = build(), []
    kt.empirical_ntk(model, X, method="structured")
    model.register_forward_hook(lambda module, given, outputs: rows.append(len(outputs)))
    kt.empirical_ntk(model, X, method="structured")  # the hook is another plan, which is made anew
    rows.clear()
    kt.empirical_ntk(model, X, method="structured")
    assert sum(count for count in rows if count > len(X) // 4) <= 2 * len(X)
    assert sum(count for count in rows if count <= len(X) // 4) <= 12


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_forward_mode_is_not_asked_of_torchs_own_operations(monkeypatch, output):
    """Where it is met first it imports, and scripts, what takes a quarter of a second, and another one with norms. Calls 1, 2 and 4
    are audited."""
    for name in ("pushforward", "witness"):
        module = importlib.import_module(f"kerneltrack.ntk.network.{name}")
        monkeypatch.setattr(module, "forward_mode", lambda *given: pytest.fail("forward mode"))
    model = net()
    for _ in range(4):
        kt.empirical_ntk(model, X, output=output)


@pytest.mark.parametrize(
    "build", [net, lambda: With(asks, net=net()), lambda: weight_norm(net()[0])], ids=["plain", "asks", "expressed"]
)
def test_no_cotangent_is_handed_to_torch(monkeypatch, machine, build):
    """For a tensor torch.autograd.grad imports its symbolic shapes, and SymPy. Oracle: what it is called with."""
    machine(backward_rows=0)  # passes of several outputs have no other way
    real = torch.autograd.grad

    def watched(outputs, inputs, grad_outputs=None, **options):
        assert grad_outputs is None
        return real(outputs, inputs, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    model = build()
    for _ in range(2):
        kt.empirical_ntk(model, X)


def larger(m, x):
    """Another network for more than eight samples; a few alone and three of them show nothing."""
    return m.b(x) if len(x) > 8 else m.a(x)


def larger_and_asks(m, x):
    return larger(m, x if bool((x < 9).all()) else x - 9)


def longer_and_asks(m, x):
    """The batch's capture fails, because its layers are called in another way than those of a few."""
    return m.c(larger_and_asks(m, x)) if len(x) > 8 else larger_and_asks(m, x)


def in_the_derivative(m, x):
    """f has the values of one sample alone, and above eight samples the derivative of another f."""
    h = m.a(x) if bool((x < 9).all()) else m.a(x - 9)
    mean = h.mean(0) if len(x) > 8 else h[:1]
    return h + (mean - mean.detach()) * (len(x) > 8)


@pytest.mark.parametrize(
    ("rule", "method"),
    [*itertools.product([larger, longer_and_asks], ["auto", "structured", "jacobian"]), (in_the_derivative, "auto")],
)
def test_what_only_all_samples_show_is_refused_behind_the_kernel(rule, method):
    """By construction. The message is that of coupling, whatever became of the kernel before, and the next call says it again."""
    model = With(rule, a=nn.Linear(5, 3), b=nn.Linear(5, 3), c=nn.Linear(3, 3)).double()
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="couples samples"):
            kt.empirical_ntk(model, X[:10], method=method)
        known = (network := Network(model)).known(network.inputs(X[:10]))
        assert known.batched is None
        assert not known.accepted
    kernel = kt.empirical_ntk(model, X[:4])  # of four it is one network, and right
    a = model.a.weight.new_tensor([[1.0]]) + X[:4] @ X[:4].T
    assert torch.allclose(kernel, a[:, :, None, None] * torch.eye(3), rtol=0, atol=1e-12)


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return 3 * g

    @staticmethod
    def jvp(ctx, t):
        return 2 * t


class WrongInPlace(Wrong):
    @staticmethod
    def forward(x):
        return x.mul_(2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(*inputs)

    @staticmethod
    def jvp(ctx, t):
        return t.mul_(2)


def written(x):
    """The node that is wrong is inside that of a slice, where no walk over the graph finds it."""
    y = x.clone()
    WrongInPlace.apply(y[:, :2])
    return y


def trebled(x):
    with saved_tensors_hooks(lambda t: 3 * t, lambda t: t):
        return x * x


def hooked_node(x):
    y = x.sin()
    if y.grad_fn is not None:
        y.grad_fn.register_hook(lambda inputs, outputs: (3 * inputs[0],))
    return y


FOREIGN = {
    "a backward pass of its own": Wrong.apply,
    "written into a slice": written,
    "saved in another way": trebled,
    "a hook on a node": hooked_node,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_derivative_than_the_forward_passs_is_seen(name):
    """Oracle: forward mode, by what each of these does: reverse mode is three times or half as large again somewhere."""
    model = With(lambda m, x: m.head(FOREIGN[name](m.a(x))), a=nn.Linear(5, 4), head=nn.Linear(4, 2)).double()
    network = Network(model)
    assert "a backward pass of its own" in network.sight(network.inputs(X)).uncapturable


ALIKE = {
    "a backward pass of its own": lambda x: 2 * x,
    "written into a slice": lambda x: torch.cat([2 * x[:, :2], x[:, 2:]], 1),
    "saved in another way": torch.square,
    "a hook on a node": torch.sin,
}


@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("name", FOREIGN)
def test_an_audited_call_asks_the_witness_anew(name, output):
    """By construction: f stays, and its backward pass becomes another one, which no plan's key tells. Call 2 is audited, and both
    of its ways are reverse mode."""
    how = [ALIKE[name]]
    model = With(lambda m, x: m.head(how[-1](m.a(x))), a=nn.Linear(5, 4), head=nn.Linear(4, 2)).double()
    kt.empirical_ntk(model, X, output=output)
    how.append(FOREIGN[name])
    with pytest.raises(KernelError, match="something else than in earlier calls"):
        kt.empirical_ntk(model, X, output=output)


def wrong_pair(theta):
    theta[3, 50] += 1
    theta[50, 3] += 1


def wrong_block(theta):
    theta[30:, 30:] *= 1.5


def wrong_outputs(theta):
    """Outputs exchanged on one side of some pairs."""
    pairs = theta[:9, 9:].reshape(3, 3, -1, 3).flip(1).reshape(9, -1)
    theta[:9, 9:] = pairs.clone()
    theta[9:, :9] = pairs.T.clone()


FAULTS = {
    "a pair": wrong_pair,
    "a block": wrong_block,
    "outputs": wrong_outputs,
    "a row and column": lambda theta: (theta[7].mul_(2), theta[:, 7].mul_(2)),
    "the diagonal": lambda theta: theta.diagonal().mul_(1.1),
    "everything": lambda theta: theta.mul_(1.001),
}


@pytest.fixture(scope="module")
def formed():
    """A request that has been looked at, its kernel as a matrix, and by passes alone."""
    request = KernelRequest.of(net(), X, None, KernelOptions(metric=0.5))
    kernel = kt.empirical_ntk(request.network.module, X, metric=0.5)
    return request, kernel.transpose(1, 2).reshape(request.matrix_shape[1:])


@pytest.mark.parametrize("name", FAULTS)
def test_the_plain_pass_sees_what_passes_see(formed, name):
    """Oracle: the smallest multiple of an error E for which the largest entry of Ev is more than rounding in Θv."""
    request, theta = formed
    assert room.agrees_with_plain_pass(request, {"": theta[None]}, request.plain)
    error = theta.clone()
    FAULTS[name](error)
    error -= theta
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(len(X)), dtype=torch.float64)
    least = rounding(theta.dtype, float((theta.abs() @ v.abs()).max())) / float((error @ v).abs().max())
    assert not room.agrees_with_plain_pass(request, {"": (theta + 1.5 * least * error)[None]}, request.plain)


@pytest.fixture(scope="module")
def traced():
    """A request of a trace, and its kernel."""
    request = KernelRequest.of(net(), X, None, KernelOptions(metric=0.5, output="trace"))
    return request, kt.empirical_ntk(request.network.module, X, metric=0.5, output="trace")


@pytest.mark.parametrize(
    "name", [name for name in FAULTS if name not in ("a pair", "a block", "outputs", "a row and column")]
)
def test_squares_see_what_passes_see(traced, name):
    """Oracle: as above, of the three samples that are asked of."""
    request, theta = traced
    few, rows = request.x1.rows(0, 3), slice(0, 3)
    assert room._agrees_with_squares(request, {"": theta[None]}, few, rows)
    error = theta.clone()
    FAULTS[name](error)
    error = (error - theta)[rows, rows]
    v = torch.randn(3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    least = rounding(theta.dtype, float((theta[rows, rows].abs() @ v.abs()).max())) / float((error @ v).abs().max())
    wrong = theta.clone()
    wrong[rows, rows] += 1.5 * least * error
    assert not room._agrees_with_squares(request, {"": wrong[None]}, few, rows)


@pytest.fixture(scope="module")
def explained():
    """What a first call compares the uses of a batch by: see :func:`kerneltrack.ntk.methods.batched.differing`."""
    given = []
    execution = importlib.import_module("kerneltrack.ntk.methods.execution")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "differing", lambda *own: given.append(own) or [])
        kt.empirical_ntk(With(asks, net=net()), X)
    return given[0]


UNEXPLAINED = {
    "an entry": lambda part, size: part[1, 2].add_(size),
    "a row": lambda part, size: part[1].add_(size),
    "a column": lambda part, size: part[:, 2].sub_(size),
    "outputs": lambda part, size: part.add_(part.flip(0) - part, alpha=size),
    "inputs": lambda part, size: part.add_(part.flip(1) - part, alpha=size),
    "everything": lambda part, size: part.mul_(1 + size),
}


@pytest.mark.parametrize("name", UNEXPLAINED)
@pytest.mark.parametrize("weight", ["net.0.weight", "net.2.weight"])
def test_projected_uses_see_what_all_entries_see(monkeypatch, explained, weight, name):
    """Oracle: the smallest of errors, each twice the one before, that a comparison of all entries of Jᵀu sees."""
    *given, plain = explained
    room = importlib.import_module("kerneltrack.ntk.methods.batched")

    def unlike(size):
        wrong = {key: part.clone() for key, part in plain.pulled.items()}
        UNEXPLAINED[name](wrong[weight], size)
        return room.differing(*given, replace(plain, pulled=wrong))

    assert not unlike(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(room, "_confirmed", lambda *own: set())
        least = next(size for size in (2.0**-k for k in range(40, 0, -1)) if unlike(size))
    assert unlike(least) == [weight]


def test_a_projection_confirms_linear_maps(monkeypatch, explained):
    """So that it spares what it is there for: no linear map is multiplied out."""
    room, products = importlib.import_module("kerneltrack.ntk.methods.batched"), []
    real = room._pulled
    monkeypatch.setattr(room, "_pulled", lambda parts, *rest: products.extend(parts) or real(parts, *rest))
    assert not room.differing(*explained)
    assert [use.form for use, _ in products] == ["features"] * 2
