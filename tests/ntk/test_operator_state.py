"""An operator's products are those of the state that its network, samples and metric are in when they are asked for.

Oracle: the double loop over autograd at each state (oracles.py), over the parameters that then require grad.
"""

import gc
import importlib
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import kerneltrack as kt
from kerneltrack.errors import KernelError, UnsupportedModelError
from tests.ntk.host_reads import reads
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@dataclass
class Settings:
    scale: float = 1.0


class Scaled(nn.Module):
    """A linear layer by methods and constants of its class, and with buffers of several kinds."""

    CONSTANT, TABLE = 1.0, {"deep": [1.0]}  # a class attribute that changes is what is tested

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("whole", torch.ones(8, dtype=torch.int32))
        self.register_buffer("coarse", torch.ones(8, dtype=torch.bfloat16))

    def forward(self, x):
        return self.last(
            self.linear(x) * self.CONSTANT * self.TABLE["deep"][0] * self.whole.double() * self.coarse.double()
        )

    def last(self, x):
        return x


def build():
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), Scaled(), nn.Linear(8, 8))
    model = With(
        lambda m, x: m.factor * m.head(m.body(x)) * m.table["scale"][0] * rest(m) + m.shift + float(m.array[0]),
        body=body,
        head=nn.Linear(8, 3),
    )
    model.factor, model.table, model.shift, model.array = 1.0, {"scale": [1.0]}, torch.zeros(3), np.ones(1)
    model.settings, model.space, model.long, model.some = Settings(), SimpleNamespace(scale=1.0), [1.0] * 200, {1}
    model.double().eval()
    body[4].coarse = body[4].coarse.bfloat16()
    return model


def rest(m):
    return m.settings.scale * m.space.scale * sum(m.long) / 200 * (2 if 2 in m.some else 1)


def step(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)


def one_entry(model):
    """One bit of one entry, the last: no sum of floats would show it."""
    last = list(model.parameters())[-1]
    last.data[-1] = torch.nextafter(last.data[-1], torch.tensor(torch.inf, dtype=torch.float64))


def permuted(model):
    model.body[0].weight.data.copy_(model.body[0].weight.data.flip(0))


def through_numpy(model):
    model.body[0].weight.detach().numpy()[...] *= 0.5


def replaced(model):
    model.head.weight = nn.Parameter(model.head.weight.detach() * 2)


def swapped_data(model):
    model.head.weight.data = model.head.weight.detach() * 3


def loaded(model):
    model.load_state_dict({name: 1.5 * value for name, value in model.state_dict().items()})


def exchanged(model):
    """The same parameters under each other's names."""
    a, b = model.body[4].linear, model.body[5]
    a.bias, b.bias = b.bias, a.bias


def other_activation(model):
    """Neither module has an attribute of its own, and the second may stand where the first has stood in memory."""
    model.body[2] = nn.Sigmoid()
    gc.collect()


CHANGES = {
    "new-data": swapped_data,
    "state-dict": loaded,
    "pruned": lambda m: prune.l1_unstructured(m.body[0], "weight", amount=0.5),
    "exchanged": exchanged,
    "submodule": other_activation,
    "submodule-gone": lambda m: m.body.pop(2),
    "method": lambda m: setattr(m.body[4], "last", torch.tanh),
    "forward": lambda m: setattr(m.body[2], "forward", torch.sigmoid),
    "hook": lambda m: m.head.register_forward_hook(lambda module, given, outputs: 2 * outputs),
    "int-buffer": lambda m: m.body[4].whole.data.mul_(2),
    "half-buffer": lambda m: m.body[4].coarse.data.mul_(2),
    "dict-entry": lambda m: m.table.update(scale=[2.0]),
    "dataclass": lambda m: setattr(m.settings, "scale", 2.0),
    "namespace": lambda m: setattr(m.space, "scale", 2.0),
    "two-hundred-entries": lambda m: m.long.__setitem__(150, 5.0),
    "set": lambda m: m.some.add(2),
    "tensor-attribute": lambda m: m.shift.data.add_(1),
    "optimizer-step": step,
    "data-mul": lambda m: [p.data.mul_(0.5) for p in m.parameters()],
    "data-negated": lambda m: m.body[0].weight.data.neg_(),
    "a-unit-negated": lambda m: m.body[0].weight.data[1].neg_(),
    "data-copy": lambda m: [p.data.copy_(p.data * 0.7) for p in m.parameters()],
    "data-permuted": permuted,
    "one-entry": one_entry,
    "numpy-view": through_numpy,
    "parameter-replaced": replaced,
    "buffer": lambda m: m.body[1].running_var.data.mul_(4),
    "frozen": lambda m: m.body[0].weight.requires_grad_(False),
    "thawed": lambda m: m.head.bias.requires_grad_(True),
    "attribute": lambda m: setattr(m, "factor", 2.0),
    "attribute-in-a-list": lambda m: m.table["scale"].__setitem__(0, 3.0),
    "array": lambda m: m.array.__setitem__(0, 2.0),
}


