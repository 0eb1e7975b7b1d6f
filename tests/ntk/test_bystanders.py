"""Samples that are coupled by less than half precision rounds. Oracle: by construction, coupling, or its absence.

A sample's row in a batch is compared with itself, bit by bit, beside other samples: nothing is rounded differently there.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError

X = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3))


def in_bfloat16(coupling):
    return net().bfloat16(), X.bfloat16(), lambda m, x: coupling(m, x)


def in_float16(coupling):
    return net().half(), X.half(), lambda m, x: coupling(m, x)


def in_autocast(coupling):
    def forward(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return coupling(m, x).float()

    return net(), X, forward


class Cast(nn.Module):
    """Computes in bfloat16 whatever it is converted to: no arithmetic of it is finer."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        state = {name: value.bfloat16() for name, value in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, state, (x.bfloat16(),))


def cast_inside(coupling):
    return Cast(net()), X, lambda m, x: coupling(m, x).float()


class Mixed(torch.autograd.Function):
    """The identity, whose backward pass adds a part of the batch's mean gradient to every sample's."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g + 0.05 * g.mean(0)


def large(y):
    return y.abs().amax(0).detach()


WAYS = {"bfloat16": in_bfloat16, "float16": in_float16, "autocast": in_autocast, "a cast inside": cast_inside}
COUPLINGS = {  # five per cent, in several ways
    "the mean": lambda m, x: (lambda y: y - 0.05 * y.mean(0))(m(x)),
    "a detached mean": lambda m, x: (lambda y: y - 0.05 * y.mean(0).detach())(m(x)),
    "a scale": lambda m, x: (lambda y: y * (1 + 0.05 * y.square().mean(0)))(m(x)),
    "one scale of all": lambda m, x: (lambda y: (y / large(y) * 32).round() / 32 * large(y) + 0 * y)(m(x)),
    "earlier samples": lambda m, x: (lambda y: y + 0.05 * (y.cumsum(0) - y))(m(x)),
    "later samples": lambda m, x: (lambda y: y + 0.05 * (y.sum(0) - y.cumsum(0)))(m(x)),
    "the neighbour": lambda m, x: (lambda y: y + 0.05 * y.roll(1, 0))(m(x)),
    "its inputs": lambda m, x: m(x + 0.05 * x.mean(0)),
    "its derivative": lambda m, x: Mixed.apply(m(x)),
    "large batches": lambda m, x: (lambda y: y - 0.05 * y.mean(0) if len(y) > 8 else y)(m(x)),
}


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("way", WAYS)
def test_five_per_cent_of_coupling_is_seen_in_half_precision(way, coupling):
    model, x, forward = WAYS[way](COUPLINGS[coupling])
    with pytest.raises(UnsupportedModelError, match="couples samples"):
        kt.empirical_ntk(model, x, forward=forward, method="jacobian")


class Routed(nn.Module):
    """Two experts: each sees the samples that are sent to it, in a batch of their own number."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(16, 2), nn.ModuleList([nn.Linear(16, 3), nn.Linear(16, 3)])

    def forward(self, x):
        chosen = self.gate(x).argmax(1)
        result = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero()[:, 0]
            result = result.index_add(0, mine, expert(x[mine]))
        return result + 0 * self.gate(x)[:, :1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.head = (
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.LayerNorm(4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        x = x.view(-1, 4, 4)
        return self.head(self.norm(x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


class SharedMaximum(nn.Module):
    """A softmax whose largest exponent is that of the whole batch: it cancels, up to rounding."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.body(x)
        e = (y - y.max()).exp()
        return self.head(e / e.sum(1, keepdim=True))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x.view(-1, 4, 4))[0][:, -1])


class Convolved(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.GELU(), nn.Flatten(),
            nn.Linear(96, 3),
        )  # fmt: skip


UNCOUPLED = (net, Routed, Attention, SharedMaximum, Recurrent, Convolved)


@pytest.mark.parametrize("build", UNCOUPLED, ids=lambda build: build.__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_no_false_alarm(build, dtype):
    """Also where bits do depend on the others: a constant that cancels, batches of the samples that are sent to an expert."""
    torch.manual_seed(0)
    model = build().to(dtype).eval()
    for samples in (X, X[:2], X[:1], X[:1].expand(5, -1)):
        assert kt.empirical_ntk(model, samples.to(dtype), output="trace", method="jacobian").isfinite().all()


@pytest.mark.parametrize("build", [net, Attention, Recurrent, Convolved], ids=lambda build: build.__name__)
def test_no_false_alarm_where_nothing_finer_exists(build):
    torch.manual_seed(0)
    model = Cast(build().eval())
    kernel = kt.empirical_ntk(model, X, output="trace", forward=lambda m, x: m(x).float(), method="jacobian")
    assert kernel.isfinite().all()


def test_a_second_call_costs_no_further_look(monkeypatch):
    """Once for each plan and set of samples; never in float32."""
    asked = []
    name = "kerneltrack.ntk.network.independence.refuse_bystanders"
    monkeypatch.setattr(name, lambda *given: asked.append(given[0].module))
    half, single = net().bfloat16(), net()
    for _ in range(3):
        kt.empirical_ntk(half, X.bfloat16(), method="jacobian")
        kt.empirical_ntk(single, X, method="jacobian")
    assert asked == [half]


WAYS_IN = {
    "auto": kt.empirical_ntk,
    "products": lambda *given, **options: kt.empirical_ntk(*given, method="products", **options),
    "an operator": lambda *given, **options: kt.NTKOperator(*given, **options).matvec(torch.ones(36).bfloat16()),
    "between two sets": lambda m, x, **options: kt.empirical_ntk(m, x[:1], x, **options),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_by_every_way_in(way):
    model, x, forward = in_bfloat16(COUPLINGS["the mean"])
    with pytest.raises(UnsupportedModelError, match="couples samples"):
        WAYS_IN[way](model, x, forward=forward)
