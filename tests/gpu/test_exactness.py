"""Every model of the product suite has its kernel on the device, by every method.

Oracle: the double loop over plain autograd on the CPU in float64 (tests/ntk/oracles.py), which knows no device.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.ntk import NetworkState, cross_time_ntk
from tests.gpu.moved import inputs_on, kernel_by, model_on
from tests.ntk.exact_kernels import exact, matrix
from tests.ntk.oracles import EXACT, contract, distance, jacobian
from tests.ntk.problems import PROBLEMS, ROWS, samples

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, for even kernels


def rounding(name, device):
    """torch's fused weight normalisation takes its norms in float32 on a CUDA device, of float64 weights too.

    A weight is then off by some 2^-24, its derivative by three times that (the norm stands there in its third power), a kernel
    by twice its Jacobian. The network itself is that far from the CPU's: plain autograd on the device says the same.
    """
    return 6 * 2**-24 if device.type == "cuda" and name.startswith("weight-norm") else EXACT


def placed(name, device):
    problem = PROBLEMS[name]
    return model_on(device, problem.model()), inputs_on(device, samples(problem.inputs(), ROWS)), problem.forward


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian", "products"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_kernels(device, name, method):
    model, x, forward = placed(name, device)
    kernel = kernel_by(method, model, x, forward=forward)
    if kernel is not None:
        assert distance(kernel, exact(name)) < rounding(name, device)


@pytest.mark.parametrize("name", PROBLEMS)
def test_products(device, name):
    """The first by passes, the next by factors wherever the model has them."""
    model, x, forward = placed(name, device)
    operator, dense = kt.NTKOperator(model, x, forward=forward), matrix(exact(name))
    vectors = torch.randn(len(dense), 2, dtype=torch.float64)
    for _ in range(3):
        found = operator.matmat(vectors.to(device)).cpu()
        assert distance(found, dense @ vectors.numpy()) < rounding(name, device)
    assert distance(operator.diagonal().cpu(), dense.diagonal()) < rounding(name, device)


@pytest.mark.parametrize("name", ["mlp", "lenet-inplace", "resnet-batch-norm", "gpt-tied", "lstm"])
def test_an_anchor_that_is_the_same_state(device, name):
    model, x, forward = placed(name, device)
    found = cross_time_ntk(model, x, NetworkState.of(model), forward=forward)
    assert distance(found.cpu(), exact(name)) < EXACT


@pytest.mark.parametrize("name", ["weight-norm", "weight-norm-old", "weight-norm-conv"])
def test_weight_normalisation_is_the_devices_own(device, name):
    """Oracle: the double loop over plain autograd on the same device, whose norms are rounded as ours: no tolerance but EXACT."""
    model, x, forward = placed(name, device)
    assert forward is None
    rows = jacobian(model, x)
    for method in ("jacobian", "products"):
        assert distance(kernel_by(method, model, x), contract(rows, rows, "full")) < EXACT


def test_reduced_precision_that_the_user_has_chosen(device):
    """TF32 has 10 bits; the kernel is in full float32, whose rounding over a hundred terms is some 1e-6."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 3)).to(device)
        x = torch.randn(8, 64, device=device)
        found = kt.empirical_ntk(model, x)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    expected = kt.empirical_ntk(model.double().cpu(), x.double().cpu())
    assert distance(found.double().cpu(), expected.numpy()) < 1e-5
