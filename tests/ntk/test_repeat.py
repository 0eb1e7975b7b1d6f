"""A call that repeats an earlier one asks nothing again but what may have changed.

Oracles: the plain Jacobian of the network as it is now, and the states of generators and modules before the call.
"""

import gc
import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk import machine as sizes
from kerneltrack.ntk.methods import KernelRequest, audit, comparison, recording, repeat
from kerneltrack.ntk.methods.operator_tape import OperatorTape
from kerneltrack.ntk.network import still
from tests.ntk.test_recording import X, agrees, small

#: Plan, watch (twice at most), record; no audit is due with the next two.
WARM = 5


@pytest.fixture(autouse=True)
def every_kernel_is_small(monkeypatch):
    monkeypatch.setattr(sizes, "SMALL", 10**12)
    monkeypatch.setattr(recording, "tape_for", lambda device: OperatorTape())


@pytest.fixture
def only_repeats(monkeypatch):
    """Called, it closes the ordinary way."""
    return lambda: monkeypatch.setattr(KernelRequest, "unlooked", lambda *given: pytest.fail("asked anew"))


def warm(model, x=X, **options):
    for _ in range(WARM):
        kt.empirical_ntk(model, x, **options)
    return model


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


WAYS = {"no grad": torch.no_grad, "inference": torch.inference_mode, "autocast": lambda: torch.autocast("cpu")}
OPTIONS = ({}, {"output": "trace"}, {"output": "sum", "by_layer": True}, {"output": "diagonal", "gauge": "softmax"})


@pytest.mark.parametrize(("way", "options"), [*zip((*WAYS, "no grad"), OPTIONS, strict=True)], ids=str)
def test_nothing_is_asked_again(only_repeats, way, options):
    model = warm(small(), **options)
    with torch.no_grad():
        model[0].weight.mul_(1.5)
        model[1].running_mean.add_(0.1)
    expected = kt.empirical_ntk(model, X, method="jacobian", **options)
    only_repeats()
    with WAYS[way]():
        found = kt.empirical_ntk(model, X, **options)
    close(found, expected)


def test_a_kernel_is_the_caller_s(only_repeats):
    """Fails where the recording's own memory is given away. Two sets of samples: each was looked at once."""
    model, others = small(), (X + 1, X[:4] - 1)
    for _ in range(WARM):
        first, second = kt.empirical_ntk(model, X, X[:4]), kt.empirical_ntk(model, *others)
    expected = first.clone(), second.clone()
    only_repeats()
    for x, kernel in ((X, X[:4]), expected[0]), (others, expected[1]), ((X, X[:4]), expected[0]):
        found = kt.empirical_ntk(model, *x)
        close(found, kernel)
        found.zero_()
    assert torch.equal(first, expected[0])


class Restless(nn.Module):
    """Writes to an attribute and to a buffer, and once it is told so draws numbers that change nothing, or something."""

    def __init__(self):
        super().__init__()
        self.layer, self.last, self.draws = nn.Linear(4, 3).double(), None, []
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.last = self.layer(x)
        self.calls += 1
        for draw in self.draws:
            draw()
        return self.last.tanh()


DRAWS = {"Python": random.random, "NumPy": np.random.randn, "torch": lambda: torch.rand(())}


def states():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2:],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("pairs", [0, 1], ids=["whole", "half a pair"])
@pytest.mark.parametrize("name", DRAWS)
def test_generators_that_move_are_put_back(name, pairs):
    """NumPy gives normal numbers in pairs: the second one moves no word of its state."""
    np.random.randn(1 + 2 * pairs if pairs else 2)
    before = states()
    with still() as quiet:
        pass
    with still() as moved:
        DRAWS[name]()
    assert (not quiet, bool(moved), states()) == (True, True, before)
    np.random.seed(0)


