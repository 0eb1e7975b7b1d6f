"""Random programs of layers: what no list of models thought of.

Each seed draws a program on a tensor of shape (n, t, d) from a pool of few modules, so that modules are
reused, used side by side, behind in-place operations, on merged axes and on transposed views; and it draws
which parameters are frozen or tied. Oracle: the double loop over plain autograd.
"""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kerneltrack as kt
from tests.ntk.exact_kernels import OUTPUTS, readout
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.tiers import one_in

N, TOKENS, WIDTH = 4, 4, 4  # all equal, so that an axis that is guessed from its size is guessed wrongly


def merged(module: nn.Module, x: Tensor) -> Tensor:
    """Samples and tokens as one axis, as many models write it."""
    return module(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def over_tokens(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.transpose(1, 2)).transpose(1, 2)


def inplace(x: Tensor) -> Tensor:
    x = x * 1.0
    x.mul_(0.7).add_(0.1)
    return torch.relu_(x)


class Program(nn.Module):
    """Steps drawn from a seed; every step maps (n, t, d) to (n, t, d)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.linears = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=draw.random() < 0.7) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)])
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=draw.choice([1, 2, 4]))
        self.group = nn.GroupNorm(2, WIDTH)
        self.batch = nn.BatchNorm1d(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.mix = nn.Parameter(torch.randn(TOKENS, TOKENS) / 2)
        self.head = nn.Linear(WIDTH, 3)
        if draw.random() < 0.3:
            self.linears[1].weight = self.linears[0].weight
        if draw.random() < 0.2:
            self.head.bias.requires_grad_(False)
        if draw.random() < 0.2:
            self.linears[0].weight.requires_grad_(False)
        self.program = [draw.choice(sorted(self.steps())) for _ in range(draw.randint(2, 6))]
        self.last = draw.choice(["mean", "first", "max"])

    def steps(self):
        return {
            "linear": lambda x: self.linears[0](x).tanh(),
            "other linear": lambda x: self.linears[1](x),
            "merged linear": lambda x: merged(self.linears[1], x),
            "over tokens": lambda x: over_tokens(self.linears[0], x),
            "residual": lambda x: x + self.linears[1](x).relu(),
            "product of two": lambda x: self.linears[0](x) * torch.sigmoid(self.linears[1](x)),
            "inplace": inplace,
            "inplace linear": lambda x: self.linears[0](x).relu_(),
            "norm": lambda x: self.norms[0](x),
            "rms": lambda x: self.norms[1](x),
            "conv": lambda x: over_tokens(self.conv, x),
            "group": lambda x: over_tokens(self.group, x),
            "batch": lambda x: over_tokens(self.batch, x),
            "attention": lambda x: x + self.attention(x, x, x, need_weights=False)[0],
            "scale": lambda x: x * self.scale + self.scale,
            "mix": lambda x: torch.einsum("ts,nsd->ntd", self.mix, x),
            "matmul": lambda x: self.mix @ x,
            "tied": lambda x: F.linear(x, self.linears[0].weight.T),
            "scaled weight": lambda x: F.linear(x, self.linears[0].weight / 2),
            "roll": lambda x: x.roll(1, 1),
        }

    def forward(self, x: Tensor) -> Tensor:
        steps = self.steps()
        for name in self.program:
            x = steps[name](x)
        read = {"mean": x.mean(1), "first": x[:, 0], "max": x.amax(1)}[self.last]
        return self.head(read)


@pytest.mark.parametrize("seed", one_in(2, range(60)))
def test_a_random_network_is_exact(seed):
    torch.manual_seed(seed)
    model = Program(seed).double().eval()
    with torch.no_grad():
        model.batch.running_mean.add_(0.1)
        model.batch.running_var.mul_(1.5)
    x = torch.randn(N, TOKENS, WIDTH, dtype=torch.float64)
    output = list(OUTPUTS)[seed % len(OUTPUTS)]
    rows = jacobian(model, x, readout=readout if output == "callable" else None)
    expected = contract(rows, rows, "full" if output == "callable" else output)
    for method in ("auto", "structured"):
        kernel = kt.empirical_ntk(model, x, output=OUTPUTS[output], method=method)
        assert distance(kernel, expected) < EXACT, model.program
    layers = kt.empirical_ntk(model, x, output=OUTPUTS[output], by_layer=True)
    assert distance(sum(layers.values()), expected) < EXACT, model.program


def test_the_seeds_use_every_step():
    """Else the test above would claim more than it tries."""
    programs = [Program(seed).program for seed in range(60)]
    assert {step for program in programs for step in program} == set(Program(0).steps())
