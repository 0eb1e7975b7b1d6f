"""Networks that read their outputs off few tokens: rows of a linear map that no output sees are left out of its contraction.

Oracle: the double loop over plain autograd, which knows nothing of rows.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import KernelError
from kerneltrack.ntk.contraction import gradient
from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.seen_rows import seen_rows
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.exact_kernels import tightest
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

N, TOKENS, WIDTH = 6, 9, 4
HALF = N // 2
#: A CPU that takes no kernel for small: small ones are made of few operations, and look for no rows.
LARGE = replace(Machine(), small_operations=0)


def last(y, x):
    """The last token, as a language model reads it."""
    return y[:, -1]


def marked(y, x):
    """One or two tokens of each sample, by what it holds: one of the first half of the samples."""
    order = x[..., 0].argsort(1)
    second = (x[:, :1, 1] > 0) & (order == 3)
    return (y * ((order == 1) | second).unsqueeze(-1)).sum(1)


READ = {"last": last, "marked": marked}


def network(read, tokens=TOKENS, hidden=7):
    """``up`` acts on all tokens, which a mean mixes; ``mid`` on all, of which some are read."""

    def forward(m, x):
        h = m.up(x).tanh()
        return m.head(READ[read](m.mid(h + h.mean(1, keepdim=True)).tanh(), x))

    torch.manual_seed(3)
    model = With(forward, up=nn.Linear(WIDTH, 5), mid=nn.Linear(5, hidden), head=nn.Linear(hidden, 3)).double().eval()
    x = torch.randn(N, tokens, WIDTH, dtype=torch.float64)
    x[:, 0, 1] = x[:, 0, 1].abs() * torch.tensor([-1.0] * HALF + [1.0] * HALF)
    return model, x


@functools.cache
def rows_of(read):
    return jacobian(*network(read))


@pytest.fixture(autouse=True)
def large_kernels():
    with use(LARGE):
        yield


@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("read", READ)
def test_the_kernel_is_exact(read, output):
    model, x = network(read)
    expected = contract(rows_of(read), rows_of(read), output)
    found = kt.empirical_ntk(model, x, output=output, method="structured")
    assert distance(found, expected) < EXACT
    assert torch.equal(found, found.swapaxes(0, 1).swapaxes(-1, -2) if output == "full" else found.swapaxes(0, 1))
    budget = tightest(model, x, output=output, method="structured")
    assert distance(kt.empirical_ntk(model, x, output=output, memory_budget=budget), expected) < EXACT
    rectangle = kt.empirical_ntk(model, x[:HALF], x[HALF:], output=output, method="structured")
    assert distance(rectangle, expected[:HALF, HALF:]) < EXACT


def test_no_gradient_of_one_row_is_formed(monkeypatch):
    """Of ``mid`` and of nothing else: ``up`` has all rows."""
    formed = []
    whole = gradient.token_features
    monkeypatch.setattr(
        gradient, "token_features", lambda block, term, *a: formed.extend(term.names) or whole(block, term, *a)
    )
    for read in READ:
        formed.clear()
        kt.empirical_ntk(*network(read, hidden=2), method="structured")
        assert ("mid.weight" in formed) == (read == "marked")
        assert "up.weight" in formed


def test_rows_that_any_output_of_any_sample_sees_are_found():
    """By hand: each output of each sample has rows of its own; a number is seen at any size, and so is NaN."""
    gradients = [torch.zeros(3, 2, 2, 12) for _ in range(2)]
    for output, sample, row, value in ((0, 0, 3, 1e-45), (1, 0, 5, -1.0), (0, 1, 0, float("nan")), (1, 2, 11, 2.0)):
        gradients[output][sample, 1, 0, row] = value
    found = seen_rows(gradients)
    assert found.shape == (3, 2)
    assert set(found[0].tolist()) == {3, 5}
    assert 0 in found[1]
    assert 11 in found[2]
    assert all(len(set(rows)) == 2 for rows in found.tolist())
    gradients[1][2] = 1.0
    assert seen_rows(gradients) is None


def test_an_input_that_is_not_finite_is_not_left_out(monkeypatch):
    """0 · ∞ is no zero for autograd: rows of ``up`` and ``mid`` are left out where they are numbers."""
    blocks = looked_at(monkeypatch)
    model, x = network("last")
    relu = With(lambda m, x: m.head(m.mid(m.up(x).relu())[:, -1]), up=model.up, mid=model.mid, head=model.head)
    relu.up.weight.data.abs_()
    kt.empirical_ntk(relu, x, method="structured")
    x[2, 0, 0] = float("inf")
    with pytest.raises(KernelError, match="nan"):
        kt.empirical_ntk(relu, x, method="structured")
    assert [len(block.seen) for block in blocks] == [2, 0]


def test_a_part_of_the_samples_has_its_own_rows(monkeypatch):
    """Oracle: the same samples of all of them."""
    blocks = looked_at(monkeypatch)
    kt.empirical_ntk(*network("marked"), method="structured")
    ((index, (rows, _)),) = blocks[0].seen.items()
    assert rows.unique(dim=0).shape[0] > 1
    assert torch.equal(blocks[0].input_rows(index, 2, 5), blocks[0].input_rows(index, 0, N)[2:5])


def looked_at(monkeypatch):
    """The blocks whose rows were asked for."""
    blocks = []
    look = SampleBlock.look
    monkeypatch.setattr(SampleBlock, "look", lambda self, terms: (look(self, terms), blocks.append(self)))
    return blocks
