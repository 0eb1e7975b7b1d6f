"""A forward pass that draws random numbers.

Oracle: the generators' states before and after, bit for bit, and for accepted models the double loop over autograd.
"""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def noisy(draw, g=None):
    """y + t · noise, where the strength t is a parameter that starts at zero; g is a generator of the module's own."""
    model = With(lambda m, x: m.layer(x) + m.t * draw(m), layer=nn.Linear(4, 3))
    model.t, model.g = nn.Parameter(torch.zeros(())), g
    return model.double().eval()


def derivative_only():
    def forward(m, x):
        c = m.layer(x) * torch.rand(3, dtype=x.dtype)
        return m.layer(x) + c - c.detach()

    return With(forward, layer=nn.Linear(4, 3)).double()


RANDOM = {
    "torch": lambda: noisy(lambda m: torch.randn(3, dtype=torch.float64)),
    "python": lambda: noisy(lambda m: random.gauss(0, 1)),
    "numpy": lambda: noisy(lambda m: torch.from_numpy(np.random.randn(3))),
    "own": lambda: noisy(lambda m: torch.randn(3, generator=m.g, dtype=torch.float64), g=torch.Generator()),
    "own-numpy": lambda: noisy(lambda m: float(m.g.normal()), g=np.random.default_rng(0)),
    "own-legacy": lambda: noisy(lambda m: float(m.g.normal()), g=np.random.RandomState(0)),
    "own-python": lambda: noisy(lambda m: m.g.random(), g=random.Random(0)),
    "in-the-derivative": derivative_only,
    "a coin": lambda: noisy(lambda m: torch.bernoulli(torch.tensor(0.5, dtype=torch.float64))),
    "python's coin": lambda: noisy(lambda m: random.choice([0.0, 1.0])),
    "rarely": lambda: noisy(lambda m: float(np.random.rand() < 0.2)),
    "dropout": lambda: With(lambda m, x: F.dropout(m.layer(x), 0.5, training=True), layer=nn.Linear(4, 3)).double(),
}


def drawing(m, x):
    torch.rand(2), random.random(), np.random.rand()
    return m.layer(x)


HARMLESS = {
    "unused": lambda: With(drawing, layer=nn.Linear(4, 3)).double(),
    "dropout-0": lambda: With(lambda m, x: F.dropout(m.layer(x), 0.0, training=True), layer=nn.Linear(4, 3)).double(),
    "times-frozen-zero": lambda: frozen(noisy(lambda m: torch.randn(3, dtype=torch.float64))),
}


def frozen(model):
    model.t.requires_grad_(False)
    return model


CALLS = {
    "auto": lambda m: kt.empirical_ntk(m, X),
    "jacobian": lambda m: kt.empirical_ntk(m, X, method="jacobian"),
    "products": lambda m: kt.empirical_ntk(m, X, method="products"),
    "operator": lambda m: kt.NTKOperator(m, X),
    "plan": lambda m: kt.ntk_plan(m, X),
}


def own(model):
    g = getattr(model, "g", None)
    if isinstance(g, np.random.Generator):
        return repr(g.bit_generator.state)
    state = getattr(g, "getstate", getattr(g, "get_state", lambda: None))()
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else repr(state)


def states(model):
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes(), own(model)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", RANDOM)
def test_noise_is_refused_whatever_its_values(name, call):
    model = RANDOM[name]()
    before = states(model)
    with pytest.raises(UnsupportedModelError, match="random"):
        CALLS[call](model)
    assert states(model) == before


def inside(part):
    """A model that is sober but for one part of a part."""
    body = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), part))
    return nn.ModuleDict({"body": body, "head": nn.Linear(4, 3)}).double()


def through(model, x):
    return model["head"](model["body"](x))


class Draws(nn.Module):
    """x times a factor near 1 that is drawn by ``draw``."""

    def __init__(self, draw, generator=None):
        super().__init__()
        self.draw, self.generator = draw, generator

    def forward(self, x):
        return x * (1 + 0.1 * float(self.draw(self.generator)))


WHERE = {
    "torch": Draws(lambda g: torch.rand(())),
    "python": Draws(lambda g: random.random()),
    "numpy": Draws(lambda g: np.random.rand()),
    "own": Draws(lambda g: torch.rand((), generator=g), torch.Generator()),
    "own-numpy": Draws(lambda g: g.normal(), np.random.default_rng(0)),
    "own-python": Draws(lambda g: g.random(), random.Random(0)),
    "functional": With(lambda m, x: F.dropout(x, 0.5, training=True)),
    "alpha": With(lambda m, x: F.alpha_dropout(x, 0.5, training=True)),
    "gumbel": With(lambda m, x: F.gumbel_softmax(x)),
    "only-in-a-batch": With(lambda m, x: x * torch.rand(()) if len(x) > 2 else x),
}


@pytest.mark.parametrize("name", WHERE)
def test_the_module_that_drew_is_named(name):
    """The innermost one; those around it and those that follow are not."""
    with pytest.raises(UnsupportedModelError, match="random") as raised:
        kt.empirical_ntk(inside(WHERE[name]), X, forward=through)
    assert raised.value.where == "module 'body.1.1'"


def test_every_place_where_numbers_are_drawn_is_named():
    """Two modules, the same one in two places once, the root, and forward= itself."""
    noise = Draws(lambda g: torch.rand(()))
    model = nn.Sequential(noise, nn.Linear(4, 4), nn.Sequential(Draws(lambda g: random.random())), noise).double()
    with pytest.raises(UnsupportedModelError, match=r"random numbers.*in module '0', module '2.0'\)") as raised:
        kt.empirical_ntk(model, X)
    assert raised.value.where == "module '0', module '2.0'"
    with pytest.raises(UnsupportedModelError) as raised:
        kt.empirical_ntk(RANDOM["torch"](), X)
    assert raised.value.where == "module '(root)'"
    with pytest.raises(UnsupportedModelError) as raised:
        kt.empirical_ntk(nn.Linear(4, 3).double(), X, forward=lambda m, x: m(x) * torch.rand(()))
    assert raised.value.where == "forward="
    many = nn.Sequential(*(Draws(lambda g: torch.rand(())) for _ in range(6)), nn.Linear(4, 3)).double()
    with pytest.raises(UnsupportedModelError) as raised:
        kt.empirical_ntk(many, X)
    assert raised.value.where.endswith("module '3' and 2 more")


@pytest.mark.parametrize("name", HARMLESS)
def test_draws_that_do_not_matter_are_accepted(name):
    model = HARMLESS[name]()
    rows = jacobian(model, X)
    before = states(model)
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, X, method=method), contract(rows, rows, "full")) < EXACT
    operator = kt.NTKOperator(model, X)
    operator.matvec(torch.ones(operator.shape[0], dtype=torch.float64))
    kt.linearize(model)(X, {})
    assert states(model) == before


@pytest.mark.parametrize("call", CALLS)
def test_noise_that_comes_later_is_refused(call):
    """A Python flag, after a first call that was right."""
    model = With(lambda m, x: m.layer(x) + (torch.randn(3) if m.flag else 0.0), layer=nn.Linear(4, 3)).double()
    model.flag = False
    CALLS[call](model)
    model.flag = True
    with pytest.raises(UnsupportedModelError, match="random"):
        CALLS[call](model)


def test_linearize_refuses_noise():
    linear = kt.linearize(RANDOM["torch"]())
    with pytest.raises(UnsupportedModelError, match="random"):
        linear(X)
