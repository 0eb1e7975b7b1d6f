"""The oracles agree with each other, and each rejects a kernel that is wrong in one of the usual ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.ntk.oracles import (
    EXACT,
    contract,
    difference_jacobian,
    distance,
    jacobian,
    layer_of,
    linear_kernel,
    rows_of,
    tanh_network_kernel,
)
from tests.ntk.problems import COLUMNS, PROBLEMS, ROWS

N, IN, OUT = 6, 4, 3


@pytest.fixture
def inputs():
    return torch.randn(N, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network():
    """Two hidden layers: with one, every block Θ[n, m] is symmetric in the outputs and hides a transpose."""
    return nn.Sequential(nn.Linear(IN, 5), nn.Tanh(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, OUT)).double()


def by_hand(network, inputs):
    layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in network[::2]]
    return tanh_network_kernel(inputs.numpy(), layers)


def by_autograd(network, inputs):
    rows = jacobian(network, inputs)
    return contract(rows, rows, "full")


def by_differences(network, inputs):
    rows = difference_jacobian(network, inputs)
    return contract(rows, rows, "full")


# Central differences are off by 4e-11 per entry of J, so by some 1e-10 √P of Θ; 1e-8 leaves it a decade.
ORACLES = {"closed form": (by_hand, EXACT), "autograd": (by_autograd, EXACT), "differences": (by_differences, 1e-8)}


def one_of(kernel):
    return (np.arange(kernel.size) == 7).reshape(kernel.shape)


WRONGS = {
    "outputs transposed": lambda kernel: kernel.transpose(0, 1, 3, 2),
    "samples transposed": lambda kernel: kernel.transpose(1, 0, 2, 3),
    "factor of the outputs": lambda kernel: kernel / OUT,
    "two samples swapped": lambda kernel: kernel[[1, 0, *range(2, N)]],
    "off by one part in a million": lambda kernel: kernel * (1 + 1e-6),
    "another shape": lambda kernel: kernel.reshape(N * OUT, N * OUT),
    "one wrong entry": lambda kernel: kernel + 1e-6 * kernel.max() * one_of(kernel),
}


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_agrees_with_the_closed_form(oracle, network, inputs):
    compute, tolerance = ORACLES[oracle]
    assert distance(compute(network, inputs), by_hand(network, inputs)) < tolerance


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_rejects_a_wrong_kernel(oracle, wrong, network, inputs):
    compute, tolerance = ORACLES[oracle]
    truth = compute(network, inputs)
    assert distance(WRONGS[wrong](truth), truth) > tolerance


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_rejects_a_missing_bias(oracle, network, inputs):
    compute, tolerance = ORACLES[oracle]
    network[4].bias.requires_grad_(False)
    assert distance(by_autograd(network, inputs), compute(network.requires_grad_(True), inputs)) > tolerance


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_model_has_the_kernel_of_its_inputs(bias, inputs):
    x = inputs.numpy()
    rows = jacobian(nn.Linear(IN, OUT, bias).double(), inputs)
    assert distance(contract(rows, rows, "full"), linear_kernel(x, x, OUT, bias)) < EXACT
    assert distance(contract(rows, rows, "full"), linear_kernel(x, x, OUT, not bias)) > 1e-3


def test_reductions_differ_and_fit_the_full_kernel(network, inputs):
    """Oracle: the full kernel of the double loop, reduced by NumPy. Trace and sum are not the same."""
    rows = jacobian(network, inputs)
    full = contract(rows, rows, "full")
    reduced = {"diagonal": np.einsum("nmoo->nmo", full), "trace": np.einsum("nmoo->nm", full), "sum": full.sum((2, 3))}
    for output, expected in reduced.items():
        assert distance(contract(rows, rows, output), expected) < EXACT
    assert distance(reduced["trace"], reduced["sum"]) > 1e-3


def test_a_readout_is_differentiated(network, inputs):
    """Oracle: the chain rule, with the readout's own Jacobian by hand: g = (Σ f, Σ f²) has rows 1 and 2f."""
    rows = jacobian(network, inputs, readout=lambda f: torch.stack([f.sum(), (f * f).sum()]))
    f = network(inputs).detach().numpy()
    chain = np.stack([np.ones_like(f), 2 * f], axis=1)
    plain = jacobian(network, inputs)
    expected = np.einsum("nko,nmop,mlp->nmkl", chain, contract(plain, plain, "full"), chain)
    assert distance(contract(rows, rows, "full"), expected) < EXACT


def test_metric_weighs_each_parameter(network, inputs):
    """Oracle: P = 2 doubles the kernel; P zero but for one entry leaves that entry’s outer product."""
    rows = jacobian(network, inputs)
    plain = contract(rows, rows, "full")
    assert distance(contract(rows, rows, "full", dict.fromkeys(rows, 2.0)), 2 * plain) < EXACT
    metric = {name: np.zeros(block.shape[-1]) for name, block in rows.items()}
    metric["0.bias"][1] = 3.0
    single = rows["0.bias"][..., 1]
    assert distance(contract(rows, rows, "full", metric), 3 * np.einsum("no,mp->nmop", single, single)) < EXACT


def test_layers_are_named_after_their_module():
    assert layer_of("body.0.weight") == "body.0"
    assert layer_of("token") == ""
    assert layer_of("0.parametrizations.weight.original1") == "0"
    assert layer_of("parametrizations.weight.original0") == ""


def test_every_problem_is_small_distinct_and_leaves_the_generator_alone():
    """Models are small, the same each time, and made anew; building one draws nothing from the generator."""
    state = torch.random.get_rng_state()
    for problem in PROBLEMS.values():
        model, inputs = problem.model(), problem.inputs()
        assert sum(p.numel() for p in model.parameters()) < 1000
        first, again = next(model.parameters()), next(problem.model().parameters())
        assert torch.equal(first, again)
        assert first is not again
        assert isinstance(inputs, (torch.Tensor, dict, tuple))
    assert torch.equal(state, torch.random.get_rng_state())


def test_rows_are_samples(network, inputs):
    rows = jacobian(network, inputs)
    assert distance(rows_of(rows, ROWS)["0.weight"], jacobian(network, inputs[ROWS])["0.weight"]) == 0
    assert len(range(*ROWS.indices(7))) != len(range(*COLUMNS.indices(7)))
