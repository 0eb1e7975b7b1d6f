"""Hooks that change gradients, on parameters, tensors and modules: a row of J is what autograd gives with the hook alive.

Oracle: the double loop over autograd on the very model, hooks included, one output of one sample at a time.
"""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_full_backward_hook

import kerneltrack as kt
from kerneltrack.errors import KernelError
from tests.ntk.oracles import EXACT, contract, distance, jacobian

X = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 8), nn.Linear(8, 3)).double()


def masked(g):
    return g * (torch.arange(len(g)) % 2)[:, None]


def clipped(g):
    return g.clamp(-0.05, 0.05)


def in_place(g):
    g.mul_(0.5)


def halved(given):
    return tuple(None if g is None else g / 2 for g in given)


def on_parameter(hook):
    def build():
        model = net()
        model[0].weight.register_hook(hook)
        return model, None

    return build


def on_tensor(hang):
    def forward(m, x):
        h = torch.tanh(m[0](x))
        if h.requires_grad:
            hang(h)
        return m[3](m[2](h))

    return lambda: (net(), forward)


def on_module(register, hook):
    def build():
        model = net()
        getattr(model[2], register)(hook)
        return model, None

    return build


CHANGING = {
    "parameter": on_parameter(masked),
    "parameter, not linear": on_parameter(clipped),
    "parameter, in place": on_parameter(in_place),
    "parameter, only large ones": on_parameter(lambda g: None if g.abs().max() < 0.1 else g / g.abs().max()),
    "tensor": on_tensor(lambda h: h.register_hook(lambda g: g / 4)),
    "tensor, not linear": on_tensor(lambda h: h.register_hook(clipped)),
    "tensor, by name": on_tensor(lambda h: h.register_hook(hook=lambda g: g / 4)),
    "node": on_tensor(lambda h: h.grad_fn.register_hook(lambda inner, outer: halved(inner))),
    "node, before": on_tensor(lambda h: h.grad_fn.register_prehook(halved)),
    "module": on_module("register_full_backward_hook", lambda m, inner, outer: halved(inner)),
    "module, before": on_module("register_full_backward_pre_hook", lambda m, outer: halved(outer)),
    "module, not linear": on_module("register_full_backward_pre_hook", lambda m, outer: (clipped(outer[0]),)),
}
LOOKING = {
    "parameter": on_parameter(lambda g: None),
    "tensor": on_tensor(lambda h: h.register_hook(lambda g: None)),
    "module": on_module("register_full_backward_hook", lambda m, inner, outer: None),
    "after accumulation": lambda: (accumulated(net()), None),
}


def accumulated(model):
    """Not part of autograd.grad: an optimizer that steps in the backward pass is hung there."""
    model[0].weight.register_post_accumulate_grad_hook(lambda p: p.grad.zero_())
    return model


def exact(model, forward):
    rows = jacobian(model, X, forward)
    truth = contract(rows, rows, "full")
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, X, forward=forward, method=method), truth) < EXACT, method
    operator = kt.NTKOperator(model, X, forward=forward)
    matrix = truth.transpose(0, 2, 1, 3).reshape(operator.shape)
    for _ in range(2):  # by passes, then by factors
        assert distance(operator.matmat(torch.eye(len(matrix), dtype=torch.float64)), matrix) < EXACT


@pytest.mark.parametrize("name", CHANGING)
def test_hooks_are_alive(name):
    model, forward = CHANGING[name]()
    exact(model, forward)
    with pytest.raises(KernelError, match="hook"):
        kt.empirical_ntk(model, X, forward=forward, method="structured")


@pytest.mark.parametrize("name", LOOKING)
def test_hooks_that_only_look_on_cost_nothing(name):
    model, forward = LOOKING[name]()
    exact(model, forward)
    assert kt.ntk_plan(model, X, forward=forward).method == "structured"


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_hook_on_every_module():
    handle = register_module_full_backward_hook(lambda m, inner, outer: halved(inner))
    try:
        exact(net(), None)
    finally:
        handle.remove()


def test_a_hook_that_comes_and_goes():
    """What was seen of the module without it is not taken for an answer."""
    model = net()
    exact(model, None)
    handle = model[0].weight.register_hook(masked)
    exact(model, None)
    handle.remove()
    exact(model, None)


def test_other_parameters_keep_their_structure():
    model = net()
    model[0].weight.register_hook(masked)
    plan = kt.ntk_plan(model, X)
    rules = {line.parameters[0]: (line.rule, line.reason) for line in plan.uses}
    assert rules["0.weight"] == ("jacobian", "a hook changes its gradient")
    assert rules["2.weight"][0] == "linear"


def test_frozen_by_a_hook_is_frozen():
    """Closed form: with the weight's gradient at zero the bias is left, whose kernel is the identity."""
    model = nn.Linear(4, 3).double()
    model.weight.register_hook(lambda g: 0 * g)
    identity = torch.eye(3, dtype=torch.float64).expand(len(X), len(X), 3, 3)
    for method in ("auto", "jacobian", "products"):
        assert torch.equal(kt.empirical_ntk(model, X, method=method), identity)
