"""Products by held factors: when they are held, and that they are those of the parameters' current value.

Oracle: the double loop's kernel times the vectors, for every problem of the table; the factors' own audit is
switched off where a wrong product must be seen by the test.
"""

import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.conventions import helmert
from kerneltrack.errors import AuditError, KernelError
from kerneltrack.ntk import KernelOptions, kernel_and_jacobian
from kerneltrack.ntk.capture.jacobian_block import FormedBlock, KroneckerBlock
from kerneltrack.ntk.contraction import gradient
from kerneltrack.ntk.matrix_free import factor_cache, factored_jacobian
from tests.ntk.exact_kernels import OUTPUTS, exact, matrix, metrics, rows
from tests.ntk.oracles import EXACT, contract, distance, rows_of
from tests.ntk.problems import PROBLEMS, ROWS, samples
from tests.tiers import one_in

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's, for even kernels

push = KroneckerBlock.push


def operator_of(name, output="full"):
    problem = PROBLEMS[name]
    return kt.NTKOperator(
        problem.model(), samples(problem.inputs(), ROWS), output=OUTPUTS[output], forward=problem.forward
    )


@pytest.mark.parametrize("columns", [pytest.param(1, marks=pytest.mark.nightly), 3])
@pytest.mark.parametrize("name", one_in(3, PROBLEMS, first=2))
def test_every_product_is_exact(monkeypatch, machine, name, columns):
    """The first product is by passes, the next by factors wherever the model has them."""
    monkeypatch.setattr(factor_cache, "_audit", lambda found, expected: None)
    machine(vector_bytes=2**11)  # more than one chunk of columns
    dense, operator = matrix(exact(name)), operator_of(name)
    vectors = torch.randn(len(dense), columns, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for _ in range(3):
        assert distance(operator.matmat(vectors), dense @ vectors.numpy()) < EXACT


def test_most_models_have_factors():
    """So that the test above is one of factors, and not of passes alone."""
    have = []
    for name in list(PROBLEMS)[::2]:
        operator = operator_of(name)
        operator.matvec(torch.ones(operator.shape[0], dtype=torch.float64))
        have.append(operator._held.factors() is not None)
    assert sum(have) > len(have) / 2


@pytest.mark.parametrize("name", one_in(3, PROBLEMS))
def test_what_a_kernel_was_made_from_multiplies_in_every_metric(name):
    """J P Jᵀ v by the factors that the trace kernel leaves behind. Oracle: rows of the double loop's Jacobian, times P.

    Fails where entries of P meet those of another weight, or the same weight's in another order.
    """
    problem = PROBLEMS[name]
    model, x = problem.model(), samples(problem.inputs(), ROWS)
    options = KernelOptions(output="trace", forward=problem.forward)
    kernels, jacobian = kernel_and_jacobian(model, x, options)
    assert distance(kernels[""], exact(name, "trace")) < EXACT
    if jacobian is None:
        return
    jacobian.audit_when_due()
    own = rows_of(rows(name), ROWS)
    vector = torch.randn(5, jacobian.outputs, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plain = contract(own, own, "full")
    assert distance(jacobian.product(vector).flatten(), matrix(plain) @ vector.flatten().numpy()) < EXACT
    generator = torch.Generator().manual_seed(4)
    tangent = {n: torch.randn(p.shape, generator=generator).double() for n, p in jacobian._leaves.items()}
    if (pushed := jacobian.push(tangent)) is not None:
        expected = sum(
            block.reshape(5, jacobian.outputs, -1) @ tangent[n].flatten().numpy() for n, block in own.items()
        )
        assert distance(pushed, expected) < EXACT
    for given, as_arrays in metrics(name).values():
        weights = jacobian.weights(given) if isinstance(given, dict) else [given] * len(jacobian._parts)
        if weights is not None:
            expected = matrix(contract(own, own, "full", as_arrays)) @ vector.flatten().numpy()
            assert distance(jacobian.product(vector, weights).flatten(), expected) < EXACT


@pytest.mark.parametrize("by_layer", [False, True])
def test_columns_that_kernel_and_products_share_are_formed_once(monkeypatch, by_layer):
    """Oracle: a count. Of three convolutions of many rows every weight's columns are formed before the kernel, which slices none.

    That kernel and products are exact then is asked of every problem above.
    """
    formed, sliced, form, cut = [], [], FormedBlock.of, gradient.token_features
    monkeypatch.setattr(FormedBlock, "of", lambda *a: formed.append(form(*a)) or formed[-1])
    monkeypatch.setattr(gradient, "token_features", lambda *a: sliced.append(a[1].names) or cut(*a))
    torch.manual_seed(0)
    body = (layer for width in (1, 4, 4) for layer in (nn.Conv2d(width, 4, 3, padding=1), nn.ReLU()))
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    kernels, jacobian = kernel_and_jacobian(model, x, KernelOptions(output="trace", by_layer=by_layer))
    assert len(formed) == 3
    assert not [names for names in sliced if any(name.startswith(("0.", "2.", "4.")) for name in names)]
    held = [block for part in jacobian._parts for block in part.blocks if isinstance(block, FormedBlock)]
    assert {id(block) for block in held} == {id(block) for block in formed}
    plain = kt.empirical_ntk(model, x, output="trace", method="jacobian")
    assert distance(sum(kernels.values()), plain.numpy()) < EXACT


@pytest.mark.parametrize(
    ("name", "left", "weighed"),
    [
        ("lenet", True, True),
        ("embedding-padding", True, True),
        ("ntk-scaling", True, False),
        ("low-rank", False, False),
    ],
)
def test_what_is_left_behind(name, left, weighed):
    """So that the test above is one of factors. Of a weight that is an expression of parameters, P is not diagonal."""
    problem = PROBLEMS[name]
    _, jacobian = kernel_and_jacobian(problem.model(), samples(problem.inputs(), ROWS), KernelOptions(output="trace"))
    assert (jacobian is not None) == left
    assert (jacobian is not None and jacobian.weights(metrics(name)["entry"][0]) is not None) == weighed


@pytest.mark.parametrize("name", one_in(4, PROBLEMS, first=2))
def test_what_is_left_behind_takes_what_was_foreseen(name, monkeypatch):
    """Oracle: the bytes of the arrays that the columns of J are held in, and of the inputs that the uses recorded."""
    foreseen, foresee = [], factored_jacobian._bytes
    monkeypatch.setattr(factored_jacobian, "_bytes", lambda *a: foreseen.append(foresee(*a)) or foreseen[-1])
    problem = PROBLEMS[name]
    options = KernelOptions(output="trace", forward=problem.forward)
    _, jacobian = kernel_and_jacobian(problem.model(), samples(problem.inputs(), ROWS), options)
    if jacobian is None:
        return
    blocks = [vars(block).values() for part in jacobian._parts for block in part.blocks]
    arrays = [one for block in blocks for one in block if isinstance(one, torch.Tensor)]
    arrays += [one for use in jacobian._uses for one in use.record.operands]
    stored = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in arrays}
    making, held = foreseen[-1]
    assert sum(stored.values()) <= held <= making


def test_columns_that_are_formed_are_not_counted_as_factors():
    """144 patches of 9 and of 36 numbers on 4 channels: 36 and 144 columns, where gradients of an output have 576 numbers each.

    Oracle: sizes by hand. As factors they would take more than making the kernel did, and nothing would be left behind.
    """
    torch.manual_seed(0)
    body = [
        layer for c in (1, 4) for layer in (nn.Conv2d(c, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    ]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    _, jacobian = kernel_and_jacobian(model, torch.randn(100, 1, 12, 12), KernelOptions(output="trace"))
    formed = [part.blocks[0] for part in jacobian._parts if isinstance(part.blocks[0], FormedBlock)]
    assert [block.columns.shape for block in formed] == [(100, 3, 1, 4, 9), (100, 3, 1, 4, 36)]


def test_columns_are_formed_where_they_are_fewer_than_gradients_and_inputs():
    """16 channels of 3×3 to 8 at 8×8 positions: 1,152 columns an output, 512 gradients, and 9,216 patches beside all outputs'.

    Oracle: sizes by hand: 1,152 O < 512 O + 9,216 up to O = 14. Fails where patches are not counted.
    """
    model = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 16, 8, 8)
    for outputs, formed in ((14, True), (15, False)):
        net = nn.Sequential(*model, nn.Linear(8, outputs))
        assert isinstance(block_of(net, x), FormedBlock) == formed


def block_of(net, x):
    """The columns of J of the first weight, as products with them are made."""
    operator = kt.NTKOperator(net, x)
    v = torch.ones(operator.shape[0])
    operator.matvec(v)
    operator.matvec(v)
    return operator._held.factors()._parts[0].blocks[0]


def test_what_takes_less_than_the_solve_is_left_behind():
    """An MLP of one output on 600 points, whose solve takes six matrices of 8 · 600² bytes, and J half of that at most.

    Oracle: the bytes that are held. At width 1,024 they would be more, and more than the kernel has taken: nothing is left.
    """
    for width, left in ((256, True), (1024, False)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
        _, jacobian = kernel_and_jacobian(net, torch.randn(600, 3), KernelOptions(), keeps="what is there")
        assert (jacobian is not None) == left
        assert jacobian is None or jacobian.held_bytes < 3 * 8 * 600**2


@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
def test_what_is_left_behind_is_less_the_gauge(output):
    """Rᵀ J Jᵀ R for an R whose columns sum to zero over outputs. Oracle: the double loop's kernel between these."""
    model, x = PROBLEMS["mlp"].model(), samples(PROBLEMS["mlp"].inputs(), ROWS)
    _, jacobian = kernel_and_jacobian(model, x, KernelOptions(output=output, gauge="softmax"))
    u = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u = u - u.mean(1, keepdim=True)
    basis = torch.from_numpy(helmert(3).copy()) if jacobian.outputs == 2 else torch.eye(3, dtype=torch.float64)
    found = jacobian.product((u @ basis)[:, :, None])[:, :, 0] @ basis.T
    expected = (matrix(exact("mlp")) @ u.flatten().numpy()).reshape(5, 3)
    assert distance(found, expected - expected.mean(1, keepdims=True)) < EXACT


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", ["lenet-inplace", "conv-transposed-grouped", "embedding-reused", "matmul-per-head"])
def test_reductions(name, output):
    dense, operator = matrix(exact(name, output), output), operator_of(name, output)
    vectors = torch.randn(len(dense), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for _ in range(3):
        assert distance(operator.matmat(vectors), dense @ vectors.numpy()) < EXACT


def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    return model, torch.randn(5, 4, dtype=torch.float64)


def test_factors_are_of_the_current_parameters():
    """Oracle: the dense kernel at each value. A training step between two products must be seen."""
    model, x = small()
    operator = kt.NTKOperator(model, x)
    v = torch.randn(10, dtype=torch.float64)
    for step in range(3):
        for _ in range(3):
            assert distance(operator.matvec(v), (matrix(kt.empirical_ntk(model, x).numpy()) @ v.numpy())) < EXACT
        assert operator._held.factors() is not None, step
        with torch.no_grad():
            model[0].weight.mul_(1.3)


def test_a_vector_that_is_changed_afterwards_is_not_the_audits():
    model, x = small()
    operator = kt.NTKOperator(model, x)
    v = torch.ones(10, dtype=torch.float64)
    first = operator.matvec(v)
    v.mul_(2)  # ARPACK works in the caller's memory
    assert distance(operator.matvec(v), 2 * first.numpy()) < EXACT


def test_a_zero_product_audits_nothing():
    model, x = small()
    operator = kt.NTKOperator(model, x)
    assert not operator.matvec(torch.zeros(10, dtype=torch.float64)).any()
    assert operator._held.factors() is None
    operator.matvec(torch.ones(10, dtype=torch.float64))
    assert operator._held.factors() is not None


def test_without_memory_for_factors_passes_do_it(monkeypatch):
    monkeypatch.setattr(factor_cache, "SHARE", 2**60)
    model, x = small()
    operator, v = kt.NTKOperator(model, x), torch.ones(10, dtype=torch.float64)
    for _ in range(3):
        assert distance(operator.matvec(v), matrix(kt.empirical_ntk(model, x).numpy()) @ v.numpy()) < EXACT
    assert operator._held.factors() is None


@pytest.mark.audit
def test_wrong_factors_are_refused(monkeypatch):
    """Half of J W is what a lost use would give; the first product, by passes, disagrees."""
    monkeypatch.setattr(KroneckerBlock, "push", lambda self, w, outputs: 0.5 * push(self, w, outputs))
    model, x = small()
    operator, v = kt.NTKOperator(model, x), torch.ones(10, dtype=torch.float64)
    operator.matvec(v)
    with pytest.raises(AuditError, match="disagree"):
        operator.matvec(v)


def test_half_precision():
    """Oracle: the float64 kernel of the same model. bfloat16 rounds v, the passes and the result: a few hundredths."""
    model, x = small()
    dense = matrix(kt.empirical_ntk(model, x).numpy())
    model, v = model.bfloat16(), torch.ones(10)
    operator = kt.NTKOperator(model, x.bfloat16())
    for _ in range(2):
        product = operator.matvec(v.bfloat16())
        assert product.dtype == torch.bfloat16
        assert distance(product.double(), dense @ v.double().numpy()) < 0.05
    assert operator._held.factors() is not None


def test_factors_take_what_they_may(machine):
    """Oracle: the kernel, formed. By passes where they may not be held; a budget asks for them, or refuses them."""
    problem = PROBLEMS["mlp"]
    model, x, expected = problem.model(), samples(problem.inputs(), ROWS), matrix(exact("mlp"))
    v = torch.randn(expected.shape[0], 2, dtype=torch.float64)
    machine(factor_bytes=10)
    for budget, held in ((None, False), ("1MiB", True), (10, False)):
        operator = kt.NTKOperator(model, x, memory_budget=budget)
        for _ in range(3):
            assert distance(operator.matmat(v), expected @ v.numpy()) < EXACT
        assert (operator._held.factors() is not None) == held
    with pytest.raises(KernelError, match="is not a size"):
        kt.NTKOperator(model, x, memory_budget="much")
