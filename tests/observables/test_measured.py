"""measurement() against the archive's schema and against coefficients from explicit loops."""

from dataclasses import replace

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, Update, catalogue, energy_k, measurement, register
from kerneltrack.schema import MEASUREMENT_FIELDS
from kerneltrack.spectrum.decomposition import eigensystem


def test_every_core_dataset_has_the_schema_s_dimensions(problem, reduction):
    start = problem.state(reduction)
    rows = start.eigensystem.size
    state = problem.state(reduction, cross_time=start.kernel, extension=np.ones((rows, 5))).as_initial()
    stored = measurement(state, top_k=4, keep_kernel=True)
    assert set(stored) == {field.name for field in MEASUREMENT_FIELDS}
    kept = state.kernel_outputs
    sizes = {
        "sample": 7,
        "sample_2": 7,
        "output": 3,
        "mode": rows,
        "vector": 4,
        "vector_2": 4,
        "other_vector": 5,
        "kernel_output": kept,
        "kernel_output_2": kept if reduction == "full" else 1,
        "coefficient": 3 if reduction == "trace" else 1,
    }
    for field in MEASUREMENT_FIELDS:
        assert stored[field.name].shape == tuple(sizes[dim] for dim in field.dims[1:]), field.name
        assert stored[field.name].dtype in [np.dtype(dtype) for dtype in field.dtype.split()]


@pytest.mark.parametrize("dtype", ["float32", "torch.float64"])
def test_a_kernel_is_stored_in_the_precision_it_was_computed_in(problem, dtype):
    stored = measurement(problem.state(settings={"dtype": dtype}), top_k=1, keep_kernel=True)
    assert str(stored["kernel"].dtype) == dtype.removeprefix("torch.")


def test_the_kernel_on_the_initial_basis(problem, reduction):
    # Oracle: V_0ᵀ Θ_t V_0 with explicit matrices.
    start = problem.state(reduction)
    problem.jacobian = problem.jacobian[::-1]
    state = problem.state(reduction, initial=start)
    basis = start.eigensystem.vectors[:, :4]
    expected = basis.T @ problem.matrix(reduction) @ basis
    np.testing.assert_allclose(measurement(state, top_k=4)["initial_basis"], expected, atol=1e-11)
    own = measurement(start.as_initial(), top_k=4)["initial_basis"]
    np.testing.assert_allclose(own, np.diag(start.eigensystem.values[:4]), atol=1e-11)


def test_coefficients_are_inner_products(problem, reduction):
    state = problem.state(reduction, initial=problem.state(reduction, outputs=0.5 * problem.outputs))
    stored = measurement(state, top_k=99)
    vectors = state.eigensystem.vectors
    functions = {
        "target": problem.targets,
        "output": problem.outputs,
        "residual": problem.outputs - problem.targets,
        "displacement": 0.5 * problem.outputs,
    }
    for name, phi in functions.items():
        columns = problem.columns(phi, reduction)
        expected = [
            [sum(vectors[row, i] * columns[row, c] for row in range(len(vectors))) for c in range(columns.shape[1])]
            for i in range(vectors.shape[1])
        ]
        np.testing.assert_allclose(stored[f"{name}_coefficients"], expected, atol=1e-13)
    rows = state.eigensystem.vectors.reshape(7, state.kernel_outputs, -1)
    np.testing.assert_allclose(stored["mode_sums"], rows.sum(axis=0).T, atol=1e-14)
    np.testing.assert_allclose(stored["eigenvectors"], rows, atol=1e-7)


def test_what_does_not_exist_is_absent_and_what_is_unknown_is_nan(problem):
    stored = measurement(problem.state(targets=None, residual=None), top_k=2)
    assert not {"target_coefficients", "residual_coefficients", "residual", "kernel"} & set(stored)
    assert np.isnan(stored["displacement_coefficients"]).all()


def test_the_grid_of_k():
    assert energy_k(1) == (1,)
    assert energy_k(5) == (1, 2, 5)
    assert energy_k(1000) == (1, 2, 5, 10, 20, 50, 100, 200, 400, 1000)
    assert energy_k(10_000)[-5:] == (400, 1000, 2000, 4000, 10_000)


@pytest.mark.parametrize("name", ["step", "outputs", "energy_k", "inputs", "extension", "input_shapes"])
def test_a_name_of_the_format_is_taken(name):
    """One of each kind: a column, a measured dataset, a dimension, a folder, a text."""
    with pytest.raises(ObservableError, match="taken"):
        register(replace(catalogue()["trace"], name=name))


def test_shapes_are_checked(problem):
    found = eigensystem(problem.kernel("full"))
    with pytest.raises(ObservableError, match="shape of outputs"):
        State(eigensystem=found, outputs=np.zeros(21))
    with pytest.raises(ObservableError, match="shape of targets"):
        problem.state(targets=np.zeros((7, 2)))
    for shape, reduction in (((4, 3), "full"), ((7, 3), "trace"), ((21, 3), "callable")):
        with pytest.raises(ObservableError, match=r"do not fit outputs.*21"):
            State(eigensystem=found, outputs=np.zeros(shape), reduction=reduction)
    with pytest.raises(ObservableError, match="shape of linear_change"):
        Update(output_change=np.zeros((7, 3)), linear_change=np.zeros((3, 7)))
    change = np.zeros((7, 3))
    with pytest.raises(ObservableError, match="shapes of layer_linear_changes"):
        Update(output_change=change, linear_change=change, layer_linear_changes={"a": change, "b": change[:2]})


def test_a_state_does_not_keep_its_ancestors_alive(problem):
    state = problem.state()
    for _ in range(3):
        state = problem.state(previous=state, initial=state)
    assert state.previous.previous is None
    assert state.previous.initial is None
    assert state.initial.previous is None
    assert state.as_initial().initial.initial is None
