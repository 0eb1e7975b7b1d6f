"""Layers' shares against a Jacobian whose columns are split by hand."""

import math

import numpy as np
import pytest

from kerneltrack.observables import compute, permuted_pair_alignment, quadratic_form, select, shares

LAYERS = ["first", "second", "head"]
ALL = [
    "layer_trace", "layer_share", "layer_frobenius", "layer_target_alignment", "layer_target_alignment_null",
    "layer_target_alignment_centred", "layer_target_alignment_centred_null",
]  # fmt: skip


def split(problem, reduction):
    """The state, and each layer's kernel and matrix, when ten parameters belong to each of three layers."""
    whole = problem.jacobian
    kernels, matrices = {}, {}
    for index, name in enumerate(LAYERS):
        problem.jacobian = whole[:, :, 10 * index : 10 * (index + 1)]
        kernels[name], matrices[name] = problem.kernel(reduction), problem.matrix(reduction)
    problem.jacobian = whole
    traces = {name: float(np.trace(matrix)) for name, matrix in matrices.items()}
    state = problem.state(reduction, layer_traces=traces, layer_kernels=kernels, settings={"layers": LAYERS})
    return state, matrices


def test_layers_add_up_to_the_kernel(problem, reduction):
    state, matrices = split(problem, reduction)
    values = compute(select(ALL), state)
    assert not values.reasons
    np.testing.assert_allclose(sum(matrices.values()), problem.matrix(reduction), atol=1e-11)
    assert values["layer_trace"].sum() == pytest.approx(state.eigensystem.trace)
    np.testing.assert_allclose(values["layer_share"], values["layer_trace"] / state.eigensystem.trace)
    assert values["layer_share"].sum() == pytest.approx(1)


def test_each_layer_s_norm_and_alignment_are_its_matrix_s(problem, reduction):
    state, matrices = split(problem, reduction)
    values = compute(select(ALL), state)
    one = reduction == "sum"
    columns = problem.targets.sum(axis=1, keepdims=True) if one else problem.targets
    target, centring = columns @ columns.T, np.eye(7) - 1 / 7
    for index, (layer, matrix) in enumerate(zip(state.layer_kernels.values(), matrices.values(), strict=True)):
        assert values["layer_frobenius"][index] == pytest.approx(np.linalg.norm(matrix))
        pairs = layer if layer.ndim == 2 else np.einsum("nmoo->nm" if layer.ndim == 4 else "nmo->nm", layer)
        for name, h in (("layer_target_alignment", np.eye(7)), ("layer_target_alignment_centred", centring)):
            a, b = h @ pairs @ h, h @ target @ h
            expected = np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
            assert values[name][index] == pytest.approx(expected)
            # the null is that of the whole kernel's function, tested there against every permutation
            null = permuted_pair_alignment(a, h @ columns)
            assert values[f"{name}_null"][index] == pytest.approx(null)


def test_quadratic_forms_are_those_of_the_matrix(problem, reduction):
    columns = problem.columns(problem.targets, reduction)
    phi = columns if reduction in ("trace", "sum") else problem.targets
    expected = np.trace(columns.T @ problem.matrix(reduction) @ columns)
    assert quadratic_form(problem.kernel(reduction), phi) == pytest.approx(expected)


def test_each_layer_s_kernel_is_stored_with_all_its_axes(problem, reduction):
    state, _ = split(problem, reduction)
    stored = compute(select("layer_kernel"), state)["layer_kernel"]
    for index, kernel in enumerate(state.layer_kernels.values()):
        np.testing.assert_array_equal(stored[index].reshape(kernel.shape), kernel)
    assert stored.ndim == 5


def test_layers_that_were_not_measured_are_nan_for_every_layer(problem):
    values = compute(select(ALL), problem.state(settings={"layers": LAYERS}))
    assert values["layer_share"].shape == (3,)
    assert np.isnan(values["layer_share"]).all()
    assert values.reasons["layer_target_alignment"] == "not measured: layer_kernels"


def test_a_network_without_gradients_has_no_shares():
    assert np.isnan(shares({"a": 0.0, "b": 0.0})).all()
    assert math.isclose(shares({"a": 1.0, "b": 3.0})[1], 0.75)
