"""Subspaces that turn by a known angle."""

import math

import numpy as np
import pytest

from kerneltrack.observables import compute, largest_principal_angle, select, subspace_overlap
from kerneltrack.spectrum.decomposition import eigensystem


def turned(vectors, first, second, angle):
    """The same columns with one pair turned in its plane."""
    found = vectors.copy()
    found[:, first] = math.cos(angle) * vectors[:, first] + math.sin(angle) * vectors[:, second]
    found[:, second] = math.cos(angle) * vectors[:, second] - math.sin(angle) * vectors[:, first]
    return found


@pytest.fixture
def vectors():
    return np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]


@pytest.mark.parametrize("angle", [1e-9, 0.4, math.pi / 2])
def test_a_span_that_turns_by_an_angle(vectors, angle):
    # Column 1 turns towards column 4: the spans of 2, 3 and 4 columns turn by the angle, those of 1 and 5 not at all.
    after = turned(vectors, 1, 4, angle)
    angles = largest_principal_angle(after, vectors, (1, 2, 4, 5, 8))
    np.testing.assert_allclose(angles, [0, angle, angle, 0, 0], atol=1e-15 + 1e-7 * angle)
    overlaps = subspace_overlap(after, vectors, (1, 2, 4, 5))
    cosine = math.cos(angle) ** 2
    np.testing.assert_allclose(overlaps, [1, (1 + cosine) / 2, (3 + cosine) / 4, 1], atol=1e-14)


def test_signs_and_rotations_inside_a_span_do_not_matter(vectors):
    after = turned(vectors, 0, 1, 0.8) * np.array([-1, 1, 1, -1, 1, 1, 1, 1])
    assert subspace_overlap(after, vectors, (2,)) == pytest.approx(1)
    assert largest_principal_angle(after, vectors, (2,)) == pytest.approx(0, abs=1e-14)
    assert subspace_overlap(after, vectors, (1,)) < 0.5


def test_random_spans_overlap_by_k_over_m():
    # Oracle: E‖UᵀW‖_F² = k²/M for independent random spans; standard error over 200 draws.
    rng = np.random.default_rng(2)
    found = [
        subspace_overlap(*(np.linalg.qr(rng.standard_normal((20, 5)))[0] for _ in range(2)), (5,))[0]
        for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(5 / 20, abs=4 * np.std(found) / math.sqrt(200))


NAMES = ["subspace_overlap_with_initial", "subspace_overlap_with_previous", "principal_angle_with_initial"]


def test_a_state_that_did_not_move_overlaps_with_itself(problem, reduction):
    state = problem.state(reduction)
    values = compute(select(NAMES), problem.state(reduction, initial=state, previous=state))
    np.testing.assert_allclose(values[NAMES[0]], 1, atol=1e-13)
    np.testing.assert_allclose(values[NAMES[1]], 1, atol=1e-13)
    np.testing.assert_allclose(values[NAMES[2]], 0, atol=1e-13)


def test_fewer_vectors_than_before_are_enough_and_more_are_not(problem):
    few = problem.state(eigensystem=eigensystem(problem.kernel("full"), 5))
    every = problem.state()
    values = compute(select(NAMES[0]), problem.state(eigensystem=few.eigensystem, initial=every))
    assert values[NAMES[0]][-1] == pytest.approx(1)
    values = compute(select(NAMES[0]), problem.state(initial=few))
    assert np.isnan(values[NAMES[0]]).all()
    assert "fewer eigenvectors" in values.reasons[NAMES[0]]
