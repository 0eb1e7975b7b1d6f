"""What holds for every kernel, whatever its values: symmetries, sums, slices; measuring leaves no trace."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import kerneltrack as kt
from tests.ntk.exact_kernels import OUTPUTS, exact, matrix, measured, metrics, readout, rows, tightest
from tests.ntk.oracles import EXACT, call, contract, distance, jacobian, layer_of, rows_of
from tests.ntk.problems import PROBLEMS, ROWS, samples
from tests.tiers import diagonals, one_in

#: One problem per way of computing: layers, in-place, buffers, ties, bare parameters, recurrence, no rule.
KINDS = (
    "mlp",
    "lenet-inplace",
    "resnet-batch-norm",
    "gpt-tied",
    "vit",
    "lstm",
    "weight-tanh",
    "control-flow",
    "dictionary-input",
    "scalar-output",
    "keeps-activations",
)
METHODS = ("auto", "jacobian", "products")
kinds = pytest.mark.parametrize("name", KINDS)
#: For what does not depend on the kind: the first, and the rest nightly.
any_kind = pytest.mark.parametrize("name", [KINDS[0], *(pytest.param(k, marks=pytest.mark.nightly) for k in KINDS[1:])])
outputs = pytest.mark.parametrize("output", OUTPUTS)

#: Two orders of summation of the same float64 numbers.
ROUNDING = 1e-13


def setting(name):
    problem = PROBLEMS[name]
    return problem.model(), problem.inputs(), {"forward": problem.forward}


# ------------------------------------------------------------ the kernel as a matrix


@pytest.mark.parametrize(("name", "output"), diagonals(2, KINDS, OUTPUTS))
def test_symmetric_and_positive(name, output):
    """Oracle: a Gram matrix is symmetric, and its smallest eigenvalue is not below n·eps·λ_max of zero."""
    gram = matrix(measured(name, output=OUTPUTS[output]).numpy(), output)
    values = np.linalg.eigvalsh(gram)
    assert distance(gram, gram.T) < ROUNDING
    assert values[0] > -4 * len(gram) * np.finfo(float).eps * values[-1]


@pytest.mark.parametrize("method", ["auto", "jacobian", "structured"])
@pytest.mark.parametrize("output", ["full", "trace", "sum"])
def test_symmetric_to_the_last_bit(output, method):
    """A product X Xᵀ of float32 is symmetric only but for rounding, which an eigensystem in float64 would refuse.

    Linear on extra axes: as many rows as such products are unsymmetric with. The fifth call is a recorded one.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Flatten())
    inputs = torch.randn(5, 6, 8)
    for _ in range(5):
        gram = matrix(kt.empirical_ntk(model, inputs, output=output, method=method).numpy(), output)
        assert np.array_equal(gram, gram.T)


@pytest.mark.parametrize(("name", "method"), diagonals(2, KINDS, METHODS))
def test_permuting_the_probe_permutes_the_kernel(name, method):
    model, inputs, options = setting(name)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    kernel = kt.empirical_ntk(model, inputs, method=method, **options)
    permuted = kt.empirical_ntk(model, samples(inputs, order), method=method, **options)
    assert distance(permuted, kernel[order][:, order].numpy()) < ROUNDING


@pytest.mark.parametrize(("name", "output"), diagonals(2, KINDS, OUTPUTS))
def test_a_rectangle_is_a_slice_of_the_square(name, output):
    model, inputs, options = setting(name)
    options["output"] = OUTPUTS[output]
    square = kt.empirical_ntk(model, inputs, **options)
    rectangle = kt.empirical_ntk(model, samples(inputs, slice(1, 6)), samples(inputs, slice(4, 7)), **options)
    assert distance(rectangle, square[1:6, 4:7].numpy()) < ROUNDING


def test_sequences_of_two_lengths():
    """Oracle: the double loop on each side; a rectangle may pair samples of different shapes."""
    model = PROBLEMS["encoder"].model()
    short, long = torch.randn(4, 3, 4, dtype=torch.float64), torch.randn(5, 6, 4, dtype=torch.float64)
    expected = contract(jacobian(model, short), jacobian(model, long), "full")
    assert distance(kt.empirical_ntk(model, short, long), expected) < EXACT


@pytest.mark.parametrize("layout", ["transposed", "expanded", "strided"])
def test_inputs_in_any_layout(layout):
    """Oracle: the same numbers in a contiguous tensor."""
    x = {
        "transposed": torch.randn(4, 5, dtype=torch.float64).t(),
        "expanded": torch.randn(1, 4, dtype=torch.float64).expand(5, 4),
        "strided": torch.randn(10, 8, dtype=torch.float64)[::2, ::2],
    }[layout]
    model = PROBLEMS["mlp"].model()
    kernel = kt.empirical_ntk(model, x)
    assert distance(kernel, kt.empirical_ntk(model, x.contiguous()).numpy()) < ROUNDING


