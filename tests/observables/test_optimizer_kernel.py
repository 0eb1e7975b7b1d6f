"""The optimizer's kernel against Jacobians scaled by hand."""

import numpy as np
import pytest

from kerneltrack.observables import compute, select
from kerneltrack.spectrum import eigensystem

NAMES = [
    "optimizer_eigenvalues",
    "optimizer_kernel_distance",
    "optimizer_target_alignment",
    "optimizer_target_alignment_null",
]


def test_one_learning_rate_scales_the_eigenvalues_and_nothing_else(problem, reduction):
    state = problem.state(reduction, optimizer_kernel=0.2 * problem.kernel(reduction))
    values = compute(select([*NAMES, "kernel_target_alignment", "kernel_target_alignment_null"]), state)
    np.testing.assert_allclose(values["optimizer_eigenvalues"], 0.2 * state.eigensystem.values, atol=1e-11)
    assert values["optimizer_kernel_distance"] == pytest.approx(0, abs=1e-15)
    assert values["optimizer_target_alignment"] == pytest.approx(values["kernel_target_alignment"])
    assert values["optimizer_target_alignment_null"] == pytest.approx(values["kernel_target_alignment_null"])


def test_a_preconditioner_is_a_scaled_jacobian(problem, reduction):
    """Oracle: J√P, whose kernel is J P Jᵀ; its eigenvalues by explicit placement of the matrix."""
    plain = problem.kernel(reduction)
    problem.jacobian = problem.jacobian * np.sqrt(np.random.default_rng(0).uniform(0.1, 3.0, problem.jacobian.shape[2]))
    own, matrix = problem.kernel(reduction), problem.matrix(reduction)
    state = problem.state(reduction, kernel=plain, optimizer_kernel=own)
    values = compute(select(NAMES), state)
    np.testing.assert_allclose(values["optimizer_eigenvalues"], np.linalg.eigvalsh(matrix)[::-1], atol=1e-10)
    cosine = np.vdot(own, plain) / np.linalg.norm(own) / np.linalg.norm(plain)
    assert values["optimizer_kernel_distance"] == pytest.approx(1 - cosine, abs=1e-12)
    pairs = own if own.ndim == 2 else np.einsum("nmoo->nm" if own.ndim == 4 else "nmo->nm", own)
    phi = problem.targets.sum(axis=1, keepdims=True) if reduction == "sum" else problem.targets
    form = np.trace(phi.T @ pairs @ phi) / np.linalg.norm(pairs) / np.linalg.norm(phi @ phi.T)
    assert values["optimizer_target_alignment"] == pytest.approx(form)


def test_without_a_preconditioner_there_is_none(problem):
    values = compute(select(NAMES), problem.state())
    assert np.isnan(values["optimizer_eigenvalues"]).all()
    assert set(values.reasons.values()) == {"not measured: optimizer_kernel"}


def test_where_leading_pairs_alone_are_computed_there_are_as_many_of_the_optimizer(problem):
    """Oracle: numpy's eigenvalues of the whole matrix. All of them ended a run with eigenpairs="leading"."""
    own = 0.2 * problem.kernel("trace")
    leading = eigensystem(problem.kernel("trace"), 3)
    found = compute(select(NAMES), problem.state("trace", eigensystem=leading, optimizer_kernel=own))
    assert len(leading.values) == 3
    np.testing.assert_allclose(found["optimizer_eigenvalues"], np.linalg.eigvalsh(own)[::-1][:3], atol=1e-10)
