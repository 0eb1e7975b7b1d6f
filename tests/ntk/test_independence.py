"""Samples that are coupled, in values or in derivatives only, at the first call or at a later one.

Oracle: by construction. A model here is coupled where its batch and its single samples have two kernels, which
``test_the_coupled_models_are_coupled`` shows by a double loop over autograd in float64; false alarms are models whose
two kernels are one.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from tests.ntk.models import With
from tests.ntk.oracles import SINGLE, contract, distance, jacobian
from tests.tiers import one_in

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
#: Positive in the first entry as a whole and in halves, negative in two of six samples.
SIDES = X + 9 * torch.tensor([1.0, -1, 1, 1, -1, 1], dtype=torch.float64)[:, None] * (torch.arange(4) == 0)


class Gate(nn.Module):
    """Mixes the batch once the gate opens; with the gate shut, in the derivative by the gate alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate = nn.Linear(4, 8), nn.Linear(8, 3), nn.Parameter(torch.zeros(8))
        self.centred = self.far = False

    def forward(self, x):
        h = torch.tanh(self.a(x))
        z = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
        if self.centred or (self.far and bool((x.abs() > 10).any())):
            h = h - h.mean(0)
        return self.b(h + self.gate * z)


class Branch(nn.Module):
    """One of two networks, by the sign of the whole batch's sum."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))) if x.sum() > 0 else self.c(x)


def rule(forward):
    return lambda: With(forward, layer=nn.Linear(4, 3))


def shifted(c):
    return c - c.detach()


COUPLED = {
    "gate-in-the-derivative": (Gate, X),
    "branch": (Branch, SIDES),
    "detached-mean": (rule(lambda m, x: m.layer(x) + shifted(m.layer(x).mean(0))), X),
    "behind-an-offset": (rule(lambda m, x: m.layer(x).softmax(0) + 1e6), X),
    "one-percent": (rule(lambda m, x: m.layer(x) - 0.01 * m.layer(x).mean(0)), X),
    "more-than-four": (rule(lambda m, x: m.layer(x) * (2 if len(x) > 4 else 1)), X),
    "one-of-many-outputs": (rule(lambda m, x: torch.cat([1e3 * m.layer(x), m.layer(x).softmax(0)[:, :1]], 1)), X),
    "last-sees-first": (rule(lambda m, x: m.layer(x + torch.cat([x[:1] * 0, x[:-1]]))), X),
}
CALLS = {
    "auto": lambda m, x: kt.empirical_ntk(m, x),
    "jacobian": lambda m, x: kt.empirical_ntk(m, x, method="jacobian"),
    "products": lambda m, x: kt.empirical_ntk(m, x, method="products"),
    "operator": lambda m, x: kt.NTKOperator(m, x),
    "plan": lambda m, x: kt.ntk_plan(m, x),
}
every_call = pytest.mark.parametrize("call", CALLS)


def refused(call, model, x):
    with pytest.raises(UnsupportedModelError, match="couples samples"):
        CALLS[call](model, x)


@pytest.mark.parametrize("name", COUPLED)
def test_the_coupled_models_are_coupled(name):
    build, x = COUPLED[name]
    model = build().double()
    parameters = list(model.parameters())
    together = torch.stack(
        [
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(
                        parameters,
                        torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True),
                        strict=True,
                    )
                ]
            )
            for value in model(x).flatten()
        ]
    )
    alone = np.concatenate([block.reshape(len(together), -1) for block in jacobian(model, x).values()], 1)
    assert (
        np.abs(together.numpy() - alone).max() > 1e-5 * np.abs(alone).max()
    )  # a double loop in float64 rounds at some 1e-14


@every_call
@pytest.mark.parametrize("name", COUPLED)
def test_coupled_samples_are_refused(name, call):
    build, x = COUPLED[name]
    refused(call, build().double(), x)


@every_call
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_lower_precision_too(dtype, call):
    refused(call, Gate().to(dtype), X.to(dtype))


def shut():
    model = Gate().double()
    model.gate.requires_grad_(False)
    return model


LATER = {"a gate opens": lambda m: m.gate.data.fill_(1.0), "a flag is set": lambda m: setattr(m, "centred", True)}


@every_call
@pytest.mark.parametrize("change", LATER)
def test_a_state_that_couples_later(change, call):
    """What was right of this module before is asked again."""
    model = shut()
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X), contract(rows, rows, "full")) < SINGLE
    CALLS[call](model, X)
    LATER[change](model)
    refused(call, model, X)


@every_call
def test_a_first_call_with_one_sample(call):
    model = rule(lambda m, x: m.layer(x) - m.layer(x).mean(0) * (len(x) > 1))().double()
    CALLS[call](model, X[:1])
    refused(call, model, X)


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_the_second_samples_are_asked_too(method):
    model = shut()
    model.far = True
    with pytest.raises(UnsupportedModelError, match="couples samples"):
        kt.empirical_ntk(model, X, 20 * X, method=method)


@every_call
@pytest.mark.parametrize(
    ("build", "first", "then"),
    [(Branch, X.abs() + 1, SIDES), (lambda: far(), X, torch.where(torch.arange(6)[:, None] == 3, 40 * X, X))],
    ids=["branch", "one far sample"],
)
def test_other_samples_of_the_same_shape(build, first, then, call):
    model = build().double()
    CALLS[call](model, first)
    refused(call, model, then)


def far():
    model = shut()
    model.far = True
    return model


# ------------------------------------------------------------ false alarms


def mixed(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x).float()


class Adapted(nn.Module):
    """float32 adapters on a frozen bfloat16 body."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(64, 64).bfloat16().requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(64, 4) / 8), nn.Parameter(torch.randn(4, 64) / 2)
        self.head = nn.Linear(64, 5).bfloat16().requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.base(x.bfloat16()) + ((x @ self.a) @ self.b).bfloat16())).float()


