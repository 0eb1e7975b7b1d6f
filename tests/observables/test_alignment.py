"""Energies, their nulls and alignments against dense matrices, brute-force permutations and their laws."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from kerneltrack.errors import ObservableError
from kerneltrack.observables import (
    centre,
    centred_frobenius,
    check_targets,
    compute,
    energy_k,
    kernel_target_alignment,
    measurement,
    permuted_squares,
    rayleigh_quotient,
    relative_energy,
    select,
)
from kerneltrack.spectrum.decomposition import EigenSystem, eigensystem

PLAIN = ["target_energy", "output_energy", "residual_energy", "displacement_energy"]
ENERGIES = [*PLAIN, *(f"{name}_centred" for name in PLAIN)]


def projector_energy(matrix, columns, k):
    """Oracle: ‖P_k Φ‖²/‖Φ‖² with the projector on the top eigenspace from NumPy's solver."""
    _, vectors = np.linalg.eigh(matrix)
    top = vectors[:, ::-1][:, :k]
    return np.linalg.norm(top @ (top.T @ columns)) ** 2 / np.linalg.norm(columns) ** 2


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_are_projections(problem, reduction, name):
    state = problem.state(reduction, initial=problem.state(reduction, outputs=np.cos(problem.outputs)))
    phi = {
        "target_energy": problem.targets,
        "output_energy": problem.outputs,
        "residual_energy": problem.outputs - problem.targets,
        "displacement_energy": problem.outputs - np.cos(problem.outputs),
    }[name.removesuffix("_centred")]
    if name.endswith("_centred"):
        phi = phi - np.ones((7, 7)) @ phi / 7
    columns = problem.columns(phi, reduction)
    matrix = problem.matrix(reduction)
    expected = [projector_energy(matrix, columns, k) for k in energy_k(len(matrix))]
    np.testing.assert_allclose(compute(select(name), state)[name], expected, rtol=1e-10)


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_grow_to_one(problem, reduction, name):
    initial = problem.state(reduction, outputs=np.cos(problem.outputs))
    energies = compute(select(name), problem.state(reduction, initial=initial))[name]
    assert (np.diff(energies) >= -1e-15).all()
    assert energies[0] >= 0
    assert energies[-1] == pytest.approx(1, abs=1e-13)


def test_the_energy_of_one_k_is_a_number():
    coefficients = np.array([[3.0], [4.0]])
    assert relative_energy(coefficients, 25.0, 1) == pytest.approx(9 / 25)
    np.testing.assert_allclose(relative_energy(coefficients[:, 0], 25.0, (1, 2)), [9 / 25, 1])


def test_a_function_without_direction_has_no_energy(problem):
    assert np.isnan(relative_energy(np.zeros((3, 1)), 0.0, (1, 3))).all()
    state = problem.state(targets=np.zeros_like(problem.targets))
    values = compute(select(["target_energy", "target_rayleigh"]), state)
    assert np.isnan(values["target_energy"]).all()
    assert "zero to rounding" in values.reasons["target_energy"]
    assert math.isnan(values["target_rayleigh"])


def test_an_output_that_did_not_move_has_no_displacement_energy(problem):
    start = problem.state()
    still = problem.state(outputs=problem.outputs * (1 + 1e-15), initial=start)
    moved = problem.state(outputs=problem.outputs * (1 + 1e-9), initial=start)
    assert np.isnan(compute(select("displacement_energy"), still)["displacement_energy"]).all()
    assert np.isfinite(compute(select("displacement_energy"), moved)["displacement_energy"]).all()
    # in float32 a change of 1e-9 is rounding
    rounding = problem.state(outputs=problem.outputs * (1 + 1e-9), initial=start, settings={"dtype": "float32"})
    assert np.isnan(compute(select("displacement_energy"), rounding)["displacement_energy"]).all()


