"""A forward pass that writes into what it was given: a sample, a buffer, an attribute, a parameter.

Oracle: the bytes before and after; where it is accepted, the double loop over autograd.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.errors import UnsupportedModelError
from tests.ntk.models import With
from tests.ntk.oracles import EXACT, contract, distance, jacobian

CALLS = {
    "auto": lambda m, x: kt.empirical_ntk(m, x),
    "jacobian": lambda m, x: kt.empirical_ntk(m, x, method="jacobian"),
    "products": lambda m, x: kt.empirical_ntk(m, x, method="products"),
    "operator": lambda m, x: kt.NTKOperator(m, x),
    "plan": lambda m, x: kt.ntk_plan(m, x),
    "linearize": lambda m, x: kt.linearize(m)(x),
}
every_call = pytest.mark.parametrize("call", CALLS)


def samples():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def rule(forward):
    return With(forward, layer=nn.Linear(4, 3)).double().eval()


def centred(m, x):
    x -= x.mean(1, keepdim=True)
    return m.layer(x)


def behind_autograds_back(m, x):
    x.data.mul_(2)
    return m.layer(x)


@every_call
@pytest.mark.parametrize("forward", [centred, behind_autograds_back, lambda m, x: m.layer(x.mul_(1.5))])
def test_the_input_stays(forward, call):
    """Every pass has a copy of its own: the kernel is that of the same forward on x.clone()."""
    x, model = samples(), rule(forward)
    CALLS[call](model, x)
    assert torch.equal(x, samples())
    rows = jacobian(rule_like(model, lambda m, x: forward(m, x.clone())), samples())
    if call in ("auto", "jacobian", "products"):
        assert distance(CALLS[call](model, x), contract(rows, rows, "full")) < EXACT


def rule_like(model, forward):
    return With(forward, layer=model.layer).double().eval()


def remembering(m, x):
    m.layer.memory[0] = x.detach()[0]
    return m.layer(x)


@every_call
def test_an_attribute_is_named_and_stays(call):
    model = rule(remembering)
    model.layer.memory = torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises(UnsupportedModelError, match=r"layer\.memory"):
        CALLS[call](model, samples())
    assert not model.layer.memory.any()


@every_call
def test_a_buffer_that_matters_is_named(call):
    def forward(m, x):
        m.seen.add_(1)
        return m.layer(x) * m.seen

    model = rule(forward)
    model.register_buffer("seen", torch.zeros((), dtype=torch.float64))
    if call != "linearize":  # it has no samples to ask when it is made
        with pytest.raises(UnsupportedModelError, match=r"changes buffers: \['seen'\]"):
            CALLS[call](model, samples())
    assert float(model.seen) == 0


def test_a_buffer_that_does_not_matter_is_left():
    def forward(m, x):
        m.last.copy_(x.detach().mean())
        return m.layer(x)

    model = rule(forward)
    model.register_buffer("last", torch.zeros((), dtype=torch.float64))
    rows = jacobian(model, samples())
    model.last.zero_()
    for method in ("auto", "jacobian", "products"):
        assert distance(kt.empirical_ntk(model, samples(), method=method), contract(rows, rows, "full")) < EXACT
    assert float(model.last) == 0


@every_call
@pytest.mark.parametrize("quietly", [True, False])
def test_a_parameter_is_named_and_stays(quietly, call):
    def forward(m, x):
        with torch.set_grad_enabled(not quietly):
            m.layer.weight.mul_(0.5)
        return m.layer(x)

    model = rule(forward)
    before = model.layer.weight.detach().clone()
    with pytest.raises(UnsupportedModelError, match="changes parameters in place"):
        CALLS[call](model, samples())
    assert torch.equal(model.layer.weight, before)
