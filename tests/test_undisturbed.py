"""What a measurement touches is put back. Each guard is removed in turn, and the test that needs it must then fail."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack.undisturbed as guards
from kerneltrack.undisturbed import undisturbed


class Nosy(nn.Module):
    """Its forward disturbs whatever it can."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.BatchNorm1d(3).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        self.calls += 1
        self.replaced = self.replaced + torch.rand(2)
        random.random(), np.random.rand()
        return self.linear(self.frozen(self.norm(x)))


def everything(module):
    return {
        "flags": [m.training for m in module.modules()],
        "buffers": {n: (id(b), b.clone()) for n, b in module.named_buffers()},
        "rng": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
        ),
        "grad": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@contextmanager
def nothing(module):
    yield


def measured_inside(module, *, fails=False):
    with undisturbed(module):
        out = module(torch.randn(5, 3))
        assert out.requires_grad, "gradients must be available inside"
        assert not module.norm.training
        torch.autograd.grad(out.sum(), list(module.linear.parameters()))
        if fails:
            raise ValueError("in the middle")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("outside", ["plain", "no_grad", "inference", "autocast", "tf32"])
def test_everything_is_put_back(outside, fails):
    module = Nosy()
    module.linear(torch.zeros(1, 3)).sum().backward()
    contexts = {
        "plain": nothing(None),
        "tf32": nothing(None),
        "no_grad": torch.no_grad(),
        "inference": torch.inference_mode(),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
    }
    if outside == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        with contexts[outside]:
            before = everything(module)
            if fails:
                with pytest.raises(ValueError, match="in the middle"):
                    measured_inside(module, fails=True)
            else:
                measured_inside(module)
            assert same(everything(module), before)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("guard", ["preserved_rng", "preserved_buffers", "eval_flags"])
def test_each_guard_is_needed(monkeypatch, guard):
    """Negative control: without this one guard, a difference is seen."""
    kept = tuple(g for g in guards.GUARDS if g.__name__ != guard)
    assert len(kept) == len(guards.GUARDS) - 1
    monkeypatch.setattr(guards, "GUARDS", kept)
    module = Nosy()
    before = everything(module)
    with undisturbed(module):
        module(torch.randn(5, 3))
        module.train()
    assert not same(everything(module), before)


def test_the_guard_of_gradients_is_needed(monkeypatch):
    """Negative control: under no_grad, without it, there is nothing to differentiate."""
    monkeypatch.setattr(guards, "GUARDS", tuple(g for g in guards.GUARDS if g is not guards.gradients))
    with torch.no_grad(), pytest.raises(AssertionError, match="gradients must be available"):
        measured_inside(Nosy())


def test_autocast_is_off_inside():
    """Oracle: the dtype of a matrix product, bfloat16 under autocast."""
    linear = nn.Linear(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.ones(1, 3)).dtype == torch.bfloat16
        with undisturbed(linear):
            assert linear(torch.ones(1, 3)).dtype == torch.float32


def test_a_nan_buffer_is_not_rewritten():
    """A NaN is unequal to itself; rewriting it each time would bump the buffer's version for nothing."""
    module = nn.BatchNorm1d(2)
    module.running_mean.fill_(float("nan"))
    version = module.running_mean._version
    with undisturbed(module):
        pass
    assert module.running_mean._version == version


def test_the_generators_of_every_device_in_use_are_put_back(monkeypatch):
    """No GPU is needed to see it: two devices' states are kept in a list that stands in for the driver."""
    states = [torch.zeros(3), torch.ones(3)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [s.clone() for s in states])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda given: states.__setitem__(slice(None), given))
    with guards.preserved_rng():
        states[1] += 5
    assert [s.tolist() for s in states] == [[0.0] * 3, [1.0] * 3]


def test_a_sparse_buffer_is_put_back():
    """torch.equal knows no sparse tensors. Oracle: the bytes before."""
    module = nn.Linear(2, 2)
    module.register_buffer("graph", torch.eye(2).to_sparse())
    with undisturbed(module):
        module.graph._values().mul_(3)
    assert torch.equal(module.graph.to_dense(), torch.eye(2))
