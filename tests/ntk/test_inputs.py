"""What may be given as samples: mappings of any class, and inputs that the forward pass writes to.

Oracle: the double loop over plain autograd in float64, each sample a copy of its own; the samples' bytes before.
"""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import ProbeError
from kerneltrack.measurement.training_outputs import flags_of, training_outputs
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

N = 5


@pytest.fixture
def x():
    return 3 * torch.randn(N, 4, dtype=torch.float64)


def own_kernel(model, x):
    """Θ by the double loop, from samples that nobody else sees."""
    rows = jacobian(model, x.clone())
    return contract(rows, rows, "full")


# ------------------------------------------------------------ a forward pass that writes to its inputs


def normalised(m, x):
    x -= x.mean(1, keepdim=True)
    x /= x.std(1, keepdim=True)
    return m.body(x)


def halved_where_large(m, x):
    x[x > 2] /= 2
    return m.body(x)


def emptied(m, x):
    y = m.body(x.clone())
    x.zero_()
    return y


WRITES = {
    "normalises": normalised,
    "divides": lambda m, x: m.body(x.div_(255)),
    "clamps": lambda m, x: m.body(x.clamp_(-1, 1)),
    "rectifies": lambda m, x: m.body(F.relu(x, inplace=True)),
    "sets a column": lambda m, x: m.body(x.index_fill_(1, torch.tensor([0]), 0)),
    "writes through a view": lambda m, x: (x.view(-1, 2, 2)[:, 0].mul_(2), m.body(x))[1],
    "empties afterwards": emptied,
}


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("rule", WRITES)
def test_a_forward_that_writes_to_its_inputs(x, rule, method):
    """Told random or accepted with wrong numbers before, and the caller's samples were changed."""
    model = With(WRITES[rule], body=nn.Linear(4, 3)).double()
    exact, before = own_kernel(model, x), x.clone()
    first, second = (kt.empirical_ntk(model, x, method=method) for _ in range(2))
    assert torch.equal(x, before)
    assert torch.equal(first, second)
    assert distance(first, exact) < EXACT


def test_a_branch_on_values_that_writes(x):
    """No first look can see it: the first sample is not written to. vmap refuses it, so it runs sample by sample."""

    def rule(m, x):
        return m.body(x.div_(10) if x.abs().max() > 4 else x)

    x[0], x[1] = 0.5, 6.0
    model = With(rule, body=nn.Linear(4, 3)).double()
    before = x.clone()
    # The branch is on the batch, so the samples couple: what matters here is whose samples were written to.
    with pytest.raises(kt.errors.UnsupportedModelError, match="couples"):
        kt.empirical_ntk(model, x)
    assert torch.equal(x, before)


def test_no_other_door_writes_to_the_samples(x):
    """The operator, its factors, the plan, the linearised network, and the outputs in training mode."""
    model = With(WRITES["divides"], body=nn.Linear(4, 3)).double()
    exact, before = own_kernel(model, x).transpose(0, 2, 1, 3).reshape(3 * N, 3 * N), x.clone()
    operator, v = kt.NTKOperator(model, x), torch.randn(3 * N, dtype=torch.float64)
    for _ in range(3):  # from the second product on the factors are held
        assert distance(operator.matvec(v), exact @ v.numpy()) < EXACT
    kt.ntk_plan(model, x)
    outputs = training_outputs(model, x, flags_of(model))
    assert torch.equal(outputs, kt.linearize(model)(x))
    assert torch.equal(x, before)


# ------------------------------------------------------------ mappings and objects


class BatchEncoding(UserDict):
    """As the tokenizers of transformers return it: a UserDict with attributes."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


MAPPINGS = {
    "UserDict": UserDict,
    "BatchEncoding": BatchEncoding,
    "read-only": MappingProxyType,
    "nested": lambda d: {"b": UserDict(d)["b"], "a": d["a"]},
}


@pytest.mark.parametrize("kind", MAPPINGS)
def test_a_mapping_is_a_dict(x, kind):
    """Also as a probe, whose fingerprint is that of the dict."""
    model = With(lambda m, a, b: m.body(a) * b.sum(1, keepdim=True), body=nn.Linear(4, 3)).double()
    plain = {"a": x, "b": x.flip(0)}
    given = MAPPINGS[kind](plain)
    assert torch.equal(kt.empirical_ntk(model, given), kt.empirical_ntk(model, plain))
    assert kt.Probe(given).fingerprint == kt.Probe(plain).fingerprint


def test_a_mapping_inside_a_tuple(x):
    model = With(lambda m, a, d: m.body(a + d["b"]["c"]), body=nn.Linear(4, 3)).double()
    given = (x, UserDict(b=UserDict(c=x.flip(0))))
    assert torch.equal(kt.empirical_ntk(model, given), kt.empirical_ntk(model, (x, {"b": {"c": x.flip(0)}})))


@dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor


def test_the_remedy_for_an_object_works(x):
    model = With(lambda m, pair: m.body(pair.left * pair.right), body=nn.Linear(4, 3)).double()
    with pytest.raises(ProbeError, match=r"'left': x1.left, 'right': x1.right.*model\(Pair\(\*\*d\)\)"):
        kt.empirical_ntk(model, Pair(x, x))
    kernel = kt.empirical_ntk(model, {"left": x, "right": x}, forward=lambda model, d: model(Pair(**d)))
    assert distance(kernel, own_kernel(With(lambda m, x: m.body(x * x), body=model.body), x)) < EXACT


class Data:
    """As torch_geometric's Data holds a graph: tensors with no common first axis."""

    def __init__(self, x, edge_index):
        self.x, self.edge_index = x, edge_index


@pytest.mark.parametrize("given", ["object", "tuple", "sparse"])
def test_a_graph_is_told_of_the_indices(x, given):
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    sparse = torch.sparse_coo_tensor(edges, torch.ones(4, dtype=torch.float64), (N, N), check_invariants=True)
    graph = {"object": Data(x, edges), "tuple": (x, edges), "sparse": (x[:4], sparse)}[given]
    model = With(lambda m, *graph: m.body(x), body=nn.Linear(4, 3)).double()
    with pytest.raises(ProbeError, match=r"forward=lambda m, i: m\(X, edges\)\[i\].*graphs.md"):
        kt.empirical_ntk(model, graph)