@any_kind
def test_the_probe_with_itself_is_the_square(name):
    model, inputs, options = setting(name)
    square = kt.empirical_ntk(model, inputs, **options)
    assert distance(kt.empirical_ntk(model, inputs, inputs, **options), square.numpy()) < ROUNDING


@kinds
def test_one_sample(name):
    model, inputs, options = setting(name)
    one = samples(inputs, slice(2, 3))
    assert distance(kt.empirical_ntk(model, one, **options), exact(name)[2:3, 2:3]) < EXACT
    assert distance(kt.empirical_ntk(model, one, inputs, **options)[:, :5], exact(name)[2:3]) < EXACT


@pytest.mark.parametrize("share", [1, *(pytest.param(share, marks=pytest.mark.nightly) for share in (4 / 3, 3))])
@pytest.mark.parametrize(("name", "method"), one_in(2, itertools.product(KINDS, ["auto", "jacobian", "products"])))
def test_budgets_do_not_change_the_kernel(name, method, share):
    """13 samples: a prime, so that every tiling is uneven. Shares are of the least budget that works."""
    problem = PROBLEMS[name]
    model, inputs = problem.model(), problem.draw(torch.Generator().manual_seed(3), 13)
    inputs = tree_map(lambda t: t.double() if t.is_floating_point() else t, inputs)
    options = {"forward": problem.forward, "method": method}
    whole = kt.empirical_ntk(model, inputs, **options)
    least = tightest(model, inputs, **options)
    tiled = kt.empirical_ntk(model, inputs, memory_budget=int(share * least), **options)
    assert distance(tiled, whole.numpy()) < ROUNDING


@kinds
def test_duplicated_samples_duplicate_rows(name):
    model, inputs, options = setting(name)
    twice = kt.empirical_ntk(model, samples(inputs, torch.tensor([0, 1, 0])), **options)
    assert distance(twice[0], twice[2].numpy()) < ROUNDING
    assert distance(twice[:, 0], twice[:, 2].numpy()) < ROUNDING


@any_kind
def test_progress_changes_nothing(name, capsys):
    assert torch.equal(measured(name, progress=True), measured(name))


# ------------------------------------------------------------ subsets, layers and metrics


@pytest.mark.parametrize(("name", "method"), diagonals(2, KINDS, METHODS))
def test_a_subset_of_the_parameters(name, method):
    """Oracle: the double loop's Jacobian of that subset; by names, a generator of names, and a predicate."""
    left = rows_of(rows(name), ROWS)
    chosen = [parameter for parameter in left if hash_of(parameter) % 2] or list(left)[:1]
    block = {parameter: left[parameter] for parameter in chosen}
    expected = contract(block, block, "full")
    for params in (chosen, (parameter for parameter in chosen), lambda parameter: parameter in chosen):
        assert distance(measured(name, params=params, method=method), expected) < EXACT


def hash_of(text):
    return sum(map(ord, text))


@kinds
def test_a_subset_may_be_one_layer(name):
    layers = measured(name, by_layer=True)
    layer = list(layers)[-1]
    alone = measured(name, params=lambda parameter: layer_of(parameter) == layer, by_layer=True)
    assert list(alone) == [layer]
    assert distance(alone[layer], layers[layer].numpy()) < EXACT


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrappers_leave_no_prefix(wrap):
    """Oracle: the keys of the model without its wrapper."""
    problem = PROBLEMS["mlp"]
    x = problem.inputs()[ROWS]
    wrapped = wrap(problem.model())
    layers = kt.empirical_ntk(wrapped, x, by_layer=True)
    assert list(layers) == ["0", "2", "4"]
    assert distance(sum(layers.values()), exact("mlp")) < EXACT


# ------------------------------------------------------------ operator and linearisation


def operator_of(name, output):
    problem = PROBLEMS[name]
    x = samples(problem.inputs(), ROWS)
    return kt.NTKOperator(problem.model(), x, output=OUTPUTS[output], forward=problem.forward)


@pytest.mark.parametrize(("name", "output"), one_in(3, itertools.product(KINDS, OUTPUTS)))
def test_operator_is_the_dense_kernel(name, output):
    """Oracle: the double loop's kernel as a matrix, rows ordered (n, o)."""
    dense = matrix(exact(name, output), output)
    operator = operator_of(name, output)
    vectors = torch.randn(len(dense), 3, dtype=torch.float64)
    assert tuple(operator.shape) == dense.shape
    assert distance(operator.matvec(vectors[:, 0]), dense @ vectors[:, 0].numpy()) < EXACT
    assert distance(operator.matmat(vectors), dense @ vectors.numpy()) < EXACT
    assert distance(operator.diagonal(), dense.diagonal()) < EXACT
    assert float(operator.trace()) == pytest.approx(np.trace(dense), rel=EXACT)


