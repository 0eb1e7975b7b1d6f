"""The conditions of Zhang, Martens and Grosse against explicit Jacobians."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.observables import compute, jacobian_change, jacobian_stability, select, stability_radius
from kerneltrack.spectrum.decomposition import eigensystem

NAMES = ["parameter_distance", "jacobian_change", "jacobian_stability", "stability_radius", "stability_radius_share"]


def test_the_change_of_a_jacobian_is_its_largest_singular_value():
    rng = np.random.default_rng(0)
    before = rng.standard_normal((5, 9))
    after = before + 0.1 * rng.standard_normal((5, 9))
    found = jacobian_change(after @ after.T, before @ before.T, after @ before.T)
    assert found == pytest.approx(np.linalg.norm(after - before, 2), rel=1e-10)
    assert jacobian_change(before @ before.T, before @ before.T, before @ before.T) == pytest.approx(0, abs=1e-6)


def test_a_singular_kernel_guarantees_nothing():
    assert jacobian_stability(1.0, 0.0) == stability_radius(np.ones((2, 1)), 0.0) == math.inf
    assert jacobian_stability(1.0, 4.0) == pytest.approx(1.5)
    assert stability_radius(np.array([[3.0], [4.0]]), 25.0) == pytest.approx(3)


@pytest.mark.parametrize("kernels", [True, False])
def test_values_on_a_state_are_those_of_the_jacobians(problem, kernels):
    # Oracle: singular values of the NO×P Jacobians, rows (n, o).
    keep = {} if kernels else {"kernel": None}
    before = problem.jacobian
    start = problem.state(**keep)
    problem.jacobian = after = before + 0.2 * np.random.default_rng(1).standard_normal(before.shape)
    cross = np.einsum("nop,mqp->nmoq", after, before)
    state = problem.state(initial=start, cross_time=cross, parameter_distance=0.4, **keep)
    values = compute(select(NAMES), state)
    first, last = (j.reshape(21, -1) for j in (before, after))
    smallest = np.linalg.svd(first, compute_uv=False)[-1]
    change = np.linalg.norm(last - first, 2)
    radius = 3 * np.linalg.norm(problem.targets - problem.outputs) / smallest
    expected = [0.4, change, 3 * change / smallest, radius, 0.4 / radius]
    np.testing.assert_allclose([values[name] for name in NAMES], expected, rtol=1e-8)


def test_the_trace_kernel_knows_the_change_but_not_the_condition(problem):
    # As an N × OP matrix the stacked Jacobian has the trace kernel as its Gram matrix.
    before = problem.jacobian
    start = problem.state("trace")
    problem.jacobian = after = before + 0.2 * np.random.default_rng(1).standard_normal(before.shape)
    cross = np.einsum("nop,mop->nm", after, before)
    values = compute(select(NAMES), problem.state("trace", initial=start, cross_time=cross))
    assert values["jacobian_change"] == pytest.approx(np.linalg.norm((after - before).reshape(7, -1), 2), rel=1e-8)
    assert math.isnan(values["jacobian_stability"])
    assert 'output="full" only' in values.reasons["jacobian_stability"]
    diagonal = problem.state("diagonal", initial=problem.state("diagonal"), cross_time=np.ones((7, 7, 3)))
    assert "full kernel" in compute(select(NAMES), diagonal).reasons["jacobian_change"]


def test_a_smallest_eigenvalue_below_the_noise_floor_is_zero(problem):
    pairs = problem.state().eigensystem
    values = pairs.values.copy()
    values[-1] = pairs.noise_floor / 2
    start = problem.state(eigensystem=dataclasses.replace(pairs, values=values))
    found = compute(select("stability_radius"), problem.state(initial=start))
    assert found["stability_radius"] == math.inf
    values[-1] = pairs.noise_floor * 2
    assert compute(select("stability_radius"), problem.state(initial=start))["stability_radius"] < math.inf


def test_what_was_not_measured_says_so(problem):
    start = problem.state()
    values = compute(select(NAMES), problem.state(initial=start))
    assert values.reasons["jacobian_change"] == "not measured: cross_time"
    assert values.reasons["parameter_distance"] == "not measured: parameters"
    partial = problem.state(eigensystem=eigensystem(problem.kernel("full"), 4))
    assert "smallest" in compute(select(NAMES), problem.state(initial=partial)).reasons["stability_radius"]
