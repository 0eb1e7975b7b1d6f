"""The kernel with the trace of each layer's, of which no layer's kernel is held. Oracle: the layers' kernels themselves.

In float64; what differs is the order of sums of some hundred terms, 1e-13 of the largest.
"""

import pytest
import torch

from kerneltrack.ntk import KernelOptions, empirical_ntk, kernel_and_traces, trace
from tests.ntk.problems import PROBLEMS

#: A structured network, one with a plan of few operations, a weight that is used twice, and what no structure explains in part.
NAMES = ("mlp", "lenet-inplace", "gpt-tied", "control-flow")
ASKED = ({}, {"output": "trace", "gauge": "softmax"}, {"output": "diagonal"}, {"output": "sum"}, {"method": "jacobian"})


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_sum_and_the_traces_are_those_of_the_layers_kernels(name, asked):
    problem = PROBLEMS[name]
    model, x, forward = problem.model(), problem.inputs(), problem.forward
    for call in range(3 if asked else 5):  # plan; watched calls, recording, and a call that repeats
        layers = empirical_ntk(model, x, by_layer=True, forward=forward, **asked)
        options = KernelOptions(by_layer=True, forward=forward, **asked)
        kernel, traces, _ = kernel_and_traces(
            model, x, options, keeps=("nothing", "what is there", "factors")[call % 3]
        )
        expected = sum(layers.values(), torch.zeros_like(kernel))
        torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
        assert list(traces) == list(layers)
        assert traces == pytest.approx({layer: trace(own) for layer, own in layers.items()}, rel=1e-12)
