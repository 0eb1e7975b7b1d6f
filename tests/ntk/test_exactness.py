"""The kernel equals plain autograd's, for every problem, reduction, method, shape and tiling.

Oracle: the double loop of ``oracles.jacobian``, computed once per problem in float64 and reduced by NumPy.
Every pair of (reduction, method, shape, tiling) is met on every problem; the whole product is marked slow.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kerneltrack.errors import KernelError
from tests.ntk.exact_kernels import OUTPUTS, exact, measured, metrics, rows
from tests.ntk.oracles import EXACT, SINGLE, contract, distance, layer_of, rows_of
from tests.ntk.problems import PROBLEMS, ROWS

#: torch's own, for even kernels and for what it computes the slow way.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:LSTM with projections")

#: The models that cannot be mapped over samples by vmap; "structured" refuses them, all else it must cover.
NOT_MAPPABLE = {
    "rnn-packed",
    "fourier",
    "custom-function-old",
    "custom-function-of-weight",
    "checkpointing",
    "control-flow",
    "data-dependent-depth",
    "keeps-activations",  # writes to a buffer in place
}

METHODS = ("auto", "jacobian", "products")


def combinations():
    """All of reduction × method × shape × tiling; what a pairwise cover needs is quick, the rest slow."""
    for (i, method), (j, output) in itertools.product(enumerate(METHODS), enumerate(OUTPUTS)):
        for square, tight in itertools.product((True, False), (True, False)):
            quick = square == ((i + j) % 2 == 0) and tight == ((i + j // 2) % 2 == 0)
            yield pytest.param(
                output,
                method,
                square,
                tight,
                id=f"{output}-{method}-{'square' if square else 'rectangle'}-{'tight' if tight else 'roomy'}",
                marks=() if quick else pytest.mark.nightly,
            )


problems = pytest.mark.parametrize("name", PROBLEMS)


def test_the_quick_combinations_cover_every_pair():
    """Oracle: enumeration. Dropping any reduction from the quick ones would leave a pair uncovered."""
    quick = [case.values for case in combinations() if not case.marks]
    for a, b in itertools.combinations(range(4), 2):
        values = [{case.values[k] for case in combinations()} for k in (a, b)]
        assert {(case[a], case[b]) for case in quick} == set(itertools.product(*values))


@problems
@pytest.mark.parametrize(("output", "method", "square", "tight"), list(combinations()))
def test_kernel(name, output, method, square, tight):
    kernel = measured(name, output=OUTPUTS[output], method=method, square=square, tight=tight)
    assert kernel.dtype == torch.float64
    assert not kernel.requires_grad
    assert distance(kernel, exact(name, output, square)) < EXACT


@problems
def test_structured_is_exact_or_refuses(name):
    """Only what vmap refuses may be refused, and then the error says what to do."""
    try:
        kernel = measured(name, method="structured", square=False)
    except KernelError as error:
        refusal = error
    else:
        assert distance(kernel, exact(name, square=False)) < EXACT
        return
    assert name in NOT_MAPPABLE
    assert refusal.remedy


@problems
@pytest.mark.parametrize("method", ["auto", "jacobian"])
def test_single_precision(name, method):
    """Oracle: the float64 kernel of the same weights and inputs, which are float32 numbers."""
    kernel = measured(name, method=method, precision=torch.float32)
    assert kernel.dtype == torch.float32
    assert distance(kernel, exact(name)) < SINGLE


@problems
def test_double_precision_of_a_float32_model(name):
    """Oracle: the float64 kernel. The model and the probe stay float32; ``dtype=`` alone asks for more."""
    kernel = measured(name, precision=torch.float32, dtype=torch.float64)
    assert kernel.dtype == torch.float64
    assert distance(kernel, exact(name)) < EXACT


@problems
@pytest.mark.parametrize("kind", ["scalar", "parameter", "entry"])
def test_metric(name, kind):
    """Oracle: J P Jᵀ with the double loop's J. Ties and reuse are where a metric is easily lost."""
    metric, weights = metrics(name)[kind]
    left = rows_of(rows(name), ROWS)
    assert distance(measured(name, metric=metric), contract(left, left, "full", weights)) < EXACT


@problems
@pytest.mark.parametrize("method", ["auto", "jacobian"])
def test_layers(name, method):
    """Oracle: the double loop's Jacobian, contracted over the parameters of each layer alone."""
    layers = measured(name, method=method, by_layer=True)
    left = rows_of(rows(name), ROWS)
    expected = {}
    for parameter in left:
        expected.setdefault(layer_of(parameter), []).append(parameter)
    assert list(layers) == list(expected)
    scale = np.abs(exact(name)).max()
    for layer, parameters in expected.items():
        block = {parameter: left[parameter] for parameter in parameters}
        difference = np.abs(layers[layer].numpy() - contract(block, block, "full")).max()
        assert difference < EXACT * scale
    assert distance(sum(layers.values()), exact(name)) < EXACT
