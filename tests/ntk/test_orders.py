"""Sizes at which each order of contraction is the cheapest: the tiny problems of the table meet only some.

Oracle: the double loop over plain autograd. The chosen orders are read from the plan, so that none is missed.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import kerneltrack as kt
from kerneltrack.ntk.contraction.hybrid import Hybrid
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.exact_kernels import OUTPUTS, readout, tightest
from tests.ntk.models import GPT, Bare, With
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.preferred import prefer
from tests.tiers import diagonals

WIDTH = 12


def image_net(channels, size, **options):
    return lambda: nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(channels, channels, 3, padding=1, **options),
        nn.Tanh(),
        nn.AvgPool2d(size),
        nn.Flatten(),
        nn.Linear(channels, 3),
    )


def mean_of_tokens(width):
    return lambda: With(
        lambda m, x: m.head(m.up(x).tanh().mean(1)), up=nn.Linear(WIDTH, width), head=nn.Linear(width, 3)
    )


#: name: model and the shape of one sample. From one token and many features to the reverse.
SIZES = {
    "wide-mlp": (lambda: nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 3)), (40,)),
    "many-pixels": (image_net(3, 12), (2, 12, 12)),
    "few-pixels": (image_net(16, 2), (2, 2, 2)),
    "some-pixels": (image_net(12, 4), (2, 4, 4)),
    "strided": (image_net(8, 4, dilation=2, groups=2), (2, 8, 8)),
    "depthwise": (image_net(8, 4, groups=8), (2, 4, 4)),
    "few-tokens": (mean_of_tokens(50), (2, WIDTH)),
    "many-tokens": (mean_of_tokens(5), (60, WIDTH)),
    "norms": (
        lambda: With(
            lambda m, x: m.head(m.norm(m.up(x)).tanh().mean(1)),
            up=nn.Linear(WIDTH, 30),
            norm=nn.LayerNorm(30),
            head=nn.Linear(30, 3),
        ),
        (6, WIDTH),
    ),
    "bare": (
        lambda: Bare(
            lambda p, x: torch.einsum("nti,io->nto", F.gelu(x * p.scale + p.shift), p.w).mean(1),
            scale=(WIDTH,),
            shift=(7, WIDTH),
            w=(WIDTH, 3),
        ),
        (7, WIDTH),
    ),
    "scaled": (  # the NTK parametrisation, whose squared factor every order has to apply
        lambda: Bare(
            lambda p, x: F.linear(x, p.u / WIDTH**0.5).tanh().mean(1).matmul(p.v / 3).tanh() @ p.w,
            u=(9, WIDTH),
            v=(9, 9),
            w=(9, 3),
        ),
        (5, WIDTH),
    ),
    "language": (lambda: GPT(vocabulary=30, width=8, tied=True, length=12), 12),
}
N = 6


def setting(name):
    build, shape = SIZES[name]
    state = torch.random.get_rng_state()
    torch.manual_seed(11)
    model = build().double().eval()
    torch.random.set_rng_state(state)
    generator = torch.Generator().manual_seed(12)
    if isinstance(shape, int):
        return model, torch.randint(30, (N, shape), generator=generator)
    return model, torch.randn(N, *shape, generator=generator, dtype=torch.float64)


@functools.cache
def rows_of(name, read):
    """The double loop, once for all reductions: of the language model it takes longer than all kernels."""
    model, x = setting(name)
    return jacobian(model, x, readout=read)


@functools.cache
def truth(name, output):
    rows = rows_of(name, readout if output == "callable" else None)
    return contract(rows, rows, "full" if output == "callable" else output)


@pytest.mark.parametrize(("name", "output"), diagonals(2, SIZES, OUTPUTS))
def test_every_size_is_exact(name, output):
    model, x = setting(name)
    options = {"output": OUTPUTS[output]}
    expected = truth(name, output)
    assert distance(kt.empirical_ntk(model, x, **options), expected) < EXACT
    budget = tightest(model, x, **options)
    assert distance(kt.empirical_ntk(model, x, memory_budget=budget, **options), expected) < EXACT
    rectangle = kt.empirical_ntk(model, x[1:], x[:4], **options)
    assert distance(rectangle, expected[1:, :4]) < EXACT


def test_every_order_is_met():
    """The orders of the literature: per-sample gradients, token Gram matrices, and the hybrid of the two."""
    met = set()
    for name in SIZES:
        model, x = setting(name)
        for output in OUTPUTS.values():
            met |= {use.order for use in kt.ntk_plan(model, x, output=output).uses}
    assert {"gradient", "token", "hybrid"} <= met


@pytest.mark.parametrize("name", SIZES)
def test_the_plan_covers_each_parameter_once(name):
    model, x = setting(name)
    plan = kt.ntk_plan(model, x)
    covered = [parameter for use in plan.uses for parameter in use.parameters]
    assert sorted(covered) == sorted(name for name, _ in model.named_parameters())


def test_the_plan_counts_the_floating_point_operations():
    """Oracle: by hand, for an MLP of widths d_0 … d_L on N samples with O outputs.

    Forward and backward are N and NO Σ d_{l-1} d_l multiply-adds, but for the first layer's input; the token
    order costs N² d_{l-1} for A Aᵀ and N²O² (d_l + 1) for G Gᵀ and the product, halved by symmetry up to the
    diagonal tiles. Counting twice that, or missing a layer, is outside the bracket.
    """
    widths, n, o = (64, 128, 128, 10), 64, 10
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    plan = kt.ntk_plan(model, torch.randn(n, widths[0]))
    pairs = list(itertools.pairwise(widths))
    passes = 2 * n * sum(a * b for a, b in pairs) + 2 * n * o * sum(a * b for a, b in pairs[1:])
    grams = sum(2 * n * n * a for a, _ in pairs) + sum(2 * n * n * o * o * (b + 1) for _, b in pairs[:-1])
    assert 0.9 * (passes + grams / 2) < plan.flops < 1.2 * (passes + grams)
    assert plan.result_bytes == 4 * (n * o) ** 2


@pytest.mark.parametrize("there", [Machine(), Machine.accelerator(memory=80e9)], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("name", ["few-pixels", "some-pixels", "few-tokens", "norms"])
def test_the_plan_counts_the_operations_of_the_hybrid_order(monkeypatch, name, there):
    """Oracle: torch's own counter around the contraction as it runs, of two sets of samples: no half to save.

    Fails where a term of the formula is lost or has one factor too many.
    """

    if there.counts_launches:
        prefer(monkeypatch, "hybrid")
    counts, add = [], Hybrid.add

    def counted(*given):
        with FlopCounterMode(display=False) as counter:
            add(*given)
        counts.append(counter.get_total_flops())

    monkeypatch.setattr(Hybrid, "add", counted)
    model, x = setting(name)
    left, right = x[:4], x[1:] + 1
    with use(there):
        kt.empirical_ntk(model, left, right)
        planned = [one.flops for one in kt.ntk_plan(model, left, right).uses if one.order == "hybrid"]
    assert counts == planned != []
