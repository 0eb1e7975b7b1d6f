"""Distances between kernels against explicit matrices and exact small rotations."""

import math

import numpy as np
import pytest

from kerneltrack.observables import compute, kernel_distance, relative_kernel_change, select

NAMES = ["kernel_distance_from_initial", "relative_kernel_change"]


def moved(problem, amount):
    rng = np.random.default_rng(9)
    problem.jacobian = problem.jacobian + amount * rng.standard_normal(problem.jacobian.shape)
    return problem


@pytest.mark.parametrize("kernels", [True, False])
def test_distances_are_those_of_the_matrices(problem, reduction, kernels):
    # With kernels they are compared entry by entry; without, they are put together from complete
    # eigensystems.
    keep = {} if kernels else {"kernel": None}
    before, start = problem.matrix(reduction), problem.state(reduction, **keep)
    moved(problem, 0.3)
    after, state = problem.matrix(reduction), problem.state(reduction, initial=start, **keep)
    values = compute(select(NAMES), state)
    cosine = np.vdot(before, after) / (np.linalg.norm(before) * np.linalg.norm(after))
    assert values[NAMES[0]] == pytest.approx(1 - cosine, rel=1e-9)
    assert values[NAMES[1]] == pytest.approx(
        np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-10
    )


def test_the_distance_of_nearly_equal_kernels_does_not_drown_in_rounding():
    # Two unit matrices at angle a are 1 − cos a = 2 sin²(a/2) apart; 1 − cos computed directly gives 0 here.
    angle = 1e-9
    a, b = np.diag([1.0, 0.0]), np.diag([math.cos(angle), math.sin(angle)])
    assert kernel_distance(a, b) == pytest.approx(2 * math.sin(angle / 2) ** 2, rel=1e-6)


def test_distance_is_blind_to_scale_and_change_is_not():
    kernel = np.diag([1.0, 2.0])
    assert kernel_distance(kernel, 3 * kernel) == pytest.approx(0, abs=1e-30)
    assert relative_kernel_change(3 * kernel, kernel) == pytest.approx(2)
    assert kernel_distance(np.diag([1.0, 0.0]), np.diag([0.0, 1.0])) == pytest.approx(1)


def test_zero_kernels_have_no_distance():
    assert math.isnan(kernel_distance(np.zeros((2, 2)), np.eye(2)))
    assert math.isnan(relative_kernel_change(np.eye(2), np.zeros((2, 2))))


def test_the_first_snapshot_has_not_moved(problem):
    values = compute(select(NAMES), problem.state().as_initial())
    assert values[NAMES[0]] == values[NAMES[1]] == 0
    assert compute(select(NAMES), problem.state()).reasons[NAMES[0]] == "not measured: initial"