@pytest.mark.parametrize("name", DRAWS)
def test_a_forward_pass_leaves_no_trace(only_repeats, name):
    model = warm(Restless().eval())
    kept, before = (model.calls, float(model.calls), model.last), states()
    model.draws.append(DRAWS[name])  # in the key of no plan
    agrees(model)
    model.draws.clear()
    agrees(model)
    if name != "torch":  # what has drawn by its operators is recorded no more
        warm(model)
        only_repeats()
        kt.empirical_ntk(model, X)
    assert states() == before
    assert (model.calls, float(model.calls), model.last) == kept


def test_the_second_number_of_a_pair_is_not_given_twice():
    """Fails where what was read with it is taken for the state after it."""
    np.random.randn(3)
    with still():
        pass
    np.random.randn()
    before = states()
    with still():
        np.random.rand()
    assert states() == before


def test_a_forward_pass_that_draws_is_asked_anew(only_repeats):
    model = warm(Restless().eval())
    model.draws.append(random.random)
    only_repeats()
    with pytest.raises(pytest.fail.Exception, match="asked anew"):
        kt.empirical_ntk(model, X)


def test_a_weight_that_is_thawed():
    """Outputs and all other derivatives stay. Fails where the walk does not see it."""
    model = small()
    model[0].weight.requires_grad_(False)
    warm(model)
    model[0].weight.requires_grad_(True)
    agrees(model)


def test_audits_are_due_as_ever(monkeypatch):
    """With calls 1, 2, 4, 8, 16."""
    model, seen = small(), []
    monkeypatch.setattr(audit, "audit", lambda *given: seen.append(True) or True)
    audited = [kt.empirical_ntk(model, X) is not None and len(seen) for _ in range(17)]
    assert audited == [1, 2, 2, 3, 3, 3, 3, *[4] * 8, 5, 5]


def test_a_call_that_free_memory_may_not_hold_is_asked_anew(monkeypatch, only_repeats):
    model = warm(small())
    monkeypatch.setattr(repeat, "_SPARE", 10)
    monkeypatch.setattr(repeat, "available_bytes", lambda device: 2)
    only_repeats()
    with pytest.raises(pytest.fail.Exception, match="asked anew"):
        kt.empirical_ntk(model, X)


def test_it_keeps_no_module():
    """One whose child knows it, too. Fails where the walk keeps objects instead of marks."""
    model = small()
    model[0].above = [model]
    gone = weakref.ref(warm(model))
    assert repeat._REPEATS[model]
    del model
    gc.collect()
    assert gone() is None


def notes_of(kind, change):
    """Notes of four samples with two outputs, and what a batch of them has."""
    draw = torch.Generator().manual_seed(0)
    outputs, other = (torch.randn(4, 2, generator=draw).to(kind) for _ in range(2))
    pulled = {
        name: torch.randn(size, generator=draw).to(kind) for name, size in (("a", (3, 2)), ("b", ()), ("c", (5,)))
    }
    found = {name: part + 1 for name, part in pulled.items()}
    change(pulled, found)
    return comparison.Notes([outputs], [outputs], pulled), other, found, outputs


def one_sided(pulled, found):
    pulled["a"], found["c"], pulled["d"], found["d"] = None, None, None, None


CHANGED = {
    "all there": lambda pulled, found: None,
    "on one side": one_sided,
    "not finite": lambda pulled, found: (found["a"].view(-1)[4:].fill_(torch.nan), pulled["c"][1:2].fill_(torch.inf)),
    "two dtypes": lambda pulled, found: found.update(b=found["b"].double()),
    "none": lambda pulled, found: (pulled.update(dict.fromkeys(pulled)), found.update(dict.fromkeys(found))),
}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_numpy_finds_what_torch_finds(kind, change):
    """Oracle: the same numbers by torch, parameter by parameter; a difference is rounded once by each."""
    given = notes_of(kind, change)
    expected = comparison.measured(*given)
    found = torch.from_numpy(comparison.measured_by_numpy(*given))
    torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(kind).eps, atol=0.0, equal_nan=True)
