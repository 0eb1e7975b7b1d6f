"""What two tasks have in common. Oracles: bases in the space of the parameters, and descent itself."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

import kerneltrack as kt
from kerneltrack.errors import RegressionError
from kerneltrack.regression import cross_size, descent_filter, epsilon_rank, tangent_angles, trained

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((9, 30)), RNG.standard_normal((7, 30))


def angles(a, b, k):
    first, second = kt.eigensystem(a @ a.T), kt.eigensystem(b @ b.T)
    return tangent_angles(a @ b.T @ second.vectors, first, second.values, k)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_angles_are_those_of_the_leading_right_singular_vectors(k):
    (_, _, one), (_, _, two) = (np.linalg.svd(j, full_matrices=False) for j in (A, B))
    np.testing.assert_allclose(angles(A, B, k), np.sort(subspace_angles(one[:k].T, two[:k].T)), atol=1e-9)


def test_of_one_task_with_itself_all_are_zero_and_of_disjoint_inputs_all_are_right():
    """To the rounding of an arc cosine near 1, √ε; disjoint pixels: Θ_AB = 0."""
    np.testing.assert_allclose(angles(A, A, 5), 0, atol=1e-7)
    left, right = A * (np.arange(30) < 15), B * (np.arange(30) >= 15)
    np.testing.assert_allclose(angles(left, right, 5), np.pi / 2)
    assert cross_size(np.linalg.norm(left @ right.T), 1.0, 1.0) == 0


def test_what_they_have_in_common_does_not_depend_on_units_or_order():
    order = RNG.permutation(9)
    np.testing.assert_allclose(angles(3 * A[order], B / 7, 4), angles(A, B, 4), atol=1e-9)
    sizes = [np.linalg.norm(x) for x in (A @ B.T, A @ A.T, B @ B.T)]
    assert cross_size(*sizes) == pytest.approx(cross_size(3 * sizes[0], 9 * sizes[1], sizes[2]))
    assert 0 < cross_size(*sizes) < 1
    assert cross_size(sizes[1], sizes[1], sizes[1]) == pytest.approx(1)
    assert np.isnan(cross_size(0.0, 0.0, 1.0))


@pytest.mark.parametrize("updates", [1, 10, 300])
def test_the_change_of_old_outputs_is_that_of_descent_on_the_new_task(updates):
    """A linear model, exact: 1e-10."""
    theta, y, rate = RNG.standard_normal((30, 2)), RNG.standard_normal((7, 2)), 0.02
    moved = theta.copy()
    for _ in range(updates):
        moved -= rate * B.T @ (B @ moved - y)
    pairs = kt.eigensystem(B @ B.T)
    filters = descent_filter(pairs.values, rate, updates)
    found = trained(A @ B.T, pairs, y, filters, offset=(A @ theta, B @ theta))
    np.testing.assert_allclose(found, A @ moved, atol=1e-10)


def test_the_rank_counts_what_is_above_its_share():
    assert epsilon_rank(np.array([100.0, 2.0, 1.0, 0.5])) == 2
    assert epsilon_rank(np.array([100.0, 2.0, 1.0, 0.5]), 1e-3) == 4


def test_what_does_not_exist_is_refused():
    with pytest.raises(RegressionError, match="k from 1 to 7"):
        angles(A, B, 8)
    with pytest.raises(RegressionError, match="no direction"):
        angles(np.zeros((3, 30)), B, 1)
    with pytest.raises(RegressionError, match="0 < ε < 1"):
        epsilon_rank(np.ones(3), 1.0)
