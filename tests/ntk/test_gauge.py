"""gauge="softmax": kernels of the outputs less what softmax does not see.

Oracle: the double loop over autograd in float64, and C = I − 11ᵀ/O by einsum. The package takes a head f ↦ fB in front of
its kernels and knows no C but for the diagonal. Tolerances as in oracles.py: float64 sums of a few thousand products.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import kerneltrack as kt
from kerneltrack.conventions import by_output, helmert
from kerneltrack.conventions import measured as in_gauge
from kerneltrack.errors import KernelError
from kerneltrack.ntk import NetworkState, cross_time_ntk
from tests.ntk.exact_kernels import exact, matrix, measured, metrics, rows
from tests.ntk.oracles import EXACT, contract, rows_of
from tests.ntk.problems import PROBLEMS, ROWS

#: Two hidden layers, convolutions, a loop over samples; a tied table and attention at night.
NAMES = [
    "mlp", "lenet-inplace", "control-flow",
    *(pytest.param(name, marks=pytest.mark.nightly) for name in ("gpt-tied", "einsum-heads")),
]  # fmt: skip


def centring(outputs):
    return np.eye(outputs) - 1 / outputs


def reduced(full, output, basis):
    """BᵀΘB, the trace and the diagonal of CΘC, of a raw full kernel (N1, N2, O, O)."""
    c = basis @ basis.T
    if output == "trace":
        return np.einsum("nmop,op->nm", full, c)
    if output == "diagonal":
        return np.einsum("nmop,oq,pq->nmq", full, c, c)
    return np.einsum("nmop,oa,pb->nmab", full, basis, basis)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=EXACT * np.abs(expected).max())


def test_the_basis_is_helmerts():
    # Oracle: SciPy's, transposed.
    import scipy.linalg

    for outputs in (2, 3, 10):
        np.testing.assert_allclose(helmert(outputs), scipy.linalg.helmert(outputs).T, atol=1e-15)
        np.testing.assert_allclose(helmert(outputs) @ helmert(outputs).T, centring(outputs), atol=1e-14)


@pytest.mark.parametrize("reduction", ["full", "trace", "diagonal"])
def test_a_function_loses_its_part_along_1_and_nothing_else(reduction):
    phi = np.random.default_rng(0).standard_normal((4, 5))
    found = in_gauge(phi, "softmax", reduction)
    assert found.shape == (4, 5 if reduction == "diagonal" else 4)
    np.testing.assert_allclose(by_output(found, "softmax", reduction), phi @ centring(5), atol=1e-14)
    assert in_gauge(phi, "raw", reduction) is phi


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_those_of_centred_outputs(name, output):
    full = exact(name)
    expected = reduced(full, output, helmert(full.shape[-1]))
    assert not np.allclose(expected, exact(name, output)) if output != "full" else expected.shape != full.shape
    for method in ("auto", "jacobian", "products") if name == "mlp" else ("auto",):
        close(measured(name, output=output, gauge="softmax", method=method), expected)
    across = reduced(exact(name, square=False), output, helmert(full.shape[-1]))
    close(measured(name, output=output, gauge="softmax", square=False), across)


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_layers_metrics_operators_and_other_times(output):
    full = exact("mlp")
    basis = helmert(full.shape[-1])
    close(sum(measured("mlp", output=output, gauge="softmax", by_layer=True).values()), reduced(full, output, basis))
    given, twin = metrics("mlp")["entry"]
    left = rows_of(rows("mlp"), ROWS)
    close(
        measured("mlp", output=output, gauge="softmax", metric=given),
        reduced(contract(left, left, "full", twin), output, basis),
    )
    model, x = PROBLEMS["mlp"].model(), PROBLEMS["mlp"].split()[0]
    operator = kt.NTKOperator(model, x, output=output, gauge="softmax")
    theta = matrix(reduced(full, output, basis), output)
    assert operator.shape == theta.shape
    close(operator.matmat(torch.eye(len(theta), dtype=torch.float64)), theta)
    close(operator.diagonal(), np.diag(theta))
    close(
        cross_time_ntk(model, x, NetworkState.of(model), output=output, gauge="softmax"), reduced(full, output, basis)
    )


def test_no_number_depends_on_the_basis():
    full = exact("mlp")
    other = np.linalg.qr(np.random.default_rng(0).standard_normal((full.shape[-1],) * 2))[0]
    turned = helmert(full.shape[-1]) @ np.linalg.qr(other[1:, 1:])[0]
    values = np.linalg.eigvalsh(matrix(reduced(full, "full", turned)))
    found = kt.eigensystem(measured("mlp", gauge="softmax")).values
    np.testing.assert_allclose(found, values[::-1], atol=1e-12 * values.max())
    assert found[-1] > 1e-6 * values.max()  # no structural zero: the raw kernel's C·C has N of them


@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_what_is_added_to_all_outputs_is_not_seen(output):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    shifted = copy.deepcopy(model)
    with torch.no_grad():
        shifted[-1].weight += torch.randn(5).double()
        shifted[-1].bias += 2.0
    x = torch.randn(6, 4).double()
    one, other = (kt.empirical_ntk(m, x, output=output, gauge="softmax") for m in (model, shifted))
    close(one, other.numpy())
    raw = [kt.empirical_ntk(m, x, output=output) for m in (model, shifted)]
    assert (raw[0] - raw[1]).abs().max() > 0.1 * raw[0].abs().max()


def test_the_default_and_auto_are_raw_and_half_precision_has_its_kernel():
    model, x = PROBLEMS["mlp"].model(), PROBLEMS["mlp"].split()[0]
    assert torch.equal(kt.empirical_ntk(model, x), kt.empirical_ntk(model, x, gauge="auto"))
    half = kt.empirical_ntk(model, x, gauge="softmax", dtype=torch.bfloat16)
    expected = kt.empirical_ntk(model, x, gauge="softmax")
    assert half.dtype == torch.float32
    assert (half - expected).norm() < 2**-5 * expected.norm()  # a few layers of 2⁻⁸ each


@pytest.mark.parametrize("outputs", [70, pytest.param(1000, marks=pytest.mark.nightly)])
def test_the_trace_of_many_outputs_is_one_to_float32(outputs):
    """Oracle: in closed form, Θ = (x·x′ + 1) ⊗ I, of which the gauge leaves O − 1; layers add up to it. Rounding: 64 ε."""
    model, x = nn.Linear(4, outputs), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = (outputs - 1) * (x.double() @ x.double().T + 1)
    found = kt.empirical_ntk(model, x, output="trace", gauge="softmax")
    assert (found - expected).abs().max() < 64 * 2**-23 * expected.abs().max()
    anchored = cross_time_ntk(model, x, NetworkState.of(model), output="trace", gauge="softmax")
    assert (anchored - expected).abs().max() < 64 * 2**-23 * expected.abs().max()
    parts = kt.empirical_ntk(model, x, output="trace", gauge="softmax", by_layer=True)
    assert (sum(parts.values()) - expected).abs().max() < 64 * 2**-23 * expected.abs().max()


def test_the_plan_says_the_gauge():
    model, x = PROBLEMS["mlp"].model(), PROBLEMS["mlp"].split()[0]
    plan = kt.ntk_plan(model, x, gauge="softmax")
    raw = kt.ntk_plan(model, x)
    assert plan.shape == (5, 5, raw.shape[2] - 1, raw.shape[3] - 1)
    assert (plan.gauge, raw.gauge) == ("softmax", "raw")
    assert "gauge='softmax'" in str(plan)
    assert "gauge" not in str(raw)


@pytest.mark.parametrize(
    ("outputs", "options", "words"),
    [
        (3, {"output": "sum"}, r'nothing but the gauge of softmax.*"trace"'),
        (3, {"output": lambda f: f[:2]}, r"with a callable output=.*f - f\.mean\(\)"),
        (1, {}, r'of one output.*gauge="raw"'),
        (1, {"output": "diagonal"}, "a single logit has no gauge"),
        (3, {"gauge": "centred"}, 'unknown gauge=.*"softmax"'),
        (3, {"output": "mean"}, "unknown output="),
    ],
)
def test_what_has_no_such_gauge_is_refused(outputs, options, words):
    model, x = nn.Linear(4, outputs), torch.randn(5, 4)
    for call in (kt.empirical_ntk, kt.ntk_plan, kt.NTKOperator):
        with pytest.raises(KernelError, match=words):
            call(model, x, **{"gauge": "softmax", **options})