@kinds
def test_scipy_finds_the_top_of_the_spectrum(name):
    """Oracle: LAPACK on the double loop's kernel. ARPACK converges to machine precision at these sizes."""
    from scipy.sparse.linalg import eigsh

    dense = matrix(exact(name))
    start = np.random.default_rng(0).standard_normal(len(dense))
    values = eigsh(operator_of(name, "full").as_linear_operator(), k=2, v0=start, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(dense)[-2:], rtol=1e-9)


@kinds
@pytest.mark.parametrize("kind", ["parameter", "entry"])
def test_operator_with_metric_and_subset(name, kind):
    metric, weights = metrics(name)[kind]
    problem = PROBLEMS[name]
    left = rows_of(rows(name), ROWS)
    chosen = list(left)[: max(1, len(left) // 2)]
    block = {parameter: left[parameter] for parameter in chosen}
    dense = matrix(contract(block, block, "full", weights))
    operator = kt.NTKOperator(
        problem.model(),
        samples(problem.inputs(), ROWS),
        params=chosen,
        metric={parameter: metric[parameter] for parameter in chosen},
        forward=problem.forward,
    )
    v = torch.randn(len(dense), dtype=torch.float64)
    for _ in range(2):  # by passes, then by factors where the metric admits them
        assert distance(operator.matvec(v), dense @ v.numpy()) < EXACT
    assert distance(operator.diagonal(), dense.diagonal()) < EXACT


@pytest.mark.parametrize("name", [name for name in KINDS if PROBLEMS[name].forward is None])
def test_linearize(name):
    """Oracle: f_0 + J_0 (θ − θ_0) with the double loop's J_0."""
    problem = PROBLEMS[name]
    model, inputs = problem.model(), problem.inputs()
    start = {key: p.detach().clone() for key, p in model.named_parameters()}
    linear = kt.linearize(model)
    f_0 = call(model, inputs, None).detach().reshape(7, -1).numpy()
    assert distance(linear(inputs).reshape(7, -1), f_0) < EXACT
    moved = {key: p + 0.3 * torch.randn_like(p) for key, p in start.items()}
    step = {key: (moved[key] - start[key]).ravel().numpy() for key in rows(name)}
    expected = f_0 + sum(np.einsum("nop,p->no", block, step[key]) for key, block in rows(name).items())
    assert distance(linear(inputs, moved).reshape(7, -1), expected) < EXACT
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(moved[key])
    assert distance(linear(inputs).reshape(7, -1), expected) < EXACT  # None: the model's current parameters


# ------------------------------------------------------------ no trace is left


def portrait(model):
    """Everything about a module that a measurement could change and must not."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [[len(getattr(module, hook)) for hook in hooks] for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "forwards": ["forward" in vars(module) for module in model.modules()],
        "parameters": [(name, id(p), p.requires_grad, p.dtype, p._version) for name, p in model.named_parameters()],
        "gradients": [(id(p.grad), None if p.grad is None else p.grad._version) for p in model.parameters()],
        "buffers": [(name, id(b), b._version) for name, b in model.named_buffers()],
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "kept": [(getattr(module, "calls", 0), id(getattr(module, "last", None))) for module in model.modules()],
    }


@pytest.mark.parametrize(("name", "method"), diagonals(2, KINDS, [*METHODS, "operator"]))
def test_nothing_is_left_on_the_module(name, method):
    model, inputs, options = setting(name)
    for i, parameter in enumerate(model.parameters()):
        if i % 2:
            parameter.grad = torch.ones_like(parameter)
    before, values = portrait(model), copy.deepcopy(model.state_dict())
    random, grad_mode, threads = (torch.random.get_rng_state(), torch.is_grad_enabled(), torch.get_num_threads())
    given = [t.clone() for t in tree_leaves(inputs)]
    if method == "operator":
        operator = kt.NTKOperator(model, inputs, **options)
        operator.matvec(torch.ones(operator.shape[0], dtype=torch.float64))
        operator.diagonal()
    else:
        kt.empirical_ntk(model, inputs, method=method, **options)
    assert portrait(model) == before
    assert all(torch.equal(values[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())
    assert (grad_mode, threads) == (torch.is_grad_enabled(), torch.get_num_threads())
    assert all(torch.equal(a, b) for a, b in zip(given, tree_leaves(inputs), strict=True))
    assert not any(t.requires_grad for t in tree_leaves(inputs))


def test_the_portrait_sees_a_change():
    """Negative control of the test above."""
    model = PROBLEMS["resnet-batch-norm"].model()
    before = portrait(model)
    changes = [
        lambda: model.train(),
        lambda: model.conv1.register_forward_hook(print),
        lambda: model.conv1.weight.requires_grad_(False),
        lambda: model.norm1.running_mean.add_(0),
        lambda: setattr(model.conv1, "cache", 1),
        lambda: setattr(model.conv1.weight, "grad", torch.ones_like(model.conv1.weight)),
    ]
    for change in changes:
        change()
        now = portrait(model)
        assert now != before
        before = now


def test_an_exception_in_the_model_leaves_nothing():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = nn.Linear(4, 3), 0

        def forward(self, x):
            raise RuntimeError("broken on purpose")

    model, x = Broken().double(), torch.randn(5, 4, dtype=torch.float64)
    before = portrait(model)
    with pytest.raises(Exception, match="broken on purpose"):
        kt.empirical_ntk(model, x)
    assert portrait(model) == before
    assert torch.is_grad_enabled()
    assert measured("mlp") is not None  # no mode of the failed call is still active


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_grad_mode_does_not_matter(name, mode):
    """As in a validation hook: the model is older than the mode, the probe may have been made inside it."""
    problem = PROBLEMS[name]
    model, inputs = problem.model(), samples(problem.inputs(), ROWS)
    with mode():
        made_inside = tree_map(torch.clone, inputs)
        kernel = kt.empirical_ntk(model, made_inside, forward=problem.forward)
    assert distance(kernel, exact(name)) < EXACT
    assert not kernel.requires_grad


def test_autocast_of_the_caller_does_not_matter():
    """bfloat16 would be off by a per cent."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kernel = measured("mlp", precision=torch.float32)
    assert kernel.dtype == torch.float32
    assert distance(kernel, exact("mlp")) < 1e-5


@pytest.mark.parametrize("method", ["auto", "jacobian"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype, method):
    """Oracle: closed form x·x' + 1 in float64 of the rounded inputs. The products of two halves fit float32, and 500 of
    them summed in bfloat16 would be off by a hundredth."""
    model, x = nn.Linear(500, 1), torch.rand(6, 500)
    kernel = kt.empirical_ntk(model, x, dtype=dtype, method=method)
    rounded = x.to(dtype).double().numpy()
    assert kernel.dtype == torch.float32
    assert distance(kernel[..., 0, 0], rounded @ rounded.T + 1) < 500 * np.finfo(np.float32).eps
    assert "float32" in str(kt.ntk_plan(model, x, dtype=dtype))


@pytest.mark.parametrize("name", ["mlp", "lenet", "encoder", "embedding", "resnet-batch-norm"])
def test_half_precision_of_a_network(name):
    """Oracle: the float64 kernel. bfloat16 has 8 bits: a few per cent after some layers, and not less than a thousandth."""
    kernel = measured(name, precision=torch.float32, dtype=torch.bfloat16)
    assert kernel.dtype == torch.float32
    assert 1e-3 < distance(kernel, exact(name)) < 0.1


@kinds
def test_nothing_is_kept_alive(name):
    """Oracle: the garbage collector. Neither the model nor its probe outlives a measurement of it."""
    model, inputs, options = setting(name)
    kt.empirical_ntk(model, inputs, **options)
    model_lives, input_lives = weakref.ref(model), weakref.ref(tree_leaves(inputs)[0])
    del model, inputs
    gc.collect()
    assert model_lives() is None
    assert input_lives() is None


def test_the_kernel_follows_the_weights():
    """A plan or a capture that is remembered must not remember values."""
    problem = PROBLEMS["mlp"]
    model, x = problem.model(), problem.inputs()[ROWS]
    first = kt.empirical_ntk(model, x)
    with torch.no_grad():
        model[0].weight.mul_(2)
    doubled = kt.empirical_ntk(model, x)
    with torch.no_grad():
        model[0].weight.mul_(0.5)
    assert distance(doubled, first.numpy()) > 1e-3
    assert distance(kt.empirical_ntk(model, x), first.numpy()) < ROUNDING


# ------------------------------------------------------------ the plan


@kinds
def test_the_plan_lists_every_parameter(name):
    model, inputs, options = setting(name)
    frozen = next(iter(dict(model.named_parameters())))
    dict(model.named_parameters())[frozen].requires_grad_(False)
    text = str(kt.ntk_plan(model, inputs, **options))
    for parameter, _ in model.named_parameters():
        assert parameter in text
    assert "frozen" in text


def test_readout_is_not_linear():
    """Negative control: the callable output could be told from its value at another point."""
    one, two = torch.randn(2, 3, dtype=torch.float64)
    assert not torch.allclose(readout(one + two), readout(one) + readout(two))
