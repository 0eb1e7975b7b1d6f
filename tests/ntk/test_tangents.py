"""J v by forward mode, with tangents of an operation's two arguments summed in place, and without what torch scripts for it.

Oracle: two reverse passes in float64, which know no tangents; of what a forward pass differentiates by itself, the same.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk import Network, tangents
from kerneltrack.ntk.network import pushforward
from kerneltrack.ntk.network.pushforward import forward_mode, reverse_mode

#: Roundings of a sum of a few hundred products, in units of its size.
ROUNDED = 1e-13


class Slope(nn.Module):
    """f + Σ ∂f/∂x, differentiated inside: nobody may leave reverse mode without a graph."""

    def __init__(self, by_function=False):
        super().__init__()
        self.a, self.b, self.by_function = nn.Linear(3, 5), nn.Linear(5, 1), by_function

    def forward(self, x):
        if self.by_function:
            return torch.func.vmap(torch.func.grad(lambda one: self.b(torch.tanh(self.a(one))).sum()))(x)
        x = x.detach().requires_grad_()
        y = self.b(torch.tanh(self.a(x)))
        return y + torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum(1, keepdim=True)


class Curved(Slope):
    """A transform inside that is forward mode itself: dual numbers cannot be nested by themselves."""

    def forward(self, x):
        return torch.func.vmap(torch.func.hessian(lambda one: self.b(torch.tanh(self.a(one))).sum()))(x).flatten(1)


def frozen(module, *names):
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


def normed(norm):
    """With statistics and scales that are not those of an untrained norm."""
    torch.manual_seed(1)
    for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        if tensor is not None:
            tensor.data.uniform_(0.5, 2)
    return norm


def convolved(dim, *shape, **options):
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dim - 1]
    first, second = kind(2, 4, 3, padding=1), kind(4, 4, 3, **options)
    return nn.Sequential(nn.Unflatten(1, (2, *shape)), first, normed(norm(4)), nn.Tanh(), second, nn.Flatten())


#: name → (a network, numbers of a sample, how many of its operations have a rule).
CASES = {
    "rows": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2, bias=False)), 6, 2),
    "tokens": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Flatten()),
        6,
        2,
    ),
    "one convolution's axis": (lambda: convolved(1, 5, bias=False), 10, 3),
    "groups and strides": (lambda: convolved(2, 4, 4, groups=2, stride=2), 32, 3),
    "padded to the same": (lambda: convolved(2, 3, 3, padding="same", dilation=2), 18, 3),
    "volumes": (lambda: convolved(3, 3, 3, 3), 54, 3),
    "a norm of rows, in place": (
        lambda: nn.Sequential(nn.Linear(6, 4), normed(nn.BatchNorm1d(4)), nn.ReLU(True)),
        6,
        2,
    ),
    "a norm without a scale": (lambda: nn.Sequential(nn.Linear(6, 4), normed(nn.BatchNorm1d(4, affine=False))), 6, 1),
    "a norm whose scale is frozen": (
        lambda: frozen(nn.Sequential(nn.Linear(6, 4), normed(nn.BatchNorm1d(4))), "1.weight"),
        6,
        1,
    ),
    "a weight that is frozen": (
        lambda: frozen(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), "2.weight"),
        6,
        1,
    ),
    "a slope": (Slope, 3, 0),
    "a slope by a function": (lambda: Slope(by_function=True), 3, None),
    "a curvature": (Curved, 3, None),
}


@pytest.fixture(params=["dual numbers", "torch.func"])
def way(request, monkeypatch):
    """Whether something of this process has loaded torch's decompositions, after which torch.func.jvp is asked."""
    if request.param == "dual numbers":
        monkeypatch.delitem(sys.modules, pushforward._DECOMPOSITIONS, raising=False)
    else:
        monkeypatch.setitem(sys.modules, pushforward._DECOMPOSITIONS, ModuleType("loaded"))
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_is_what_reverse_mode_gives(name, way, monkeypatch):
    """Also counted: that the rules were asked, and in which cases they leave it to torch."""
    build, size, expected = CASES[name]
    torch.manual_seed(0)
    network, x, made = Network(build().double().eval()), torch.randn(4, size, dtype=torch.float64), []
    values = network.parameters
    direction = {key: torch.randn_like(value) for key, value in values.items()}
    real = tangents.dual
    monkeypatch.setattr(tangents, "dual", lambda primal, tangent: made.append(1) or real(primal, tangent))
    with network.evaluating():
        function = network._at(values, network.inputs(x))
        if name == "a slope" and way == "torch.func":  # whose transforms admit no torch.autograd.grad inside
            with pytest.raises(RuntimeError):
                forward_mode(function, values, direction)
            return
        outputs, pushed = forward_mode(function, values, direction)
        expected_outputs, moved = reverse_mode(function, values, direction)
    assert moved.abs().max() > 0.1
    torch.testing.assert_close(outputs, expected_outputs, rtol=ROUNDED, atol=ROUNDED)
    torch.testing.assert_close(pushed, moved, rtol=0, atol=ROUNDED * float(moved.abs().max()))
    assert expected is None or len(made) == expected


def test_forward_mode_of_usual_operations_scripts_nothing(monkeypatch):
    """torch.func.jvp imports, and scripts, what takes a quarter of a second of a process. Oracle: that it is not asked."""
    assert find_spec(pushforward._DECOMPOSITIONS) is not None
    monkeypatch.delitem(sys.modules, pushforward._DECOMPOSITIONS, raising=False)
    monkeypatch.setattr(pushforward, "jvp", lambda *given: pytest.fail("torch.func.jvp"))
    torch.manual_seed(0)
    network = Network(convolved(2, 4, 4).eval())
    assert network.jvp(torch.randn(3, 32), network.parameters).isfinite().all()
    assert pushforward._DECOMPOSITIONS not in sys.modules


def test_forward_mode_inside_a_function_of_autograd_moves(way):
    """There torch switches forward mode off. Oracle: reverse mode; without a tangent the answer would be zero."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    moved = {name: p + 1 for name, p in model.named_parameters()}
    expected = model(x) + x.sum(1, keepdim=True) + 1  # it is linear in its parameters: f + J·1
    found = kt.linearize(model)(x, moved)
    torch.testing.assert_close(found, expected, rtol=ROUNDED, atol=ROUNDED)
