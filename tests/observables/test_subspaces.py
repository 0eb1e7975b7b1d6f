"""Subspaces that turn by a known angle."""

import dataclasses
import math

import numpy as np
import pytest

from kerneltrack.observables import compute, energy_k, largest_principal_angle, select, subspace_overlap, subspaces
from kerneltrack.observables.subspaces import rotation_bound
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


@pytest.mark.parametrize("given", [9, 8])
def test_most_of_all_columns_are_compared_by_the_others(given):
    """Oracle: ‖U_kᵀ W_k‖_F²/k by the product itself, at every k of random bases; where a column lacks there is no other way."""
    one, two = (np.linalg.qr(np.random.default_rng(seed).standard_normal((9, 9)))[0][:, :given] for seed in (1, 2))
    grid = range(1, given + 1)
    expected = [np.linalg.norm(one[:, :k].T @ two[:, :k]) ** 2 / k for k in grid]
    np.testing.assert_allclose(subspace_overlap(one, two, grid), expected, rtol=1e-13)


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


@pytest.mark.parametrize("angle", [1e-6, 0.3, 0.7])
def test_the_bound_is_met_by_a_plane_that_turns(angle):
    """Oracle: diag(3, 1) turned by φ; its change is 2 sin φ times a reflection, so the bound is sin φ for λ_1 − λ_2 = 2."""
    c, s = math.cos(angle), math.sin(angle)
    rotation, kernel = np.array([[c, -s], [s, c]]), np.diag([3.0, 1.0])
    change = rotation @ kernel @ rotation.T - kernel
    values = np.array([3.0, 1.0])
    assert rotation_bound(change[:, :1], values, values, (1, 2)).tolist() == pytest.approx([s, 0])


@pytest.mark.parametrize("size", [1e-8, 1e-3, 0.1, 3.0])
def test_no_span_turns_further_than_its_bound(problem, size):
    """Davis and Kahan's theorem on random changes: sin θ_max ≤ bound at every k, to the angles' rounding."""
    matrix = problem.matrix("full")
    noise = np.random.default_rng(3).standard_normal(matrix.shape)
    other = matrix + size * (noise + noise.T)
    n, o = problem.targets.shape
    kernel = other.reshape(n, o, n, o).transpose(0, 2, 1, 3)
    after = problem.state(kernel=kernel, eigensystem=eigensystem(kernel), initial=problem.state())
    names = ["subspace_rotation_bound", "principal_angle_with_initial"]
    bound, angle = (compute(select(names), after)[name] for name in names)
    assert len(bound) == len(energy_k(n * o))
    assert bound[-1] == 0
    assert np.all(np.sin(angle) <= bound + 1e-7)
    assert (bound < 1).any() or size > 1


def test_columns_of_the_change_are_formed_as_far_as_they_tell():
    """Counted on a change whose first column is longer than the other gaps. Oracle: the norms of all columns."""
    values = np.array([9.0, 4.0, 3.9, 3.8, 3.7, 3.6])
    change, asked = np.diag([2.0, 0.1, 0.1, 0.1, 0.1, 0.1]), []

    def columns(reach):
        asked.append(reach)
        return change[:, :reach]

    grid = (1, 2, 5, 6)
    found = subspaces._bounds(columns, values, values, grid)
    assert asked == [1]
    assert found.tolist() == pytest.approx([2 / 5, 1, 1, 0])
    np.testing.assert_array_equal(rotation_bound(change, values, values, grid), found)
    tiny = rotation_bound(1e-3 * change, values, values, grid)
    expected = [1e-3 * np.linalg.norm(change[:, :m], 2) / (values[m - 1] - values[m]) for m in grid[:3]]
    assert tiny.tolist() == pytest.approx([*expected, 0])


def test_only_spans_that_cut_no_cluster_are_compared(problem, monkeypatch):
    """Counted: of the others nothing is computed, and they are NaN."""
    state, asked = problem.state("trace"), []
    whole = subspaces.subspace_overlap
    monkeypatch.setattr(subspaces, "subspace_overlap", lambda a, b, k: asked.append(list(k)) or whole(a, b, k))
    pairs = dataclasses.replace(
        state.eigensystem, noise_floor=float(np.diff(-state.eigensystem.values)[1:].max()) + 1e-9
    )
    after = problem.state("trace", eigensystem=pairs, initial=state)
    found = subspaces._determined(subspaces.subspace_overlap, after, after.initial)
    assert asked == [[1, 7]]
    assert np.isnan(found).tolist() == [k not in (1, 7) for k in energy_k(7)]


def test_a_kernel_that_is_not_there_is_put_together_from_all_eigenpairs(problem, reduction):
    start = problem.state(reduction, outputs=2 * problem.outputs)
    with_kernel = problem.state(reduction, initial=start)
    without = problem.state(reduction, initial=start, kernel=None)
    found = [compute(select("subspace_rotation_bound"), s)["subspace_rotation_bound"] for s in (with_kernel, without)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-12)
