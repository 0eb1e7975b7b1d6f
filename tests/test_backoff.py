"""Out of memory ends in smaller tiles, not in a crash. Oracle: the kernel without any limit, equal bit for bit or refused."""

import re

import pytest
import torch
from torch import nn

import kerneltrack.measurement.kernel_over_ranks as engine
from kerneltrack import Probe, empirical_ntk
from kerneltrack.distributed import Ranks
from kerneltrack.measurement import kernels
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.memory_budget import MemoryBudget, budget_bytes, ran_out
from kerneltrack.ntk import NetworkState, cross_time_ntk
from kerneltrack.observables import select
from kerneltrack.training.update_rule import UpdateRule

CPU = torch.device("cpu")
RULE = UpdateRule((0.1,), {}, None)


def limited(limit, error):
    """The engine on a machine on which budgets above ``limit`` bytes fail."""
    asked = []

    def compute(*args, **options):
        budget = budget_bytes(options["memory_budget"], CPU)
        asked.append(budget)
        if budget > limit:
            raise error
        return empirical_ntk(*args, **options)

    return compute, asked


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_kernel_is_measured_again_in_smaller_tiles(monkeypatch, error):
    net, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double(), torch.randn(6, 3).double()
    instrument = Instrument(probe=Probe(x), memory_budget="1GiB", observables=select("trace"))
    expected = empirical_ntk(net, x)
    compute, asked = limited(2**26, error)
    monkeypatch.setattr(engine, "empirical_ntk", compute)
    reading = instrument.measure(net, RULE, step=0, keep_kernel=True)
    assert asked == [2**30 >> i for i in range(5)]
    torch.testing.assert_close(torch.from_numpy(reading.values["kernel"]), expected, rtol=1e-12, atol=1e-12)
    assert re.fullmatch("out of memory: measured again in tiles of 64.0 MiB", reading.remarks[0])
    again = instrument.measure(net, RULE, step=1)
    assert asked[5:] == [2**26]  # what worked is kept
    assert again.remarks == ()


def failing_above(limit, compute, asked):
    """``compute`` on a machine on which budgets above ``limit`` bytes fail."""

    def limited(*args, **options):
        asked.append(budget_bytes(options["memory_budget"], CPU))
        if asked[-1] > limit:
            raise ERRORS[0]
        return compute(*args, **options)

    return limited


@pytest.mark.parametrize("kind", ["own", "cross_time"])
def test_every_kernel_of_a_measurement_is_tried_in_smaller_tiles(monkeypatch, kind):
    """Fails where only the probe's own kernel is: smaller budgets are tried, kept for the next kernel, and told once."""
    net, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double(), torch.randn(6, 3).double()
    x2, state, asked = torch.randn(4, 3).double(), NetworkState.of(net), []
    for parameter in net.parameters():
        parameter.data.mul_(1.1)
    expected = empirical_ntk(net, x, x2) if kind == "own" else cross_time_ntk(net, x, state)
    for name in ("empirical_ntk", "cross_time_ntk"):
        monkeypatch.setattr(kernels, name, failing_above(2**20, getattr(kernels, name), asked))
    of_probe = kernels.Kernels(
        probe="p", output="full", method="auto", forward=None, params=None, memory_budget="4MiB", ranks=Ranks()
    )
    found = of_probe.own(net, x, x2) if kind == "own" else of_probe.cross_time(net, x, state)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert asked == [2**22, 2**21, 2**20]
    assert of_probe.remark() == "out of memory: measured again in tiles of 1.0 MiB"
    of_probe.own(net, x)
    of_probe.cross_time(net, x, state)
    assert asked[3:] == [2**20, 2**20]
    assert of_probe.remark() == ""


def test_what_never_fits_raises_what_the_machine_said(monkeypatch):
    net, x = nn.Linear(3, 1), torch.randn(6, 3)
    compute, _ = limited(0, ERRORS[0])
    monkeypatch.setattr(engine, "empirical_ntk", compute)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        Instrument(probe=Probe(x), memory_budget=2**6, observables=select("trace")).measure(net, RULE, step=0)


def test_other_errors_are_not_retried():
    calls = []

    def compute(budget):
        calls.append(budget)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        MemoryBudget(None).run(compute, CPU)
    assert calls == [None]


def test_what_memory_errors_look_like():
    assert all(map(ran_out, ERRORS))
    assert not ran_out(RuntimeError("shapes"))
    assert not ran_out(ValueError("out of memory"))


@pytest.mark.skipif(not hasattr(__import__("resource", fromlist=[""]), "RLIMIT_AS"), reason="needs RLIMIT_AS")
def test_the_allocator_itself_is_recognised():
    """Oracle: torch's own allocator, asked for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)
