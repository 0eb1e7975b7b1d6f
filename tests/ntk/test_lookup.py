"""Embeddings: every pair of rows with one index is met once, however often an index occurs.

Oracle: the double loop over plain autograd, which scatters dense V × e gradients.
"""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk.machine import Machine, use
from tests.ntk.exact_kernels import OUTPUTS, readout, tightest
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.tiers import diagonals, one_in

N, LENGTH, WIDTH = 7, 9, 5


def plain(m, ids):
    return m.head(m.table(ids).tanh().mean(1))


def twice(m, ids):
    return m.head((m.table(ids).tanh() * m.table(ids.flip(1) % 3)).mean(1))


def bag(mode, **options):
    return lambda m, ids: m.head(F.embedding_bag(ids, m.table.weight, mode=mode, **options).tanh())


def flat_bag(m, ids):
    """One bag for each sample, by offsets."""
    offsets = torch.arange(0, ids.numel(), LENGTH)
    return m.head(F.embedding_bag(ids.flatten(), m.table.weight, offsets, mode="sum").tanh())


def padded(m, ids):
    return m.head(F.embedding(ids, m.table.weight, padding_idx=2).tanh().mean(1))


def twice_padded(m, ids):
    return padded(m, ids) + padded(m, ids % 4)


def tied(m, ids):
    """A language model in little: the table is the head of every position."""
    return F.linear(m.table(ids).tanh(), m.table.weight).mean(1)[:, :3] + m.head(m.table(ids[:, 0]))


def tied_transposed(m, ids):
    return (m.table(ids).tanh() @ m.table.weight.T)[:, -1, :3]


def tied_twice_padded(m, ids):
    rows = F.embedding(ids, m.table.weight, padding_idx=1).tanh()
    first = F.linear(rows.mean(1), m.table.weight)[:, :3]
    return first * F.linear(F.embedding(ids[:, :2], m.table.weight, padding_idx=1), m.table.weight)[:, 0, :3]


TIED = {"tied": tied, "tied-transposed": tied_transposed, "tied-twice-padded": tied_twice_padded}
CALLS = TIED | {
    "plain": plain,
    "twice": twice,
    "padded": padded,
    "twice-padded": twice_padded,
    "bag-sum": bag("sum"),
    "bag-mean": bag("mean"),
    "bag-max": bag("max"),
    "bag-mean-padded": bag("mean", padding_idx=1),
    "bag-sum-padded": bag("sum", padding_idx=1),
    "bag-offsets": flat_bag,
}
#: Few indices that all samples share; some of both; many that hardly meet.
VOCABULARIES = (3, 12, 200)


def setting(call, vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(vocabulary)
        model = With(CALLS[call], table=nn.Embedding(vocabulary, WIDTH), head=nn.Linear(WIDTH, 3)).double()
    ids = torch.randint(vocabulary, (N, LENGTH), generator=generator)
    return model, torch.where(torch.rand(N, LENGTH, generator=generator) < 0.2, 1, ids)  # one frequent index


@functools.cache
def truth(call, vocabulary, output):
    model, ids = setting(call, vocabulary)
    rows = jacobian(model, ids, readout=readout if output == "callable" else None)
    return contract(rows, rows, "full" if output == "callable" else output)


@pytest.mark.parametrize(
    ("pair", "vocabulary", "call", "output"),
    one_in(
        2,
        (
            (*first, *last)
            for *first, last in itertools.product(
                [1, 16, 10**6],  # all pairs, both, all dense
                VOCABULARIES,
                [(call, "full") for call in ("plain", "twice", "padded")] + [("twice-padded", o) for o in OUTPUTS],
            )
        ),
    ),
)
def test_every_meeting_counts_once(machine, call, vocabulary, output, pair):
    machine(lookup_pair=pair)
    model, ids = setting(call, vocabulary)
    expected = truth(call, vocabulary, output)
    options = {"output": OUTPUTS[output], "method": "structured"}
    assert distance(kt.empirical_ntk(model, ids, **options), expected) < EXACT
    assert distance(kt.empirical_ntk(model, ids[1:], ids[:4], **options), expected[1:, :4]) < EXACT
    budget = tightest(model, ids, **options)
    assert distance(kt.empirical_ntk(model, ids, memory_budget=budget, **options), expected) < EXACT


@pytest.mark.parametrize(("call", "output"), diagonals(2, ["plain", "twice", "padded", "twice-padded"], OUTPUTS))
def test_on_an_accelerator_every_row_meets_every_other(monkeypatch, call, output):
    """The host's questions cost more than the products there; as exact, and in pieces too."""

    def ask(*given, **options):
        raise AssertionError("the host asks which indices there are")

    monkeypatch.setattr(torch, "unique", ask)
    model, ids = setting(call, 12)
    expected = truth(call, 12, output)
    options = {"output": OUTPUTS[output], "method": "structured"}
    with use(Machine.accelerator(memory=80e9)):
        assert any(one.order == "lookup" for one in kt.ntk_plan(model, ids, **options).uses)
        assert distance(kt.empirical_ntk(model, ids, **options), expected) < EXACT
        assert distance(kt.empirical_ntk(model, ids[1:], ids[:4], **options), expected[1:, :4]) < EXACT
        monkeypatch.undo()
        for budget in ("1MiB", "300KiB", tightest(model, ids, **options)):
            assert distance(kt.empirical_ntk(model, ids, memory_budget=budget, **options), expected) < EXACT


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("call", TIED)
def test_a_tied_table_has_its_cross_terms(call, output):
    model, ids = setting(call, 12)
    expected = truth(call, 12, output)
    options = {"output": OUTPUTS[output], "method": "structured", "metric": 1.0}
    assert distance(kt.empirical_ntk(model, ids, **options), expected) < EXACT
    assert distance(kt.empirical_ntk(model, ids[1:], ids[:4], **options), expected[1:, :4]) < EXACT
    budget = tightest(model, ids, **options)
    assert distance(kt.empirical_ntk(model, ids, memory_budget=budget, **options), expected) < EXACT
    uses = {one.parameters: one for one in kt.ntk_plan(model, ids, **options).uses}
    assert "lookup" in uses["table.weight",].order
    assert "tied" in uses["table.weight",].order


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("call", [call for call in CALLS if "bag" in call])
def test_bags_are_lookups(call, vocabulary):
    """Bags of one length are sums over looked-up rows; they are exact, and no table is expanded."""
    model, ids = setting(call, vocabulary)
    assert distance(kt.empirical_ntk(model, ids), truth(call, vocabulary, "full")) < EXACT
    uses = {one.parameters: one for one in kt.ntk_plan(model, ids).uses}
    assert uses["table.weight",].order == "lookup"


def test_a_large_table_is_never_expanded():
    """A million rows of 64: one dense gradient would be 256 MB, and 32 samples of it 8 GB."""
    table = nn.Embedding(10**6, 64)
    model = With(plain, table=table, head=nn.Linear(64, 3))
    ids = torch.randint(10**6, (32, 20), generator=torch.Generator().manual_seed(1))
    kernel = kt.empirical_ntk(model, ids, memory_budget="64MiB")
    part = kt.empirical_ntk(model, ids[:2], ids[-2:], memory_budget="64MiB")
    assert distance(kernel[:2, -2:], part.numpy()) < 1e-5