def dense(model):
    rows = jacobian(model, X)
    return contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(len(X) * 3, -1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_products(change):
    model = build()
    if change == "thawed":
        model.head.bias.requires_grad_(False)
    operator, v = kt.NTKOperator(model, X), torch.randn(18, dtype=torch.float64)
    for _ in range(3):
        assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT
    assert operator._held.factors() is not None
    held = operator._held
    CHANGES[change](model)
    after = dense(model)
    for _ in range(3):
        assert distance(operator.matvec(v), after @ v.numpy()) < EXACT
    assert distance(operator.diagonal(), np.diagonal(after)) < EXACT
    assert operator._held is not held, "the factors were dropped, and not only still right"


CLASS_CHANGES = {
    "method": ("last", lambda self, x: torch.tanh(x)),
    "constant": ("CONSTANT", 2.0),
    "container": ("TABLE", {"deep": [3.0]}),
}


@pytest.mark.parametrize("change", [*CLASS_CHANGES, "inside-a-container"])
def test_a_change_of_a_class(change, monkeypatch):
    model, v = build(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        operator.matvec(v)
    if change in CLASS_CHANGES:
        monkeypatch.setattr(Scaled, *CLASS_CHANGES[change])
    else:
        monkeypatch.setitem(Scaled.TABLE, "deep", [3.0])
    assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT


def test_a_sparse_buffer():
    """As graphs have it. Oracle: the double loop."""
    model = With(lambda m, x: m.a(torch.sparse.mm(m.few, x.t()).t()), a=nn.Linear(4, 3)).double()
    model.register_buffer("few", torch.eye(4, dtype=torch.float64).to_sparse())
    operator, v = kt.NTKOperator(model, X), torch.ones(18, dtype=torch.float64)
    for _ in range(3):
        state = operator._state
        assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT
        assert operator._state is state
        model.few._values().data.mul_(2)
        operator.matvec(v)
        assert operator._state is not state


@pytest.mark.parametrize("how", [parametrizations.weight_norm, torch.nn.utils.weight_norm], ids=["new", "old"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_reparametrised_weights(how):
    """They have no factors, so products are by passes; the checks of a new state are those of the first."""
    model, v = (
        nn.Sequential(how(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double(),
        torch.ones(18, dtype=torch.float64),
    )
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        state = operator._state
        for p in model.parameters():
            p.data.mul_(1.3)
        assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT
        assert operator._state is not state
    for _ in range(2):  # the old one keeps its weight as an attribute, which the double loop has computed anew
        model(X)
        operator.matvec(v)
    state = operator._state
    model(X)
    operator.matvec(v)
    assert operator._state is state


def test_which_parameters_are_tied_to_which():
    """Two tensors for three layers, before and after."""
    layers = [nn.Linear(4, 4, bias=False) for _ in range(3)]
    layers[2].weight = layers[0].weight
    model, v = nn.Sequential(*layers, nn.Tanh()).double(), torch.randn(24, dtype=torch.float64)
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        operator.matvec(v)
    layers[2].weight = layers[1].weight
    rows = jacobian(model, X)
    matrix = contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(24, 24)
    assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT


def test_a_metric_that_changes():
    model, v = nn.Linear(4, 3).double(), torch.randn(18, dtype=torch.float64)
    metric = {"weight": torch.ones(3, 4), "bias": 1.0}
    operator, rows = kt.NTKOperator(model, X, metric=metric), jacobian(model, X)
    for change in (lambda: metric.update(bias=3.0), lambda: metric["weight"].mul_(2)):
        for _ in range(3):
            operator.matvec(v)
        change()
        entries = {"weight": metric["weight"].numpy(), "bias": np.full(3, metric["bias"])}
        matrix = contract(rows, rows, "full", entries).transpose(0, 2, 1, 3).reshape(18, 18)
        assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT


def test_samples_that_are_others_in_their_container():
    model, x, v = nn.Linear(4, 3).double(), {"input": X.clone()}, torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, x)
    for _ in range(3):
        operator.matvec(v)
    x["input"] = 2 * X
    rows = jacobian(model, 2 * X)
    matrix = contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(18, 18)
    assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT


def test_names_from_a_generator_are_kept():
    model, v = build(), torch.ones(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, X, params=(name for name, _ in model.named_parameters() if "head" in name))
    model.factor = 2.0
    expected = kt.NTKOperator(model, X, params=["head.weight", "head.bias"]).matvec(v)
    assert torch.equal(operator.matvec(v), expected)


def test_refresh_for_what_cannot_be_seen():
    """A variable that the forward pass closes over."""
    model, v, outside = nn.Linear(4, 3).double(), torch.randn(18, dtype=torch.float64), SimpleNamespace(scale=1.0)
    operator = kt.NTKOperator(model, X, forward=lambda m, x: outside.scale * m(x))
    for _ in range(5):
        operator.matvec(v)
    before, outside.scale = operator.matvec(v), 2.0
    assert torch.equal(operator.matvec(v), before), "this is what the docstring says"
    operator.refresh()
    for _ in range(3):
        assert distance(operator.matvec(v), 4 * before.numpy()) < EXACT


@pytest.mark.audit
def test_what_cannot_be_seen_is_refused_by_the_next_audit():
    """Products 4, 8, … by factors. The cause is named, no defect; and the products after it are right."""
    model, v, outside = nn.Linear(4, 3).double(), torch.randn(18, dtype=torch.float64), SimpleNamespace(scale=1.0)
    operator = kt.NTKOperator(model, X, forward=lambda m, x: outside.scale * m(x))
    for _ in range(3):
        before = operator.matvec(v)
    outside.scale = 2.0
    with pytest.raises(KernelError, match=r"changed in a way that no comparison sees.*refresh\(\)"):
        [operator.matvec(v) for _ in range(2)]
    for _ in range(3):
        assert distance(operator.matvec(v), 4 * before.numpy()) < EXACT


# ------------------------------------------------------------ what looking costs


@pytest.mark.parametrize("factors", [True, False])
def test_one_read_a_product(monkeypatch, factors):
    """Of the contents; by factors as by passes, for one vector as for many. Before, each read was one more."""
    if not factors:
        monkeypatch.setattr("kerneltrack.ntk.matrix_free.factor_cache.SHARE", 2**60)
    model = build()
    operator, v = kt.NTKOperator(model, X), torch.randn(18, 2, dtype=torch.float64)
    for _ in range(9):  # of the next products none is audited
        operator.matmat(v)
    operator.diagonal()
    assert (operator._held.factors() is not None) == factors
    assert reads(monkeypatch, lambda: operator.matvec(v[:, 0])) == 1
    assert reads(monkeypatch, lambda: operator.matmat(v)) == 1
    assert reads(monkeypatch, lambda: operator.diagonal()) == 1
    with operator.unchanging():
        assert reads(monkeypatch, lambda: operator.matmat(v)) == 0
        assert reads(monkeypatch, lambda: operator.diagonal()) == 0


def test_an_eigensystem_looks_once(monkeypatch):
    """Beside that, each product is copied to the host: Lanczos lives there; and the trace is one number.

    The audits of products 1, 2, 4, … are left out.
    """
    monkeypatch.setattr(importlib.import_module("kerneltrack.ntk.methods.audit"), "audit_products", lambda *given: True)
    operator, products, looks = kt.NTKOperator(build(), X), [], []
    kt.eigensystem(operator, 2)
    times, look = operator._times, operator._state_now
    monkeypatch.setattr(operator, "_times", lambda block: (products.append(1), times(block))[1])
    monkeypatch.setattr(operator, "_state_now", lambda like: (looks.append(1), look(like))[1])
    found = []
    count = reads(monkeypatch, lambda: found.append(kt.eigensystem(operator, 2)))
    assert found[0].solver == "lanczos"
    assert len(looks) == 1
    assert len(products) > 5
    copies = 2 * len(products)  # .cpu() and .numpy() of each
    assert count == copies + 2


def test_a_change_within_an_eigensystem_is_seen_by_the_next_product():
    model, v = build(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, X)
    with operator.unchanging():
        operator.matvec(v)
    model.head.weight.data.mul_(2)
    assert distance(operator.matvec(v), dense(model) @ v.numpy()) < EXACT
    model.head.weight.data.mul_(2)
    assert distance(kt.eigensystem(operator, 2).values, np.linalg.eigvalsh(dense(model))[::-1][:2]) < EXACT


def test_samples_that_change_in_place():
    model, x, v = build(), X.clone(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, x)
    for _ in range(3):
        operator.matvec(v)
    x.numpy()[...] *= 2
    rows = jacobian(model, 2 * X)
    matrix = contract(rows, rows, "full").transpose(0, 2, 1, 3).reshape(18, 18)
    assert distance(operator.matvec(v), matrix @ v.numpy()) < EXACT


@pytest.mark.parametrize("part", [1, 3], ids=["batch-norm", "dropout"])
def test_a_mode_that_has_no_kernel(part):
    model, v = build(), torch.randn(18, dtype=torch.float64)
    operator = kt.NTKOperator(model, X)
    for _ in range(3):
        operator.matvec(v)
    model.body[part].train()
    with pytest.raises(UnsupportedModelError, match=rf"body\.{part}"):
        operator.matvec(v)


def test_factors_are_kept_where_nothing_changes():
    operator, v = kt.NTKOperator(build(), X), torch.randn(18, dtype=torch.float64)
    for _ in range(2):
        operator.matvec(v)
    held = operator._held.factors()
    assert held is not None
    for _ in range(3):
        operator.matvec(v)
        assert operator._held.factors() is held
