"""Out of memory on the device is answered with smaller tiles. Oracle: the kernel without any limit, and the row's remark."""

import pytest
import torch
from torch import nn

import kerneltrack.measurement.kernel_over_ranks as engine
from kerneltrack import Probe, empirical_ntk
from kerneltrack.measurement.instrument import Instrument
from kerneltrack.memory_budget import budget_bytes
from kerneltrack.observables import select
from kerneltrack.training.update_rule import UpdateRule

RULE = UpdateRule((0.1,), {}, None)
MIB = 2**20


@pytest.fixture
def little_memory(device, monkeypatch):
    """A device with so many free bytes; on the CPU, an engine that fails above so large a budget."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory

        def limit(free):
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated(device) + free) / total, device)

        yield limit
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        return

    def limit(free):
        def compute(*args, **options):
            if budget_bytes(options["memory_budget"], device) > free:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return empirical_ntk(*args, **options)

        monkeypatch.setattr(engine, "empirical_ntk", compute)

    yield limit


def test_smaller_tiles(device, little_memory):
    """512 samples of wide layers: a block of all of them takes hundreds of MiB, and is told that it may take gigabytes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 2048), nn.Tanh(), nn.Linear(2048, 1024), nn.Tanh(), nn.Linear(1024, 8)).to(device)
    x = torch.randn(64 if device.type == "cpu" else 512, 64, device=device)
    expected = empirical_ntk(net, x, output="trace").cpu()
    instrument = Instrument(probe=Probe(x.cpu()), memory_budget="64GiB", output="trace", observables=select("trace"))
    little_memory(96 * MIB)
    reading = instrument.measure(net, RULE, step=0, keep_kernel=True)
    found = torch.from_numpy(reading.values["kernel"])
    torch.testing.assert_close(
        found.view_as(expected).to(expected), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )
    assert "out of memory: measured again in tiles of" in reading.remarks[0]