class Upcast(nn.Module):
    """A norm in float32 inside a float64 network, as transformers' Llama has it."""

    def __init__(self):
        super().__init__()
        self.l, self.h = nn.Linear(64, 64), nn.Linear(64, 5)

    def forward(self, x):
        h = self.l(x).float()
        return self.h((h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype))


def net():
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10))


def deep():
    return nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 3))


PLAIN = {
    "batch-norm": lambda: nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 300)).eval(),
    "offset": lambda: With(lambda m, x: m.layer(x) + 1e6, layer=nn.Linear(64, 3)),
    "relu": deep,
    "gelu": net,
    "zero-head": lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), With(lambda m, x: m.l(x) * 0, l=nn.Linear(8, 3))),
    "constant": lambda: With(lambda m, x: m.l(x * 0), l=nn.Linear(64, 3)),
}
Y = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))


SAMPLES = {"all": Y, "the same nine times": Y[:1].expand(9, -1).clone(), "two": Y[:2]}
#: One column each of a kernel by products, before which the same question is asked as before a matrix-free operator's.
MANY = 200


DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize(("name", "dtype", "samples"), one_in(4, itertools.product(PLAIN, DTYPES, SAMPLES)), ids=str)
def test_rounding_is_no_coupling(name, dtype, samples):
    model, x = PLAIN[name]().to(dtype), SAMPLES[samples].to(dtype)
    for call in ("auto", "products" if model(x).numel() < MANY else "operator"):
        CALLS[call](model, x)


@pytest.mark.nightly
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_rounding_is_no_coupling_for_thousands_of_columns(dtype, samples):
    model = PLAIN["batch-norm"]().to(dtype)
    CALLS["products"](model, SAMPLES[samples].to(dtype))


def test_padding_is_no_coupling():
    """Tokens behind a sample's length are masked; the batch is trimmed to its longest."""

    def forward(m, x, lengths):
        x = x[:, : int(lengths.max())]
        hidden = torch.arange(x.shape[1]) >= lengths[:, None]
        return m.body(x, x, x, key_padding_mask=hidden, need_weights=False)[0].masked_fill(hidden[..., None], 0).sum(1)

    model = With(forward, body=nn.MultiheadAttention(8, 2, batch_first=True))
    inputs = (torch.randn(5, 6, 8), torch.tensor([6, 2, 4, 1, 3]))
    rows = jacobian(model, inputs)
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, inputs, method=method), contract(rows, rows, "full")) < SINGLE


@pytest.mark.parametrize(
    ("build", "forward", "dtype", "bound"),
    [(net, mixed, torch.float32, 2e-2), (Adapted, None, torch.float32, 2e-2), (Upcast, None, torch.float64, 1e-5)],
    ids=["autocast", "adapters", "upcast"],
)
def test_coarser_arithmetic_inside(build, forward, dtype, bound):
    """Oracle: the same formula without the coarse part, in float64; the bound is a few units of the coarse arithmetic."""
    model, x = build().to(dtype) if dtype is torch.float64 else build(), Y.to(dtype)
    exact = build().double()
    exact.load_state_dict(model.state_dict())
    formula = None
    if build is Adapted:
        formula = lambda m, x: m.head(torch.tanh(m.base(x) + (x @ m.a) @ m.b))  # noqa: E731
    if build is Upcast:
        formula = lambda m, x: m.h(m.l(x) * torch.rsqrt(m.l(x).square().mean(-1, keepdim=True) + 1e-6))  # noqa: E731
    rows = jacobian(exact, Y.double(), formula)
    for method in ("auto", "jacobian", "products"):
        kernel = kt.empirical_ntk(model, x, method=method, forward=forward)
        assert distance(kernel, contract(rows, rows, "full")) < bound
    operator = kt.NTKOperator(model, x, forward=forward)
    for _ in range(3):
        operator.matvec(torch.ones(operator.shape[0], dtype=dtype))
