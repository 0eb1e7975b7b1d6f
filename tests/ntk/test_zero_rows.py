"""Backward passes that leave out rows of zeros, multiply slopes of joined functions, and call the fused attention below vmap.

Oracle: the double loop over plain autograd in float64, which joins, skips and fuses nothing; attention by its formula there.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import kerneltrack as kt
from kerneltrack.ntk.capture import attention, pointwise, row_product, rules, segment, zero_rows
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

N, TOKENS, WIDTH = 3, 8, 4


def real(x):
    """Which tokens are no padding, as a model finds out: of each sample another number."""
    return torch.arange(x.shape[1]) < 5 + (x[:, 0, 0].abs() * 4).long().clamp(max=3).unsqueeze(1)


READ = {
    "first": lambda y, x: y[:, 0],
    "last": lambda y, x: y[:, -1],
    "two": lambda y, x: y[:, 2] * y[:, 6],
    "last real": lambda y, x: (y * (real(x) & ~real(x).roll(-1, 1)).unsqueeze(-1)).sum(1),
    "mean": lambda y, x: y.mean(1),
}
LINEAR = {
    "linear": lambda m, h: m.mid(h),
    "addmm": lambda m, h: torch.addmm(m.mid.bias, h.flatten(0, 1), m.mid.weight.T).unflatten(0, h.shape[:2]),
    "matmul": lambda m, h: h @ m.mid.weight.mT + m.mid.bias,
    "einsum": lambda m, h: torch.einsum("nti,oi->nto", h, m.mid.weight) + m.mid.bias,
}
FUNCTIONS = {
    "gelu": F.gelu,
    "gelu, tanh": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "spelt out": lambda h: 0.5 * h * (1.0 + torch.tanh(0.8 * (h + 0.044715 * torch.pow(h, 3.0)))),
    "quick": lambda h: h * torch.sigmoid(1.702 * h),
    "gated": lambda h: F.silu(h) * h.flip(-1),
    "erf": lambda h: h * 0.5 * (1.0 + torch.erf(h / 1.41)),
    "used twice": lambda h: (lambda u: (u * h - h.square()) + u.sin())(F.mish(h)),
    "both signs": lambda h: (1 - h.pow(2)) * (-h) - 2,
    "written to": lambda h: F.gelu(h).mul_(2) * h,
    "source written to": lambda h: (lambda c: (t := torch.tanh(c)) * c.mul_(3) + t.square())(h * 1),
    "norm": lambda h: F.layer_norm(h, h.shape[-1:]) * h,
}
#: Of the first kind vmap sees each sample; the second asks for a value, and is run as a batch.
CAPTURES = ("vmap", "batch")


def network(read="last", linear="linear", function="gelu", outputs=2, captured="vmap", dtype=torch.float64, mix=None):
    def forward(m, x):
        if captured == "batch" and bool(torch.isnan(x).any()):
            return x
        h = m.up(x).tanh()
        h = h + (h.mean(1, keepdim=True) if mix is None else mix(h, x))
        h = h + m.down(FUNCTIONS[function](LINEAR[linear](m, h)))
        return READ[read](m.head(h), x)

    torch.manual_seed(4)
    sizes = {"up": (WIDTH, 6), "mid": (6, 8), "down": (8, 6), "head": (6, outputs)}
    model = With(forward, **{name: nn.Linear(*size) for name, size in sizes.items()}).to(dtype).eval()
    return model, torch.randn(N, TOKENS, WIDTH, dtype=torch.float64).to(dtype)


@functools.cache
def expected(*given, mix=None):
    model, x = network(*given, mix=mix)
    with sdpa_kernel(SDPBackend.MATH):
        rows = jacobian(model, x)
    return contract(rows, rows, "full")


@pytest.fixture(autouse=True)
def functions_are_joined_whatever_the_number_of_outputs(monkeypatch):
    monkeypatch.setattr(rules, "JOINED_FROM", 1)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(pointwise, "LARGE", 0)
    monkeypatch.setattr(attention, "LARGE", 0)
    monkeypatch.setattr(zero_rows, "_LEAST", 1)
    with use(replace(Machine(), small_operations=0, backward_rows=1)):
        yield


def cases(*axes):
    """Their product; of the last axis one value each, in turns, the others by night."""
    found = []
    for place, first in enumerate(itertools.product(*axes[:-1])):
        for k, last in enumerate(axes[-1]):
            marks = () if place % len(axes[-1]) == k else pytest.mark.nightly
            found.append(pytest.param(*first, last, marks=marks))
    return found


@pytest.mark.parametrize(("linear", "read", "captured"), cases(LINEAR, READ, CAPTURES))
def test_whatever_is_read(linear, read, captured):
    given = read, linear, "gated", 1 + (read in ("two", "last real"))
    found = kt.empirical_ntk(*network(*given, captured), method="structured")
    assert distance(found, expected(*given)) < EXACT


@pytest.mark.parametrize(("read", "function", "outputs"), cases(("last", "mean"), FUNCTIONS, (1, 2)))
def test_whatever_function_of_entries(read, function, outputs):
    captured = CAPTURES[outputs - 1]
    found = kt.empirical_ntk(*network(read, "linear", function, outputs, captured), method="structured")
    assert distance(found, expected(read, "linear", function, outputs)) < EXACT


@pytest.mark.parametrize("captured", CAPTURES)
def test_in_single_precision_and_by_passes_of_several_outputs(captured):
    """Rounding: sums of some hundred terms of size one, in float32: 100 · 2⁻²⁴ · 16 is 1e-4."""
    given = "last", "linear", "spelt out", 3
    found = kt.empirical_ntk(*network(*given, captured, torch.float32), method="structured")
    assert distance(found.double(), expected(*given)) < 1e-4
    with use(replace(Machine(), small_operations=0)):
        found = kt.empirical_ntk(*network(*given, captured), method="structured")
    assert distance(found, expected(*given)) < EXACT
    with use(replace(Machine.accelerator(memory=8e9), recorded_bytes=0)):
        found = kt.empirical_ntk(*network(*given, captured), method="structured")
    assert distance(found, expected(*given)) < EXACT


def split(h):
    return h.unflatten(-1, (2, 3)).transpose(-3, -2)


def attending(**options):
    """Attention of two heads by scaled_dot_product_attention; ``mask`` makes one of x."""
    mask = options.pop("mask", None)

    def mix(h, x):
        own = split(h)
        y = F.scaled_dot_product_attention(own, own.flip(-1), 2 * own, None if mask is None else mask(x), **options)
        return y.transpose(-3, -2).flatten(-2)

    return mix


def padded(x):
    return real(x)[:, None, None, :].expand(-1, 1, x.shape[1], -1)


def blind(x):
    """The last token, which is read, sees nothing."""
    return padded(x) & (torch.arange(x.shape[1]) != x.shape[1] - 1).unsqueeze(-1)


def numbers(below):
    return lambda x: torch.zeros((), dtype=x.dtype).expand(blind(x).shape).masked_fill(~blind(x), below)


ATTENTION = {
    "plain": attending(),
    "causal": attending(is_causal=True),
    "scaled": attending(scale=0.3),
    "of each sample": attending(mask=padded),
    "shared": attending(mask=lambda x: torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(2)),
    "one that sees nothing": attending(mask=blind),
    "the same by infinity": attending(mask=numbers(-float("inf"))),
    "the same by the least number": attending(mask=numbers(torch.finfo(torch.float64).min)),
    "biased": attending(mask=lambda x: x[:, None, :, :1] * 0.2),
}


#: In a batch a row that large numbers mask is left to torch: there its own gradient is what counts.
NO_CASE = ("the same by the least number", "batch")


@pytest.mark.parametrize(
    ("kind", "captured", "read"),
    [case for case in cases(ATTENTION, CAPTURES, ("last", "two")) if case.values[:2] != NO_CASE],
)
def test_attention(kind, captured, read):
    given = read, "linear", "gelu", 2
    found = kt.empirical_ntk(*network(*given, captured, mix=ATTENTION[kind]), method="structured")
    assert distance(found, expected(*given, mix=ATTENTION[kind])) < EXACT


@pytest.mark.parametrize("shape", [(3, 3), (1, 3), (2, 3, 3), (1, 1, 3), (1, 2, 1, 3)], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_a_mask_that_lacks_axes_is_that_of_its_sample(shape, shared):
    """Oracle: each sample by itself, by torch's rules. There are as many samples as heads: an axis at the wrong place fits too."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 1, 2, 3, 4, generator=generator, dtype=torch.float64)
    masks = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    masks = masks[:1].expand_as(masks) if shared else masks
    own = attention._broadcast(masks[0] if shared else masks, 2, not shared)
    found = F.scaled_dot_product_attention(*(one.flatten(0, 1) for one in (q, k, v)), own)
    alone = [F.scaled_dot_product_attention(*one) for one in zip(q, k, v, masks, strict=True)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_what_is_left_out(monkeypatch):
    """Where one token is read ``head`` and ``down``, φ and ``mid`` have its rows alone; where all are, none is left out.

    And slopes are computed once, whatever the number of outputs.
    """
    found, calls = [], []
    for module in (row_product, pointwise):
        monkeypatch.setattr(module, "few_rows", lambda rows: (found.append(seen := zero_rows.few_rows(rows)), seen)[1])
    plain = segment.Segment.differentiated
    monkeypatch.setattr(segment.Segment, "differentiated", lambda self, g: calls.append(g) or plain(self, g))
    for captured in CAPTURES:
        found.clear()
        kt.empirical_ntk(*network("last", "linear", "gelu", 1, captured), method="structured")
        assert [len(rows) for rows in found if rows is not None] == [N] * 3 + [N], captured
        found.clear(), calls.clear()
        kt.empirical_ntk(*network("mean", "linear", "spelt out", 5, captured), method="structured")
        assert all(rows is None for rows in found)
        assert len(calls) == 1


def test_functions_are_joined_for_several_outputs_alone(monkeypatch):
    """Joins take memory and Python: with few outputs autograd's own passes take less."""
    monkeypatch.setattr(rules, "JOINED_FROM", 4)
    made, joined = [], pointwise.Pointwise.joined
    monkeypatch.setattr(pointwise.Pointwise, "joined", lambda self, sources: made.append(self) or joined(self, sources))
    for outputs in (2, 5):
        kt.empirical_ntk(*network("mean", "linear", "spelt out", outputs, "vmap"), method="structured")
        assert bool(made) == (outputs >= 4)


def test_slopes_of_two_sources():
    found = kt.empirical_ntk(*network("mean", "linear", "gated", 5), method="structured")
    assert distance(found, expected("mean", "linear", "gated", 5)) < EXACT


@pytest.mark.parametrize("entry", [0.5, float("inf"), float("nan")])
def test_zeros_are_not_left_out_where_they_meet_infinity(entry):
    """Oracle: plain autograd. Row 1 alone has a gradient; the others are 0 · ∞ where row 3 is no number."""
    torch.manual_seed(0)
    rows = [torch.randn(1, 1, 8, 2, dtype=torch.float64) for _ in range(3)]
    rows[0][0, 0, 3, 0] = entry
    leaves = [one.requires_grad_() for one in rows]
    gradient = torch.zeros(1, 1, 8, 2, dtype=torch.float64)
    gradient[0, 0, 1] = 1.0
    outcome, values = segment.Outcome(1), (F.gelu(leaves[0]), F.scaled_dot_product_attention(*leaves))
    pieces = (
        pointwise.Pointwise(outcome, leaves[:1], values[0], leaves[:1], lambda given: F.gelu(given[0])),
        attention._Attention(outcome, leaves, attention._Options(None, False, None, False)),
    )
    for value, piece in zip(values, pieces, strict=True):
        asked = piece.leaves
        plain = torch.autograd.grad(value, asked, gradient, retain_graph=True)
        for own, other in zip(piece.pulled(gradient), plain, strict=True):
            assert torch.allclose(own, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_product_with_weights_that_are_no_numbers():
    """By hand: row 1 alone has a gradient; the others are 0 · ∞ where the weight is."""
    gradient = torch.zeros(8, 2).index_fill_(0, torch.tensor([1]), 1.0)
    for entry in (3.0, float("inf"), float("nan")):
        weight = torch.ones(2, 3)
        weight[0, 2] = entry
        x = torch.zeros(8, 3, requires_grad=True)
        (found,) = torch.autograd.grad(row_product.row_product(x, weight), x, gradient)
        assert torch.equal(found.nan_to_num(9, 8, 7), (gradient @ weight).nan_to_num(9, 8, 7))