def test_energies_ignore_the_signs_and_rotations_of_eigenvectors():
    # A degenerate pair may come out rotated by any angle: energies at the edges of the pair must not move.
    rng = np.random.default_rng(0)
    vectors, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    phi = rng.standard_normal((6, 1))
    turned = vectors * np.array([1, -1, 1, 1, -1, 1])
    angle = 0.7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned[:, 1:3] = turned[:, 1:3] @ rotation
    k, norm = (1, 3, 4, 6), float(np.vdot(phi, phi))
    before, after = (relative_energy(v.T @ phi, norm, k) for v in (vectors, turned))
    np.testing.assert_allclose(after, before, rtol=1e-13)
    # the control: inside the pair the energy does depend on the rotation
    assert abs(relative_energy(turned.T @ phi, norm, 2) - relative_energy(vectors.T @ phi, norm, 2)) > 1e-3


def test_numbers_ignore_the_order_of_the_probe(problem, reduction):
    order = np.random.default_rng(3).permutation(len(problem.targets))
    names = ["target_energy", "target_energy_centred_null", "kernel_target_alignment", "residual_rayleigh", "trace"]
    before = compute(select(names), problem.state(reduction))
    problem.jacobian, problem.targets, problem.outputs = (
        a[order] for a in (problem.jacobian, problem.targets, problem.outputs)
    )
    after = compute(select(names), problem.state(reduction))
    for name in names:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_the_null_is_the_mean_over_every_permutation(problem, reduction, centred):
    # Oracle: all 6! = 720 permutations of six points.
    problem.jacobian, problem.targets = problem.jacobian[:6], problem.targets[:6]
    matrix = problem.matrix(reduction)
    phi = problem.targets - problem.targets.mean(axis=0) if centred else problem.targets
    vectors = np.linalg.eigh(matrix)[1][:, ::-1]
    squares = [
        ((vectors.T @ problem.columns(phi[list(p)], reduction)) ** 2).sum(axis=1)
        for p in itertools.permutations(range(6))
    ]
    np.testing.assert_allclose(permuted_squares(vectors, phi, reduction), np.mean(squares, axis=0), rtol=1e-9)
    name = "target_energy_centred_null" if centred else "target_energy_null"
    problem.outputs = problem.outputs[:6]
    found = compute(select(name), problem.state(reduction))[name]
    norm = np.linalg.norm(problem.columns(phi, reduction)) ** 2
    expected = np.cumsum(np.mean(squares, axis=0))[np.array(energy_k(len(matrix))) - 1] / norm
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_balanced_classes_have_a_null_far_above_k_over_no():
    # Derived: the constant mode alone carries 1/O of the energy of balanced one-hot targets, and k/(NO) does
    # not know.
    samples, outputs = 12, 3
    targets = np.eye(outputs)[np.arange(samples) % outputs]
    kernel = np.ones((samples, samples)) + 1e-3 * np.diag(np.arange(1.0, samples + 1))
    vectors = np.linalg.eigh(kernel)[1][:, ::-1]
    null = permuted_squares(vectors, targets, "trace")[0] / np.vdot(targets, targets)
    assert null == pytest.approx(1 / outputs, abs=1e-4)


def test_one_point_has_nothing_to_permute():
    np.testing.assert_allclose(permuted_squares(np.ones((1, 1)), np.array([[3.0]]), "full"), [9.0])


def test_constant_targets_have_no_null(problem):
    state = problem.state(targets=np.ones_like(problem.targets))
    values = compute(select("target_energy_centred_null"), state)
    assert np.isnan(values["target_energy_centred_null"]).all()
    assert "constant" in values.reasons["target_energy_centred_null"]


