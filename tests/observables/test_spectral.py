"""Sizes and shapes of spectra against closed forms."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.observables import (
    State,
    catalogue,
    compute,
    condition_number,
    effective_rank,
    participation_ratio,
    select,
    square_share,
    stable_rank,
    trace_share,
)
from kerneltrack.spectrum.decomposition import eigensystem


def test_flat_spectra_have_the_rank_they_look_like():
    values = np.array([2.0, 2.0, 2.0, 0.0, 0.0])
    assert effective_rank(values) == pytest.approx(3)
    assert participation_ratio(6.0, math.sqrt(12.0)) == pytest.approx(3)


def test_the_effective_rank_of_two_eigenvalues_is_its_binary_entropy():
    p = 0.9
    expected = math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert effective_rank(np.array([9.0, 1.0])) == pytest.approx(expected)


def test_rounding_below_the_floor_counts_in_the_trace_and_has_no_logarithm():
    """Law: a tail of rounding, as much below zero as above, leaves trace and effective rank where they were.

    Oracle: three equal eigenvalues. Where only what is below zero was left out, 1,000 of ±10⁻⁵ made 3.007 of 3.
    """
    tail = np.repeat([1e-5, -1e-5], 500)
    values = np.sort(np.append([2.0, 2.0, 2.0], tail))[::-1]
    assert effective_rank(values, 2e-5) == pytest.approx(3, rel=1e-12)
    assert effective_rank(values) > 3.005
    state = State(
        eigensystem=dataclasses.replace(eigensystem(np.diag(values)), noise_floor=2e-5), outputs=np.zeros((1003, 1))
    )
    assert compute(select("effective_rank"), state)["effective_rank"] == pytest.approx(3, rel=1e-9)


def test_what_is_below_zero_counts_in_the_trace():
    """p = 9/8 and 1/8 of a trace of 8: no kernel beyond rounding is like that, and nothing is clipped."""
    expected = math.exp(-sum(p * math.log(p) for p in (9 / 8, 1 / 8)))
    assert effective_rank(np.array([9.0, 1.0, -2.0])) == pytest.approx(expected)
    assert math.isnan(effective_rank(np.array([1.0, -2.0])))


def test_ranks_do_not_depend_on_scale_and_stay_in_their_bounds():
    values = np.random.default_rng(0).exponential(size=20)
    assert effective_rank(5 * values) == pytest.approx(effective_rank(values))
    participation = participation_ratio(values.sum(), np.linalg.norm(values))
    assert 1 <= participation <= effective_rank(values) <= 20


def test_a_singular_kernel_has_no_finite_condition_number():
    assert condition_number(np.array([4.0, 2.0]), 1e-6) == pytest.approx(2)
    assert condition_number(np.array([4.0, 1e-7]), 1e-6) == math.inf
    assert condition_number(np.array([4.0, -1e-3]), 1e-6) == math.inf


def test_shares_of_the_first_modes():
    values = np.array([3.0, 1.0, 0.0])
    np.testing.assert_allclose(trace_share(values, 4.0, (1, 2, 3)), [0.75, 1, 1])
    np.testing.assert_allclose(square_share(values, math.sqrt(10), (1, 2, 3)), [0.9, 1, 1])


def test_nothing_is_made_of_a_zero_kernel():
    assert math.isnan(effective_rank(np.zeros(3)))
    assert math.isnan(participation_ratio(0.0, 0.0))
    assert math.isnan(stable_rank(0.0, 0.0))
    assert np.isnan(trace_share(np.zeros(3), 0.0, (1, 2))).all()
    assert np.isnan(square_share(np.zeros(3), 0.0, (1, 2))).all()


def test_values_come_from_the_matrix(problem, reduction):
    matrix = problem.matrix(reduction)
    values = compute(tuple(catalogue().values()), problem.state(reduction))
    eigenvalues = np.linalg.eigvalsh(matrix)[::-1]
    assert values["trace"] == pytest.approx(np.trace(matrix))
    assert values["frobenius"] == pytest.approx(np.linalg.norm(matrix))
    assert values["condition_number"] == pytest.approx(np.linalg.cond(matrix), rel=1e-8)
    assert values["numerical_rank"] == np.linalg.matrix_rank(matrix)
    assert values["participation_ratio"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert values["stable_rank"] == pytest.approx(eigenvalues.sum() / eigenvalues[0])
    assert values["trace_share"][-1] == pytest.approx(1)
    assert values["square_share"][0] == pytest.approx(eigenvalues[0] ** 2 / (eigenvalues**2).sum())
    assert 0 < values["eigen_residual"] < 1e-11 * eigenvalues[0]


def test_an_operator_that_knows_no_trace_says_so(problem):
    matrix = problem.matrix("full")

    class Operator:
        shape = matrix.shape

        def matmat(self, block):
            return matrix @ block

    values = compute(select(["trace", "frobenius"]), problem.state(eigensystem=eigensystem(Operator(), 3)))
    assert math.isnan(values["trace"])
    assert "does not know its trace" in values.reasons["trace"]
    assert "needs the whole kernel" in values.reasons["frobenius"]
