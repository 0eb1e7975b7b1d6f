"""Digests of batches. Oracle: two batches are the same where torch.equal says so of every tensor in them."""

import numpy as np
import pytest
import torch

from kerneltrack.tracking.batch_trail import BatchTrail, digest

X = torch.arange(24.0).reshape(6, 4)
LARGE = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0))
KINDS = {
    "a pair": lambda x: (x, x[:, 0].long()),
    "a dict": lambda x: {"x": x, "mask": x > 3, "name": "a"},
    "nested": lambda x: [{"x": (x,)}, None, 3],
    "an array": lambda x: (x.numpy(), 1.5),
    "half precision": lambda x: x.bfloat16(),
    "integers": lambda x: x.long(),
    "not contiguous": lambda x: x.T,
    "sparse": lambda x: x.to_sparse(),
    "a gradient": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_told_by_what_is_in_it(kind):
    make = KINDS[kind]
    assert digest(make(X)) == digest(make(X.clone()))
    changed = X.clone()
    changed[3, 2] += 8
    assert digest(make(changed)) != digest(make(X))
    assert digest(make(X[[1, 0, 2, 3, 4, 5]])) != digest(make(X))


def test_of_large_tensors_evenly_spread_elements_are_looked_at():
    """Another order of the samples shows, and the first and the last sample do; the cost does not grow with the batch."""
    assert digest(LARGE) == digest(LARGE.clone())
    assert digest(LARGE.flip(0)) != digest(LARGE)
    for sample in (0, -1):
        other = LARGE.clone()
        other[sample] += 1
        assert digest(other) != digest(LARGE)


def test_shapes_and_types_count():
    assert len({digest(v) for v in (X, X.reshape(4, 6), X.double(), X[:0], X.numpy().astype(np.int32))}) == 5


def test_a_trail_knows_every_batch_of_an_update_in_order():
    def trail(*batches):
        found = BatchTrail()
        for batch in batches:
            found.note(7, batch)
        return found

    a, b = X, X + 1
    assert not trail(a, b).differs(trail(a, b), 7)
    assert trail(a, b).differs(trail(b, a), 7)
    assert trail(a, b).differs(trail(a), 7)
    assert not trail(a).differs(trail(), 7)  # nothing was told: nothing tells them apart, nor together
    assert not trail(a).tells(trail(), 7)
    again = trail(a)
    again.forget(7)
    again.note(7, b)
    assert not again.differs(trail(b), 7)


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [(0.5, 0.5, False), (0.5, 0.5 * (1 + 1e-7), False), (0.5, 0.501, True), (float("nan"), float("nan"), False)],
)
def test_losses_are_compared_to_rounding(ours, theirs, differs):
    a, b = BatchTrail(losses={3: ours}), BatchTrail(losses={3: theirs})
    assert a.differs(b, 3) is differs
    assert a.tells(b, 3)
    assert not a.tells(b, 4)
