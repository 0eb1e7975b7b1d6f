"""Every kind of use says the same thing in each of its methods: ∂f_o/∂W = Σ_t g_t ⊗ a_t, by whichever way it is asked.

Oracle: reverse mode by the weight itself, sample by sample and output by output, in float64, on the model as it is.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kerneltrack.ntk.capture import RULES, Capture
from kerneltrack.ntk.network import Inputs, Network
from tests.ntk.models import With
from tests.ntk.oracles import distance

N = 3
ROUNDING = 1e-13  # sums of some hundred products of numbers near 1


def image(layer, *shape):
    return With(lambda m, x: m.layer(x).tanh().flatten(1)[:, :4], layer=layer), shape


def words(call, **layers):
    return With(call, **layers), None


def einsum(equation):
    return lambda m, x: torch.einsum(equation, x.view(len(x), 5, 2, 3), m.layer.weight).tanh().flatten(1)[:, :4]


#: name: a model with one layer, the shape of a sample (None: integers), and the rules that its uses have in a plan.
KINDS = {
    "linear": (*image(nn.Linear(4, 6), 5, 4), {"linear", "shift"}),
    "product": (
        With(lambda m, x: (x @ m.layer.weight).tanh().flatten(1)[:, :4], layer=nn.Linear(4, 6, bias=False)),
        (5, 6),
        {"linear"},
    ),
    "matrices": (
        With(
            lambda m, x: (x.unsqueeze(1) @ m.layer.weight).tanh().flatten(1)[:, :4],
            layer=nn.Bilinear(4, 3, 2, bias=False),
        ),
        (5, 4),
        {"linear"},
    ),
    "tensordot": (
        With(
            lambda m, x: torch.tensordot(x, m.layer.weight, ([1, 2], [2, 0])).tanh(),
            layer=nn.Bilinear(4, 3, 2, bias=False),
        ),
        (3, 2),
        {"linear"},
    ),
    "ellipsis": (With(einsum("...hi,hoi->...ho"), layer=nn.Bilinear(4, 3, 2, bias=False)), (30,), {"linear"}),
    "per head": (With(einsum("nthi,hoi->ntho"), layer=nn.Bilinear(4, 3, 2, bias=False)), (30,), {"linear"}),
    "convolution": (*image(nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), 4, 5, 5), {"convolution", "shift"}),
    "dilated": (*image(nn.Conv1d(2, 3, 2, padding="same", dilation=2), 2, 7), {"convolution", "shift"}),
    "transposed": (
        *image(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), 4, 3, 3),
        {"convolution", "shift"},
    ),
    "embedding": (*words(lambda m, ids: m.layer(ids).tanh().sum(1), layer=nn.Embedding(7, 4)), {"embedding"}),
    "padded": (
        *words(lambda m, ids: F.embedding(ids, m.layer.weight, padding_idx=2).tanh().sum(1), layer=nn.Embedding(7, 4)),
        {"embedding"},
    ),
    "expanded": (With(lambda m, x: m.layer(x).tanh(), layer=nn.LayerNorm(6)), (6,), {"expanded"}),
}


def captured(name):
    """The uses of a kind, G of each for every output, and the gradients by autograd: parameter → (N, O, |W|)."""
    model, shape, rules = KINDS[name]
    generator = torch.Generator().manual_seed(3)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    if shape is None:
        x = torch.randint(7, (N, 6), generator=generator)
    else:
        x = torch.randn(N, *shape, generator=generator, dtype=torch.float64)
    network, capture = Network(model), Capture(RULES)
    leaves = {key: value.requires_grad_() for key, value in network.parameters.items()}
    outputs = capture.run(network, leaves, Inputs(x))
    assert {use.rule for use in capture.uses} == rules
    edges = [use.record.edge for use in capture.uses]
    parts = [torch.autograd.grad(outputs[:, o].sum(), edges, retain_graph=True) for o in range(outputs.shape[1])]
    gradients = [
        [use.gradient_rows(p) for p in part] for use, part in zip(capture.uses, zip(*parts, strict=True), strict=True)
    ]
    expected = {}
    for key, parameter in model.named_parameters():
        alone = [model(x[n : n + 1])[0, o] for n in range(N) for o in range(outputs.shape[1])]
        rows = [torch.autograd.grad(output, parameter)[0] for output in alone]
        expected[key] = torch.stack(rows).view(N, outputs.shape[1], -1)
    named = {id(leaf): key for key, leaf in leaves.items()}
    return [(use, g, expected[named[id(use.weight)]]) for use, g in zip(capture.uses, gradients, strict=True)]


@pytest.mark.parametrize("name", KINDS)
def test_gradients_and_inputs_multiply_to_the_weights_gradient(name):
    for use, gradients, expected in captured(name):
        rows, size = torch.stack(gradients, 1), use.extent()
        assert rows.shape[2:] == (size.groups, size.outer, size.tokens)
        inputs = use.input_rows(0, N)
        assert inputs.shape == (N, size.groups, size.tokens, size.inner)
        formed = torch.einsum("noget,ngti->nogei", rows, inputs)
        assert distance(use.weight_layout(formed), expected.numpy()) < ROUNDING


@pytest.mark.parametrize("name", KINDS)
def test_a_stretch_of_samples_has_its_own_rows(name):
    for use, gradients, expected in captured(name):
        rows = torch.stack(gradients, 1)[1:]
        assert distance(use.weight_gradient(rows, 1, N), expected[1:].numpy()) < ROUNDING


@pytest.mark.parametrize("name", KINDS)
def test_products_are_those_of_the_weights_gradient(name):
    """Jᵀ V and J Jᵀ V of the block, for two vectors and some of the outputs."""
    for use, gradients, expected in captured(name):
        block, kept = use.jacobian_block(gradients), slice(1, 3)
        rows = expected[:, kept]
        v = torch.randn(*rows.shape[:2], 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        pushed = block.push(block.pull(v, kept), kept)
        assert distance(pushed, torch.einsum("nop,mqp,mqk->nok", rows, rows, v).numpy()) < 10 * ROUNDING


@pytest.mark.parametrize("name", KINDS)
def test_the_same_pass_has_the_same_signature(name):
    """So that a plan of one capture is good for the next, and no two kinds are taken for each other."""
    first, second = ([use.signature() for use, *_ in captured(name)] for _ in range(2))
    assert first == second
    others = {use.signature() for other in KINDS if other != name for use, *_ in captured(other)}
    assert not set(first) & others
