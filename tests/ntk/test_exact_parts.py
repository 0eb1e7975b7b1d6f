"""What a kernel can be asked for besides its reduction: precisions, metrics, layers, and structure or nothing.

Oracle: the double loop of ``oracles.jacobian`` in float64, contracted over what was asked for. Quick: one problem of each
rule; all others are nightly, but for structure and layers, where every model has its own way to be wrong.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kerneltrack.errors import KernelError
from tests.ntk.exact_kernels import OUTPUTS, exact, measured, metrics, rows
from tests.ntk.oracles import EXACT, SINGLE, contract, distance, layer_of, rows_of
from tests.ntk.problems import PROBLEMS, ROWS, RULES
from tests.tiers import diagonals, later, one_in

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

problems = pytest.mark.parametrize("name", PROBLEMS)
rules = pytest.mark.parametrize(
    "name", [name if name in RULES else pytest.param(name, marks=pytest.mark.nightly) for name in PROBLEMS]
)


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


@rules
@pytest.mark.parametrize("method", ["auto", "jacobian"])
def test_single_precision(name, method):
    """Oracle: the float64 kernel of the same weights and inputs, which are float32 numbers."""
    kernel = measured(name, method=method, precision=torch.float32)
    assert kernel.dtype == torch.float32
    assert distance(kernel, exact(name)) < SINGLE


@rules
def test_double_precision_of_a_float32_model(name):
    """Oracle: the float64 kernel. The model and the probe stay float32; ``dtype=`` alone asks for more."""
    kernel = measured(name, precision=torch.float32, dtype=torch.float64)
    assert kernel.dtype == torch.float64
    assert distance(kernel, exact(name)) < EXACT


def metric_cases():
    others = [name for name in PROBLEMS if name not in RULES]
    parts = [["scalar", "parameter", "entry"], ["auto", "jacobian", "products"]]
    return [*one_in(4, itertools.product(RULES, *parts)), *map(later, itertools.product(others, *parts))]


def layer_cases():
    """Of the rules, one after the other by each method; the others nightly."""
    others, methods = [name for name in PROBLEMS if name not in RULES], ["auto", "jacobian"]
    return [*diagonals(2, RULES, methods), *map(later, itertools.product(others, methods))]


@pytest.mark.parametrize(("name", "kind", "method"), metric_cases())
def test_metric(name, kind, method):
    """Oracle: J P Jᵀ with the double loop's J. Ties and reuse are where a metric is easily lost."""
    metric, weights = metrics(name)[kind]
    for output in ("full", "callable") if method == "products" else OUTPUTS:
        left = rows_of(rows(name, "callable" if output == "callable" else "outputs"), ROWS)
        expected = contract(left, left, "full" if output == "callable" else output, weights)
        kernel = measured(name, metric=metric, method=method, output=OUTPUTS[output])
        assert distance(kernel, expected) < EXACT


@pytest.mark.parametrize("method", ["auto", pytest.param("jacobian", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", one_in(3, PROBLEMS, first=2))
def test_layers(name, method):
    """Oracle: the double loop's Jacobian, contracted over the parameters of each layer alone; and they sum to the whole."""
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


@pytest.mark.parametrize(("name", "method"), layer_cases())
def test_layers_in_every_reduction_and_with_a_metric(name, method):
    """Oracle: the whole kernel of the double loop, of rectangles; with a metric J P Jᵀ."""
    for output in OUTPUTS:
        layers = measured(name, output=OUTPUTS[output], by_layer=True, square=False, method=method)
        assert distance(sum(layers.values()), exact(name, output, square=False)) < EXACT
    metric, weights = metrics(name)["entry"]
    left = rows_of(rows(name), ROWS)
    layers = measured(name, metric=metric, by_layer=True, method=method)
    assert distance(sum(layers.values()), contract(left, left, "full", weights)) < EXACT
