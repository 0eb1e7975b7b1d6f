"""A kernel computed by several ranks. Oracle: the same kernel in one call, in float64, and counting by hand.

The ranks here are played one after the other in this process, the followers first; that the messages of real processes
arrive is tested in tests/callbacks/test_ranks.py.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from kerneltrack import empirical_ntk
from kerneltrack.distributed.ranks import Ranks
from kerneltrack.measurement.kernel_over_ranks import Tile, shared_ntk, shares
from tests.tiers import one_in

COUNTS = (1, 2, 3, 7, 8, 12, 25, 256)
SIZES = (2, 3, 4, 5, 8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", COUNTS)
def test_every_pair_belongs_to_one_tile(count, size):
    seen = np.zeros((count, count), int)
    for tiles in shares(count, size):
        for tile in tiles:
            columns = tile.rows if tile.columns is None else tile.columns
            seen[np.ix_(tile.rows, columns)] += 1
            if tile.columns is not None:
                seen[np.ix_(columns, tile.rows)] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [c for c in COUNTS if c >= 12])
def test_the_ranks_have_equally_many_pairs(count, size):
    """A block has b or b + 1 samples, its followers together S or S + 1, with b ≤ N/R and S ≤ N/2.

    So two ranks differ by at most (b + 1) + (b + S + 1) pairs, and by 2b + 1 in the halves: one row of about N/2 pairs.
    """
    pairs = [sum(tile.pairs for tile in tiles) for tiles in shares(count, size)]
    assert sum(pairs) == count * (count + 1) // 2
    assert max(pairs) - min(pairs) <= count / 2 + 4 * count / size + 3
    if count % (2 * size) == 0:
        assert len(set(pairs)) == 1


def test_a_tile_counts_its_pairs():
    assert Tile(np.arange(4)).pairs == 10
    assert Tile(np.arange(4), np.arange(4, 7)).pairs == 12


@dataclass(frozen=True)
class Played(Ranks):
    """A rank whose messages are kept in a queue that all of them share."""

    post: dict = field(default_factory=dict)

    def run_everywhere(self, part):
        return part()

    def send(self, tensor):
        self.post.setdefault(self.rank, deque()).append(tensor)

    def receive(self, into, rank):
        found = self.post[rank].popleft()
        assert (found.shape, found.dtype) == (into.shape, into.dtype)
        return found


def played(size, module, inputs, **options):
    """The leader's kernel, after all the others have sent theirs."""
    post = {}
    for rank in reversed(range(size)):
        result = shared_ntk(Played(rank, size, post), module, inputs, **options)
    assert not any(post.values()), "a message that nobody has asked for"
    return result


class TwoInputs(nn.Module):
    """Two hidden layers: behind one, Θ[n, m, o, p] is symmetric in o and p, and swapped outputs are not seen."""

    def __init__(self, outputs=3):
        super().__init__()
        self.a, self.c, self.b = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, outputs)

    def forward(self, x, weights):
        return self.b(torch.tanh(self.c(torch.tanh(self.a(x)) * weights)))


def squares(f):
    return f[:2].square()


SPLITS = [(2, 1), (2, 6), (3, 7), (4, 3), (4, 11)]
WAYS = itertools.product(SPLITS, ["auto", "jacobian", "products"], ["full", "diagonal", "trace", "sum", squares])


@pytest.mark.parametrize(("size", "count", "method", "output"), one_in(4, ((*split, *rest) for split, *rest in WAYS)))
def test_it_is_the_kernel_of_one_rank(output, method, size, count):
    """Sums over a few dozen float64 products in another order: 1e-13 of the largest entry."""
    module = TwoInputs().double()
    inputs = {"x": torch.randn(count, 4).double(), "weights": torch.rand(count, 5).double()}
    expected = empirical_ntk(module, inputs, output=output, method=method)
    found = played(size, module, inputs, output=output, method=method)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))
    torch.testing.assert_close(found, _swapped(found), rtol=0, atol=1e-13 * float(expected.abs().max()))


def _swapped(kernel):
    """Θ[m, n, p, o]: what symmetry demands of Θ[n, m, o, p]."""
    swapped = kernel.transpose(0, 1)
    return swapped.transpose(2, 3) if kernel.ndim == 4 else swapped


@pytest.mark.parametrize("size", [2, 3])
def test_layers_are_shared_too(size):
    module = TwoInputs().double()
    inputs = (torch.randn(5, 4).double(), torch.rand(5, 5).double())
    expected = empirical_ntk(module, inputs, by_layer=True)
    found = played(size, module, inputs, by_layer=True)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-13 * float(expected[name].abs().max()))


def test_one_rank_alone_calls_the_engine():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    assert torch.equal(shared_ntk(Ranks(), module, x), empirical_ntk(module, x))
