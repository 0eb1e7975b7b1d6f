"""A kernel leaves nothing behind: no tensor stays alive after the call, whatever the method.

Oracle: the garbage collector's own list of live tensors, before and after ten further calls.
"""

import gc

import pytest
import torch
from torch import nn

import kerneltrack as kt


def live_tensors():
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
def test_no_tensor_outlives_the_call(method):
    net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2), nn.Tanh()).eval()
    x = torch.randn(8, 3)
    for _ in range(2):  # the second call draws the u of its comparison, once in a process
        kt.empirical_ntk(net, x, method=method)
    before = live_tensors()
    for _ in range(10):
        kt.empirical_ntk(net, x, method=method)
    assert live_tensors() == before


def test_the_count_sees_a_tensor_that_stays():
    """Negative control."""
    before = live_tensors()
    kept = torch.zeros(1)
    assert live_tensors() == before + 1
    del kept