def test_the_norm_of_a_centred_kernel_comes_from_its_eigenpairs(problem, reduction):
    matrix = problem.matrix(reduction)
    samples = len(problem.targets)
    projector = np.kron(np.eye(samples) - 1 / samples, np.eye(len(matrix) // samples))
    found = problem.state(reduction)
    norm = centred_frobenius(found.eigensystem.values, found.mode_sums, samples)
    assert norm == pytest.approx(np.linalg.norm(projector @ matrix @ projector), rel=1e-11)


def test_a_kernel_that_is_the_target_is_fully_aligned():
    y = np.array([[1.0], [-2.0], [0.5]])
    found = eigensystem(y @ y.T)
    norm = float(np.vdot(y, y))
    assert kernel_target_alignment(found.values, found.vectors.T @ y, found.frobenius, norm) == pytest.approx(1)
    assert rayleigh_quotient(found.values, found.vectors.T @ y, norm) == pytest.approx(norm)


@pytest.mark.parametrize("name", ["target_rayleigh", "residual_rayleigh"])
def test_rayleigh_quotients_are_quadratic_forms(problem, reduction, name):
    phi = problem.targets if name == "target_rayleigh" else problem.outputs - problem.targets
    columns = problem.columns(phi, reduction)
    expected = np.trace(columns.T @ problem.matrix(reduction) @ columns) / np.vdot(columns, columns)
    assert compute(select(name), problem.state(reduction))[name] == pytest.approx(expected, rel=1e-11)


def test_zero_kernels_have_no_alignment():
    assert math.isnan(kernel_target_alignment(np.zeros(2), np.ones((2, 1)), 0.0, 2.0))


@pytest.mark.parametrize(
    "targets", [np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 0]] - [[0.1], [0.1 + 1e-8], [0.1], [0.1]]]
)
def test_the_sum_of_one_hot_targets_is_refused(targets):
    with pytest.raises(ObservableError, match="add up to the same constant"):
        check_targets(targets, "sum")
    for reduction in ("full", "diagonal", "trace"):
        check_targets(targets, reduction)
    check_targets(np.ones((4, 1)), "sum")
    check_targets(None, "sum")


def test_a_callable_reduction_is_measured_in_its_own_space(problem):
    # With g the identity the kernel of g(f) is the full kernel, and everything must agree.
    full = problem.state("full")
    state = dataclasses.replace(full, reduction="callable")
    for name in ("output_energy", "target_energy", "kernel_target_alignment", "target_energy_null"):
        np.testing.assert_array_equal(compute(select(name), state)[name], compute(select(name), full)[name])
    np.testing.assert_array_equal(
        measurement(state, top_k=2)["output_coefficients"], measurement(full, top_k=2)["output_coefficients"]
    )


def test_energies_of_the_leading_modes_need_no_others(problem):
    # An iterative solver gives six of twenty-one modes: the energies at k ≤ 5 are those of the complete
    # system.
    complete = problem.state()
    partial = problem.state(eigensystem=eigensystem(complete.kernel, 6))
    every, few = (compute(select("target_energy"), state)["target_energy"] for state in (complete, partial))
    assert energy_k(6) == (1, 2, 5, 6)
    np.testing.assert_allclose(few[:3], every[:3], rtol=1e-10)


def test_centring_takes_each_output_s_mean_off():
    phi = np.array([[1.0, 5.0], [3.0, 7.0]])
    np.testing.assert_array_equal(centre(phi), [[-1, -1], [1, 1]])


def test_the_centred_energy_can_be_read_from_an_archive(problem, reduction):
    # ⟨v_i, Hφ⟩ = ⟨v_i, φ⟩ − Σ_o s_i[o] φ̄_o: coefficients and mode sums suffice, as docs/notation.md says.
    state = problem.state(reduction)
    stored = measurement(state, top_k=3)
    mean = problem.columns(problem.targets, reduction).reshape(len(problem.targets), -1).mean(axis=0)
    if reduction == "trace":
        centred = stored["target_coefficients"] - stored["mode_sums"] * mean
    else:
        centred = stored["target_coefficients"] - (stored["mode_sums"] @ mean)[:, None]
    norm = np.linalg.norm(problem.columns(problem.targets - problem.targets.mean(axis=0), reduction)) ** 2
    expected = relative_energy(centred, norm, energy_k(len(stored["eigenvalues"])))
    name = "target_energy_centred"
    np.testing.assert_allclose(compute(select(name), state)[name], expected, rtol=1e-10)


def test_eigensystems_are_not_mistaken_for_complete_ones(problem):
    partial = problem.state(eigensystem=eigensystem(problem.kernel("full"), 4))
    assert isinstance(partial.eigensystem, EigenSystem)
    values = compute(select("kernel_target_alignment"), partial)
    assert math.isnan(values["kernel_target_alignment"])
    assert "spectrum" in values.reasons["kernel_target_alignment"]
