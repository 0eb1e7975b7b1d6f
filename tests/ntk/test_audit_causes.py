"""What a failed audit says: the cause, where the model is the cause, and a remedy that is right.

Oracle for the remedies: the double loop over autograd.
"""

import importlib

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import AuditError, KernelError, UnsupportedModelError
from kerneltrack.ntk.capture.jacobian_block import KroneckerBlock
from kerneltrack.ntk.methods import Execution, Jacobian
from kerneltrack.ntk.network import Network, independence
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.tiers import diagonals

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).double()


@pytest.mark.audit
@pytest.mark.parametrize(
    "coupling", [lambda c: c.mean(0) - c.mean(0).detach(), lambda c: c[-1] - c[-1].detach()], ids=["mean", "last"]
)
def test_coupling_is_asked_for_before_a_plan_is_blamed(monkeypatch, coupling):
    """The look at a few samples is switched off, so that the audit meets the coupled derivative."""
    monkeypatch.setattr(independence, "_refuse", lambda *arguments: None)
    with pytest.raises(UnsupportedModelError, match="couples samples") as raised:
        kt.empirical_ntk(net(), X, forward=lambda m, x: m(x) + coupling(m(x)))
    assert "jacobian" not in raised.value.remedy


class Mixed(torch.autograd.Function):
    """The identity, with a backward pass of its own that mixes nine samples and more."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g + g.mean(0) if len(g) > 8 else g


def only_in_the_derivative(part, above):
    """f + c − c, the second c without a derivative, where there are more samples than ``above``."""

    def forward(m, x):
        h = m(x)
        c = part(h) if len(h) > above else h[:1]
        return h + (c - c.detach()) * (len(h) > above)

    return forward


#: Couplings that the values of the outputs do not show, in batches larger than the few that are looked at first.
UNSEEN = {
    "mean, above 8": only_in_the_derivative(lambda h: h.mean(0), 8),
    "mean, above 3": only_in_the_derivative(lambda h: h.mean(0), 3),
    "neighbours, above 11": only_in_the_derivative(lambda h: h.roll(1, 0), 11),
    "one pair": only_in_the_derivative(lambda h: torch.cat([h[8:9], torch.zeros_like(h[1:])]), 8),
    "norm": only_in_the_derivative(lambda h: h / h.norm(dim=0), 8),
    "a backward pass of its own": lambda m, x: Mixed.apply(m(x)),
}
WAYS = {
    "auto": lambda forward, x: kt.empirical_ntk(net(), x, forward=forward),
    "jacobian": lambda forward, x: kt.empirical_ntk(net(), x, forward=forward, method="jacobian"),
    "products": lambda forward, x: kt.empirical_ntk(net(), x, forward=forward, method="products"),
    "operator": lambda forward, x: kt.NTKOperator(net(), x, forward=forward).matvec(torch.ones(36).double()),
}


@pytest.mark.audit
@pytest.mark.parametrize(("coupling", "way"), diagonals(2, UNSEEN, WAYS))
def test_coupling_of_many_samples_in_the_derivative_is_called_that(coupling, way):
    """Whatever computed it: no defect of kerneltrack, and no other method, is spoken of."""
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with pytest.raises(UnsupportedModelError, match="couples samples: its derivative for a batch") as raised:
        WAYS[way](UNSEEN[coupling], x)
    assert "method=" not in str(raised.value)
    rows = jacobian(model := net(), x[:6], UNSEEN[coupling])  # of so few the kernel is right, or refused too
    if "above 3" not in coupling:
        kernel = kt.empirical_ntk(model, x[:6], forward=UNSEEN[coupling], method="jacobian")
        assert distance(kernel, contract(rows, rows, "full")) < EXACT


@pytest.mark.audit
@pytest.mark.parametrize("output", ["full", "diagonal", "trace", "sum"])
def test_an_operator_is_audited_with_products_that_double(monkeypatch, output):
    room, done = importlib.import_module("kerneltrack.ntk.methods.audit"), []
    real = room.audit_products
    monkeypatch.setattr(room, "audit_products", lambda *given: done.append(given[2]) or real(*given))
    operator = kt.NTKOperator(net(), X, output=output)
    for _ in range(10):
        operator.matvec(torch.ones(operator.shape[0], dtype=torch.float64))
    assert done == ["passes", *["factors"] * 4]  # products 1 by passes, and 1, 2, 4, 8 by factors


@pytest.mark.audit
@pytest.mark.parametrize("output", ["full", "diagonal", "trace", "sum"])
def test_an_operator_s_defect_is_found_however_it_computes(monkeypatch, output):
    """Products by passes that are too large; and factors that become wrong after they were held."""
    operator, real = kt.NTKOperator(net(), X, output=output), Network.jvp
    v = torch.ones(operator.shape[0], dtype=torch.float64)
    with monkeypatch.context() as broken:
        many = lambda n, x, *given, **how: real(n, x, *given, **how) * (1 + (len(n.inputs(x)) > 3))  # noqa: E731
        broken.setattr(Network, "jvp", many)
        broken.setattr(importlib.import_module("kerneltrack.ntk.methods.audit"), "refuse_causes", lambda *given: None)
        with pytest.raises(AuditError, match=r"products by passes disagree.*defect"):
            operator.matvec(v)
    operator.matvec(v)
    operator.matvec(v)
    push = KroneckerBlock.push
    monkeypatch.setattr(KroneckerBlock, "push", lambda self, w, outputs: 0.5 * push(self, w, outputs))
    with pytest.raises(AuditError, match=r"products by factors disagree.*defect"):
        [operator.matvec(v) for _ in range(3)]


@pytest.mark.audit
def test_what_is_left_is_called_a_defect(monkeypatch):
    run = Execution.add_to

    def wrong(self, into, *rest):
        run(self, into, *rest)
        for matrix in into.values():
            matrix.mul_(2)

    monkeypatch.setattr(Execution, "add_to", wrong)
    model = net()
    with pytest.raises(
        AuditError, match=r"neither coupled samples nor random numbers nor gradient hooks.*defect"
    ) as raised:
        kt.empirical_ntk(model, X)
    assert 'method="jacobian"' in raised.value.remedy
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X, method="jacobian"), contract(rows, rows, "full")) < EXACT


METHODS = ("auto", "jacobian", "products")


@pytest.mark.audit
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_audited_with_calls_that_double(monkeypatch, method):
    room = importlib.import_module("kerneltrack.ntk.methods.audit")
    real, audited, model = room.audit, [], net()
    monkeypatch.setattr(room, "audit", lambda *given: audited.append(True) or real(*given))
    counts = [kt.empirical_ntk(model, X, method=method) is not None and len(audited) for _ in range(9)]
    assert counts == [1, 2, 2, 3, 3, 3, 3, 4, 4]  # on calls 1, 2, 4 and 8


def doubled(monkeypatch, method):
    """A defect in one method: every kernel by it is twice as large."""
    if method == "jacobian":
        rows = Jacobian.rows
        twice = lambda *given: {k: 2**0.5 * v for k, v in rows(*given).items()}  # noqa: E731
        monkeypatch.setattr(Jacobian, "rows", twice)
        return
    room = importlib.import_module("kerneltrack.ntk.forming")
    real = room.product_kernel
    monkeypatch.setattr(room, "product_kernel", lambda *given: [real(*given), real(*given)])


@pytest.mark.audit
@pytest.mark.parametrize("method", ["jacobian", "products"])
def test_no_method_is_the_remedy_of_its_own_defect(monkeypatch, method):
    model, other = net(), {"jacobian": "products", "products": "jacobian"}[method]
    doubled(monkeypatch, method)
    with pytest.raises(AuditError, match="defect") as raised:
        kt.empirical_ntk(model, X, method=method)
    assert f'method="{other}"' in raised.value.remedy
    rows = jacobian(model, X)
    assert distance(kt.empirical_ntk(model, X, method=other), contract(rows, rows, "full")) < EXACT


@pytest.mark.audit
@pytest.mark.parametrize("method", METHODS)
def test_a_defect_that_comes_later_is_found(monkeypatch, method):
    """The second call is audited too: what a plan rests on may change without being seen."""
    model = net()
    kt.empirical_ntk(model, X, method=method)
    if method == "auto":
        run = Execution.add_to
        monkeypatch.setattr(Execution, "add_to", lambda s, *given: [run(s, *given), run(s, *given)])
    else:
        doubled(monkeypatch, method)
    with pytest.raises(AuditError):
        kt.empirical_ntk(model, X, method=method)


@pytest.mark.audit
@pytest.mark.parametrize("method", ["auto", "products"])
def test_a_hook_that_nothing_announces_is_named_and_then_followed(method):
    """It hangs on a switch in a closure; oracle: the double loop with the hook alive."""
    model, switch = net(), []

    def forward(m, x):
        h = torch.tanh(m[0](x))
        if switch and h.requires_grad:
            h.register_hook(lambda g: g / 4)
        return m[1](h)

    kt.empirical_ntk(model, X, forward=forward, method=method)
    switch.append(True)
    with pytest.raises(KernelError, match="a hook on a tensor in forward="):
        kt.empirical_ntk(model, X, forward=forward, method=method)
    rows = jacobian(model, X, forward)
    kernel = kt.empirical_ntk(model, X, forward=forward, method=method)
    assert distance(kernel, contract(rows, rows, "full")) < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_a_switch_of_a_module_is_another_plan(method):
    """No call passes between the switch and the right kernel."""

    def rule(m, x):
        h = torch.tanh(m.a(x))
        if m.damped and h.requires_grad:
            h.register_hook(lambda g: g / 4)
        return m.b(h)

    model = With(rule, a=nn.Linear(4, 8), b=nn.Linear(8, 3)).double()
    for model.damped in (False, True, False):
        for _ in range(3):
            rows = jacobian(model, X)
            assert distance(kt.empirical_ntk(model, X, method=method), contract(rows, rows, "full")) < EXACT
