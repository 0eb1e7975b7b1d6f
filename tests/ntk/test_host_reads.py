"""How often the host waits for the device during one warm call: as often for a deep network as for a shallow one.

Oracle: a count of what reads a tensor's value. The checks of a call compare on the device and read one answer; each
parameter that is asked for by itself would be a read of its own, and a pause of the device.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from tests.ntk.host_reads import reads


def perceptron(depth):
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(5, 5), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(5, 3))


def warm(model, method):
    """The second call of a plan is audited, the third is not."""
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))

    def call():
        kt.empirical_ntk(model, x, method=method)

    call()
    call()
    return call


@pytest.mark.parametrize(("method", "count"), [("jacobian", 4), ("products", 6)])
def test_the_checks_of_a_call_read_one_answer(monkeypatch, method, count):
    """One more is the sum of the samples' contents, which says whether they were looked at; the others are of the CPU's
    generators and, of products, of the draw of the samples, whatever the device. Whether vmap gave one sample's derivative
    is asked in the first call. Fails where each parameter is read: 18 and 34 then."""
    found = [reads(monkeypatch, warm(perceptron(depth), method)) for depth in (2, 6)]
    assert found == [count, count]


def test_by_structure_only_the_contraction_reads_more(monkeypatch):
    """It asks once a layer whether all samples have the same gradients; the checks add nothing to that."""
    shallow, deep = (reads(monkeypatch, warm(perceptron(depth), "auto")) for depth in (2, 6))
    assert deep - shallow <= 4
