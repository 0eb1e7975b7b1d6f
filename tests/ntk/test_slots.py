"""Modules and tensors that are registered more than once.

Oracle: the double loop over plain autograd (oracles.py), which knows nothing of names.
"""

import copy

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian


def head_beside_net():
    """A Lightning module that keeps self.head beside self.net, which contains it."""
    head = nn.Linear(4, 2)
    return With(lambda m, x: m.net(x), head=head, net=nn.Sequential(nn.Linear(4, 4), nn.Tanh(), head))


def list_with_one_module_three_times():
    layer = nn.Linear(4, 4)
    layers = nn.ModuleList([layer, nn.Linear(4, 4), layer, layer])

    def forward(m, x):
        for each in m.layers:
            x = torch.tanh(each(x))
        return x

    return With(forward, layers=layers)


def nested_wrappers():
    layer = nn.Linear(4, 4)
    wrapped = nn.Sequential(nn.Sequential(layer))
    return With(lambda m, x: m.a(x).tanh() + m.b(x) + m.c(x.tanh()), a=wrapped, b=nn.Sequential(layer), c=layer)


def list_beside_attributes():
    first, last = nn.Linear(4, 4), nn.Linear(4, 2)
    return With(
        lambda m, x: m.layers[1](torch.tanh(m.first(x))), first=first, last=last, layers=nn.ModuleList([first, last])
    )


def tensors_under_two_names():
    """A parameter under two names of one module and as a buffer; a buffer under two names."""
    model = With(lambda m, x: torch.tanh(x @ m.v + m.b) @ m.w.T + m.c + x @ m.as_buffer)
    model.v = nn.Parameter(torch.randn(4, 4))
    model.w = model.v
    model.register_buffer("as_buffer", model.v)
    model.register_buffer("b", torch.randn(4))
    model.register_buffer("c", model.b)
    return model


def batch_norm_twice():
    norm = nn.BatchNorm1d(4)
    norm.running_mean.add_(torch.randn(4))
    return With(lambda m, x: m.net(x), norm=norm, net=nn.Sequential(nn.Linear(4, 4), norm, nn.Tanh(), norm))


def recurrent_twice():
    rnn = nn.GRU(4, 3, batch_first=True)
    return With(
        lambda m, x: m.again[0](x[:, None])[0][:, 0] + m.rnn(x[:, None].tanh())[0][:, -1],
        rnn=rnn,
        again=nn.ModuleList([rnn]),
    )


def tied_inside_a_twice_registered_module():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = a.weight
    return With(lambda m, x: m.d(torch.tanh(m.a(x))) + m.b(x), a=a, b=b, d=nn.Sequential(b))


def parametrised_twice():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return With(lambda m, x: m.b(x), a=layer, b=nn.Sequential(layer, nn.Tanh(), layer))


SHARED = [
    head_beside_net, list_with_one_module_three_times, nested_wrappers, list_beside_attributes, tensors_under_two_names,
    batch_norm_twice, recurrent_twice, tied_inside_a_twice_registered_module, parametrised_twice,
]  # fmt: skip
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian", "products"])
@pytest.mark.parametrize("build", SHARED)
def test_every_method_has_the_plain_kernel(build, method):
    model = build().double().eval()
    named = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    values = copy.deepcopy(model).state_dict()
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X, method=method), contract(rows, rows, "full")) < EXACT
    after = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    assert all(after[name] is tensor for name, tensor in named.items())
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("build", SHARED)
def test_operator_plan_and_linearisation(build):
    model = build().double().eval()
    rows = jacobian(model, X)
    operator, dense = kt.NTKOperator(model, X), contract(rows, rows, "full")
    matrix = dense.transpose(0, 2, 1, 3).reshape(operator.shape)
    v = torch.randn(operator.shape[0], dtype=torch.float64)
    for _ in range(2):
        assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT
    assert kt.ntk_plan(model, X).shape == dense.shape
    assert torch.equal(kt.linearize(model)(X, {}), model(X))


def test_either_name_selects_the_parameter():
    model = head_beside_net().double()
    kernels = [kt.empirical_ntk(model, X, params=[f"{name}.weight"]) for name in ("head", "net.2")]
    assert torch.equal(*kernels)


def test_a_parameter_behind_a_plain_list_is_still_refused():
    model = With(lambda m, x: m.layer(x @ m.hidden[0]), layer=nn.Linear(4, 4)).double()
    model.w = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
    model.hidden = [model.w]
    with pytest.raises(UnsupportedModelError, match=r"not attributes: \['w'\]"):
        kt.empirical_ntk(model, X)


def test_a_parameter_that_hides_after_the_first_call_is_refused_too():
    """The second call asks again: a flag may send forward another way."""
    model = With(lambda m, x: m.layer(x @ (m.hidden[0] if m.flag else m.w)), layer=nn.Linear(4, 4)).double()
    model.w = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
    model.hidden, model.flag = [model.w], False
    kt.empirical_ntk(model, X)
    model.flag = True
    with pytest.raises(UnsupportedModelError, match="not attributes"):
        kt.empirical_ntk(model, X)


def lazily(make):
    """Holds what the first forward pass makes."""

    def forward(m, x):
        if getattr(m, "made", None) is None:
            make(m, torch.linspace(1, 2, 3, dtype=x.dtype))
        return m.layer(x) * m.made

    torch.manual_seed(0)
    return With(forward, layer=nn.Linear(4, 3)).double()


LAZY = {
    "attribute": lambda m, value: setattr(m, "made", value),
    "new buffer": lambda m, value: m.register_buffer("made", value),
    "empty buffer": lambda m, value: setattr(m, "made", value),
}


@pytest.mark.parametrize("how", LAZY)
def test_constants_that_the_first_pass_makes(how):
    """As tables of positions are. Buffers were refused, by an error of the swap. Oracle: the double loop, when it is there."""
    model, loop = lazily(LAZY[how]), lazily(LAZY[how])
    if how == "empty buffer":
        model.register_buffer("made", None)
    names = dict(vars(model)), dict(model._buffers)
    loop(X)
    rows = jacobian(loop, X)
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, X, method=method), contract(rows, rows, "full")) < EXACT
    assert (dict(vars(model)), dict(model._buffers)) == names


def test_a_parameter_that_the_first_pass_makes_is_refused():
    """It is in no list of parameters yet. One pass before the measurement, and it is one as others are."""
    model = lazily(lambda m, value: setattr(m, "made", nn.Parameter(value)))
    with pytest.raises(UnsupportedModelError, match=r"makes parameters: \['made'\]"):
        kt.empirical_ntk(model, X)
    model(X)
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X), contract(rows, rows, "full")) < EXACT
