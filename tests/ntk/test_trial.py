"""The trial capture: of all samples where they are small, and then not made again; of one where they are not.

Oracle: a count of captures, and plain Jacobians of the same network in float64.
"""

from dataclasses import replace
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import nn

from kerneltrack import empirical_ntk
from kerneltrack.ntk.capture.capture import Capture
from kerneltrack.ntk.methods import Execution, KernelOptions, KernelRequest, StructuredPlan, kept_plans
from kerneltrack.ntk.network import Inputs

NET = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
X, OTHER = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def captured(monkeypatch):
    """How many samples each capture had; no plan of an earlier test is known."""
    monkeypatch.setattr(kept_plans, "_KEPT", WeakKeyDictionary())
    counts = []
    run = Capture.run

    def counting(self, network, leaves, samples):
        counts.append(len(samples))
        return run(self, network, leaves, samples)

    monkeypatch.setattr(Capture, "run", counting)
    return counts


def agrees(x2, **options):
    found, expected = (empirical_ntk(NET, X, x2, method=m, **options) for m in ("structured", "jacobian"))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("x2", "expected"), [(None, [6]), (OTHER, [6, 6]), (X.clone(), [6, 6])], ids=["one", "other", "copy"]
)
def test_small_samples_are_captured_once(captured, x2, expected):
    """Samples of the same shape, and even of the same values, are not taken for those of the trial."""
    agrees(x2)
    assert captured == expected


def test_large_samples_are_tried_by_one(captured, machine):
    machine(small_bytes=0)
    agrees(None)
    assert captured == [1, 6]


def test_a_trial_of_all_is_dropped_where_blocks_are_smaller(captured, monkeypatch):
    """Memory for two samples at a time, as if a capture of all had been thought small."""
    plan = StructuredPlan.of
    monkeypatch.setattr(StructuredPlan, "of", lambda *a: replace(plan(*a), block_samples=2))
    agrees(None)
    assert captured == [6, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(("order", "captures"), [((OTHER, X), 3), ((X, X), 2)], ids=["others first", "the same twice"])
def test_a_trial_stands_for_its_own_samples_and_once(captured, order, captures):
    """Sides taken otherwise than a kernel takes them. Oracles: the first layer's recorded input is the samples; a count."""
    execution = Execution.of(KernelRequest.of(NET, X, None, KernelOptions(method="structured", memory_budget=2**30)))
    for samples in order:
        with execution.request.network.evaluating():
            side = execution.block(Inputs(samples))
        assert torch.equal(side.factors.uses[0].record.operands[0].reshape(X.shape), samples)
    assert captured == [6] * captures
