"""How much an accelerator is asked for in a warm call of the benchmarks: operations that are launched, and reads by the host.

Oracle: a dispatch mode's count (:mod:`tests.ntk.launches`). Few samples: no count grows with them but by the triangle of large
products, which is taken where it saves more than its launches cost; ``python -m tests.ntk.launches`` prints the table at
the benchmarks' sizes. Bounds are what was counted, so that a launch more is seen.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk.capture.capture import Capture
from kerneltrack.ntk.contraction.gram import row_blocks
from kerneltrack.ntk.machine import Machine, use
from kerneltrack.ntk.methods import StructuredPlan
from tests.ntk.host_reads import reads
from tests.ntk.launches import GOALS, launches, warm_call

#: Samples here, and the launches that were counted with them.
COUNTED = {"M1": (8, 84), "M2": (40, 116), "C1": (8, 117), "D1": (4, 359), "L1": (2, 494), "T1": (2, 588)}


@pytest.fixture(autouse=True)
def accelerator():
    with use(Machine.accelerator(memory=80e9)):
        yield


@pytest.mark.parametrize("name", COUNTED)
def test_a_warm_call_launches_no_more(monkeypatch, name):
    """The bounds of the issue, and what was reached. Reads: one, of all checks; before, one or two for every layer."""
    samples, bound = COUNTED[name]
    call = warm_call(name, samples)
    found = launches(call)
    assert found.total() <= bound <= GOALS[name], found.most_common(12)


@pytest.mark.nightly
def test_a_resnet_launches_no_more():
    """Its call takes seconds on a CPU, with few samples too."""
    assert launches(warm_call("C2", 4)).total() <= 854 <= GOALS["C2"]


def deep(samples, layers=3):
    torch.manual_seed(0)
    net = [part for _ in range(layers) for part in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*net, nn.Linear(6, 3)), torch.randn(samples, 6)


def embedded(samples):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(50, 4, padding_idx=0), nn.Linear(4, 4), nn.GELU(), nn.Flatten(), nn.Linear(20, 2))
    return net, torch.randint(50, (samples, 5))


def convolved(samples):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    return net.eval(), torch.randn(samples, 2, 6, 6)


@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("build", [deep, embedded, convolved])
def test_the_host_reads_once_whatever_n(monkeypatch, build, output):
    """At most three are asked for. ``numpy`` is left out: it is of the CPU's generators, and of what was read."""
    counts = []
    for samples in (6, 24):
        model, x = build(samples)

        def call(model=model, x=x):
            kt.empirical_ntk(model, x, output=output)

        call()
        call()
        counts.append(reads(monkeypatch, call, ("tolist", "cpu")))
    assert counts == [1, 1]


def test_two_sets_of_samples_are_read_together(monkeypatch):
    model, x = deep(9)

    def call():
        kt.empirical_ntk(model, x[:5], x[5:])

    call()
    call()
    assert reads(monkeypatch, call, ("tolist", "cpu")) == 1


def test_a_second_call_tries_and_plans_nothing(monkeypatch):
    """Oracle: counts. One capture, of all samples; no plan is made, on either kind of machine."""
    for machine in (Machine.accelerator(), Machine()):
        model, x = deep(6)
        with use(machine):
            first = kt.empirical_ntk(model, x)
            seen, run = [], Capture.run

            def counting(self, network, leaves, samples, seen=seen, run=run):
                seen.append(len(samples))
                return run(self, network, leaves, samples)

            with monkeypatch.context() as patch:
                patch.setattr(Capture, "run", counting)
                patch.setattr(StructuredPlan, "of", lambda *given: pytest.fail("a plan was made"))
                again = kt.empirical_ntk(model, x)
        assert seen == [6]
        torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_a_warm_call_walks_the_module_once(monkeypatch):
    """However deep it is, and where no audit is due: that asks the witness. Oracle: a count of walks that begin at the root. It
    was walked two dozen times."""
    model, x = deep(6)
    for _ in range(4):
        kt.empirical_ntk(model, x)
    walks, walk = [], nn.Module.named_modules

    def counting(self, memo=None, prefix="", remove_duplicate=True):
        walks.extend([self] if memo is None else [])
        return walk(self, memo, prefix, remove_duplicate)

    monkeypatch.setattr(nn.Module, "named_modules", counting)
    kt.empirical_ntk(model, x)
    assert len(walks) == 1


def test_a_triangle_is_taken_where_it_pays():
    """Oracle: arithmetic. Three more launches of 1.5e9 operations each, against 3/8 of 2R²P."""
    machine = Machine.accelerator()
    assert len(row_blocks(2560, 2 * 2560 * 16384, 1, machine)) == 4
    assert len(row_blocks(2560, 2 * 2560 * 100, 1, machine)) == 1
    assert len(row_blocks(640, 2 * 640 * 2**20, 1, machine)) == 1
