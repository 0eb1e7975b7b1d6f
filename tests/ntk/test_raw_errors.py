"""What torch or Python raise reaches the user as a KernelError that names the remedy, or the number is right.

Oracles: the double loop over autograd (oracles.py), the dense kernel of the same model, and the words of the message.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import kerneltrack as kt
from kerneltrack.errors import KernelError
from kerneltrack.ntk import NetworkState, cross_time_ntk
from tests.ntk.exact_kernels import matrix
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
DOORS = {
    **{
        method: lambda m, method=method, **options: kt.empirical_ntk(m, X, method=method, **options)
        for method in ("auto", "structured", "jacobian", "products")
    },
    "operator": lambda m: kt.NTKOperator(m, X),
    "plan": lambda m, **options: kt.ntk_plan(m, X, **options),
    "linearize": lambda m: kt.linearize(m)(X),
    "cross-time": lambda m: cross_time_ntk(m, X, NetworkState.of(m)),
}
TYPED = [door for door in DOORS if door not in ("operator", "linearize", "cross-time")]  # those that take dtype=


def test_an_empty_parameter():
    model = nn.Linear(4, 3).double()
    model.empty = nn.Parameter(torch.zeros(0, 4, dtype=torch.float64))
    x, rows = X.double(), jacobian(nn.Linear.double(model), X.double())
    dense = matrix(contract(rows, rows, "full"))
    operator = kt.NTKOperator(model, x)
    assert distance(operator.diagonal(), dense.diagonal()) < EXACT
    assert abs(operator.trace() - dense.trace()) < EXACT * dense.trace()
    for _ in range(3):
        assert distance(operator.matvec(torch.ones(18, dtype=torch.float64)), dense.sum(1)) < EXACT
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, x, method=method), contract(rows, rows, "full")) < EXACT


@pytest.mark.parametrize("k", [2, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_eigensystem_of_an_operator_in_half_precision(dtype, k):
    """Oracle: the dense kernel of the same model. The first product, and all of them for k=None, are rounded to the dtype."""
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype), X.to(dtype)
    operator = kt.NTKOperator(model, x)
    found, dense = kt.eigensystem(operator, k), matrix(kt.empirical_ntk(model, x).double().numpy())
    expected = np.linalg.eigvalsh(dense)[::-1]
    assert abs(found.values[:2] - expected[:2]).max() < 4 * torch.finfo(dtype).eps * expected[0]
    linear = operator.as_linear_operator()
    assert linear.dtype == np.float32
    for v in (np.ones(18), np.ones((18, 2))):
        assert distance(torch.from_numpy(linear @ v).double(), dense @ v) < 8 * torch.finfo(dtype).eps


def inference():
    with torch.inference_mode():
        return nn.Linear(4, 3)


def loose(tensor):
    model = With(lambda m, x: m.a(x) @ m.turn, a=nn.Linear(4, 3))
    model.turn = tensor
    return model


def inference_attribute():
    with torch.inference_mode():
        turn = torch.eye(3)
    return loose(turn)


class Reentrant(nn.Module):
    """With ``deep``, the checkpointed part sees no input that requires grad, and would have no gradient at all."""

    def __init__(self, deep):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.deep = deep

    def forward(self, x):
        return self.c(checkpoint(lambda z: self.b(z).tanh(), x if self.deep else self.a(x), use_reentrant=True))


def remembering(keep):
    model, state = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), {}
    model[0].register_forward_hook(lambda module, given, outputs: keep(state, outputs))
    return model


def counter(state, outputs):
    state["n"] = state.get("n", 0) + 1
    return outputs * state["n"]


def last(state, outputs):
    before, state["last"] = state.get("last", 0), outputs.detach()
    return outputs + 0.1 * before


def average(state, outputs):
    """Of no effect on the values, but the tensor of a vectorised pass outlives it."""
    state["mean"] = 0.9 * state.get("mean", 0) + 0.1 * outputs.detach().mean(0)
    return outputs - 0 * state["mean"]


MODELS = {
    "inference-parameter": (inference, "'weight' was made under torch.inference_mode.* outside"),
    "inference-attribute": (inference_attribute, r"\['turn'\].*clone"),
    "reentrant": (lambda: Reentrant(False), "use_reentrant=False"),
    "reentrant-at-the-inputs": (lambda: Reentrant(True), "use_reentrant=False"),
    "function": (lambda: lambda x: x[:, :3], "no torch.nn.Module.*got function.*forward="),
    "method": (lambda: nn.Linear(4, 3).forward, "no torch.nn.Module.*got method"),
    "class": (lambda: nn.Linear, "got type.*Give an instance: Linear"),
    "nothing": (lambda: None, "got NoneType"),
    "hook-that-counts": (lambda: remembering(counter), "depend on how often the model ran.*hooks"),
    "hook-that-adds-the-last": (lambda: remembering(last), "depend on how often|couples|hooks"),
    "broken-forward": (lambda: With(lambda m, x: m.a(x) + torch.ones(5), a=nn.Linear(4, 3)), "must match"),
    "missing-attribute": (lambda: With(lambda m, x: m.nothing(x), a=nn.Linear(4, 3)), "nothing"),
}


#: One call of the linearised network is one pass without a gradient: there these two are no obstacle.
CASES = [
    (name, door)
    for name in MODELS
    for door in DOORS
    if door != "linearize" or not name.startswith(("hook", "inference-attr"))
]


@pytest.mark.parametrize(("name", "door"), CASES)
def test_every_door_names_the_remedy(name, door):
    model, words = MODELS[name]
    with pytest.raises(KernelError, match=f"(?s){words}"):
        DOORS[door](model())


@pytest.mark.parametrize("door", TYPED)
def test_a_plain_tensor_that_dtype_does_not_reach(door):
    with pytest.raises(KernelError, match=r"make \['turn'\] buffers with register_buffer"):
        DOORS[door](loose(torch.eye(3)), dtype=torch.float64)


def test_as_a_buffer_it_is_reached():
    model = With(lambda m, x: m.a(x) @ m.turn, a=nn.Linear(4, 3))
    model.register_buffer("turn", torch.randn(3, 3))
    found = kt.empirical_ntk(model, X, dtype=torch.float64)
    rows = jacobian(model.double(), X.double())
    assert distance(found, contract(rows, rows, "full")) < EXACT


@pytest.mark.audit
def test_a_tensor_that_outlives_its_pass():
    model = remembering(average)
    with pytest.raises(KernelError, match="keeps tensors from one forward pass to the next"):
        kt.empirical_ntk(model, X)


def test_a_hook_that_hands_on_is_no_obstacle():
    """It keeps state within one pass only. Oracle: the double loop."""
    kept, model = {}, With(lambda m, x: m.a(x) + kept["outputs"], a=nn.Linear(4, 3)).double()
    model.a.register_forward_hook(lambda module, given, outputs: kept.update(outputs=outputs))
    rows = jacobian(model, X.double())
    assert distance(kt.empirical_ntk(model, X.double()), contract(rows, rows, "full")) < EXACT


def test_out_of_memory_is_not_dressed_up():
    """It is answered with smaller tiles, by those who look for it."""

    def forward(model, x):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        kt.empirical_ntk(nn.Linear(4, 3), X, forward=forward)


@pytest.mark.parametrize("door", ["auto", "jacobian", "products", "plan", "operator"])
def test_a_gradient_that_autograd_refuses(door):
    """Oracle: autograd itself, on one batch. It is no coupling of samples: each goes forward alone as well."""
    model = With(lambda m, x: m.b(m.a(x).relu_().mul_(2)), a=nn.Linear(4, 5), b=nn.Linear(5, 3))
    with pytest.raises(RuntimeError, match="inplace"):
        model(X).sum().backward()
    with pytest.raises(KernelError, match=r"autograd refuses its gradient: .*modified by an inplace operation"):
        DOORS[door](model)
