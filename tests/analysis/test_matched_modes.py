"""Eigenfunctions followed over time. Oracles: functions that stand still while their eigenvalues cross, a rotation by a known
angle, every permutation tried, and the same functions in another basis of their eigenspace."""

import dataclasses
import itertools

import numpy as np
import pytest

from kerneltrack.analysis import load
from kerneltrack.analysis.derived import matched_modes
from kerneltrack.analysis.derived.matched_modes import matched
from kerneltrack.errors import AnalysisError

#: Eigenvectors are stored in float32: 2^-24 an entry, and a unit vector's sums of them stay below a few times that.
STORED = 1e-6


def basis(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def archive(folder, synthetic, truth, moments, name="moments"):
    """A run of (eigenvalues (N,), eigenvectors (N, N)) pairs, at steps 0, 1, 2, …."""
    first = next(iter(synthetic.snapshots(truth)))
    rows = []
    for step, (values, vectors) in enumerate(moments):
        held = vectors[:, None, : synthetic.TOP_K].astype("f4")
        measured = {**first.probes["train"], "eigenvalues": values, "eigenvectors": held}
        measured = {name: value for name, value in measured.items() if name != "kernel"}
        rows.append(dataclasses.replace(first, step=step, probes={"train": measured}))
    return load(synthetic.write(folder / f"{name}.h5", rows, synthetic.record(truth))).only


def sorted_moment(values, functions, generator):
    """As a solver gives them: descending, with signs of its own."""
    order = np.argsort(-values, kind="stable")
    return values[order], functions[:, order] * generator.choice([-1.0, 1.0], len(order)), np.argsort(order)


def test_functions_keep_their_place_and_sign_where_their_eigenvalues_cross(tmp_path, synthetic, truth):
    """Oracle: u_1, …, u_N stand still; λ_1 falls through λ_2 and λ_3, so their numbers are those of the sorted values."""
    generator, functions = np.random.default_rng(1), basis(synthetic.N)
    base = 100.0 / np.arange(1, synthetic.N + 1) ** 2
    moments, numbers = [], []
    for first in (100.0, 20.0, 5.0):
        *moment, number = sorted_moment(np.append(first, base[1:]), functions, generator)
        moments.append(moment)
        numbers.append(number)
    run = archive(tmp_path, synthetic, truth, moments)
    found = matched_modes(run, 5)
    last = np.argsort(numbers[-1])[:5]  # who is first at the end
    np.testing.assert_array_equal(found.index, [number[last] for number in numbers])
    np.testing.assert_allclose(found.overlap, 1, atol=STORED)
    assert found.identified.all()
    np.testing.assert_allclose(found.values, [np.append(v, base[1:])[last] for v in (100.0, 20.0, 5.0)])
    end = found.functions(2)
    for moment in range(3):  # the signs that the solver gave at random are those of the end
        np.testing.assert_allclose(found.functions(moment), end, atol=STORED)


@pytest.mark.parametrize(("degrees", "certain"), [(40, True), (47, False)])
def test_a_rotation_is_followed_as_far_as_one_half_of_a_function_goes_on(tmp_path, synthetic, truth, degrees, certain):
    """Oracle: u_1 and u_2 turned by φ have the overlap cos φ with themselves; beyond 45° the other one is nearer: sin φ."""
    functions, angle = basis(synthetic.N), np.radians(degrees)
    turned = functions.copy()
    turned[:, :2] = functions[:, :2] @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    values = 100.0 / np.arange(1, synthetic.N + 1) ** 2
    run = archive(tmp_path, synthetic, truth, [(values, turned), (values, functions)])
    found = matched_modes(run)
    assert found.index.shape == (2, synthetic.TOP_K)
    np.testing.assert_allclose(found.overlap[0, :2], max(np.cos(angle), np.sin(angle)), atol=STORED)
    np.testing.assert_array_equal(found.index[0, :2], [0, 1] if certain else [1, 0])
    assert found.identified.all()


def test_an_even_mixture_is_not_identified_nor_is_what_came_before(tmp_path, synthetic, truth):
    """Oracle: three functions mixed evenly have overlaps of 1/√3 at most with any of three, whose square is below one half."""
    functions, values = basis(synthetic.N), 100.0 / np.arange(1, synthetic.N + 1) ** 2
    mixed = functions.copy()
    mixed[:, :3] = functions[:, :3] @ (np.ones((3, 3)) * 2 / 3 - np.eye(3))  # a reflection: 2/3 beside −1/3
    mixed[:, :2] = mixed[:, :2] @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    run = archive(tmp_path, synthetic, truth, [(values, mixed), (values, mixed), (values, functions)])
    found = matched_modes(run, 4)
    doubted = found.overlap[1] ** 2 <= 0.5
    assert 0 < doubted.sum() < 4
    np.testing.assert_allclose(found.overlap[0], 1, atol=STORED)
    np.testing.assert_array_equal(found.identified, [~doubted, ~doubted, [True] * 4])


def test_in_a_cluster_any_basis_is_one(tmp_path, synthetic, truth):
    """Oracle: λ_2 = λ_3 = λ_4 with another basis of their span at each moment: the functions stand still, and are no one's."""
    functions, values = basis(synthetic.N), 100.0 / np.arange(1, synthetic.N + 1) ** 2
    values[1:4] = values[1]
    other = functions.copy()
    other[:, 1:4] = functions[:, 1:4] @ basis(3, seed=5)
    run = archive(tmp_path, synthetic, truth, [(values, other), (values, functions)])
    found = matched_modes(run, 6)
    np.testing.assert_allclose(found.functions(0), found.functions(1), atol=STORED)
    np.testing.assert_array_equal(found.identified, [[True, False, False, False, True, True]] * 2)
    parted = values * np.append(
        1 + 1e-3 * np.arange(5, 0, -1), np.ones(synthetic.N - 5)
    )  # negative control: no cluster
    apart = matched_modes(archive(tmp_path, synthetic, truth, [(parted, other), (parted, functions)], "apart"), 6)
    assert np.abs(apart.functions(0) - apart.functions(1)).max() > 0.05


def test_an_eigenspace_of_several_holds_what_lies_in_all_of_it():
    """Oracle: 0.6 of it lies evenly in a span of three, 0.4 on a fourth vector: more on that than on any one of the three."""
    vectors = basis(8)[:, :6]
    function = np.sqrt(0.6 / 3) * vectors[:, :3].sum(axis=1) + np.sqrt(0.4) * vectors[:, 4]
    places, turn, overlap = matched(vectors, function[:, None], np.array([0, 3, 4, 5, 6, 8]))
    assert places[0] < 3
    np.testing.assert_allclose(overlap, np.sqrt(0.6), atol=1e-12)
    np.testing.assert_allclose(turn[:, 0], np.sqrt([1 / 3] * 3 + [0] * 3), atol=1e-12)
    assert matched(vectors, function[:, None], np.arange(9))[0].tolist() == [4]  # negative control: all simple


def test_the_match_is_the_best_of_all_permutations():
    """Oracle: all 720 of them."""
    for seed in range(5):
        vectors, others = basis(9, seed)[:, :6], basis(9, seed + 50)[:, :6]
        places, turn, overlaps = matched(vectors, others, np.arange(7))
        held = np.abs(vectors.T @ others)
        best = max(sum(held[p, i] for i, p in enumerate(order)) for order in itertools.permutations(range(6)))
        assert np.sum(overlaps) == pytest.approx(best, abs=1e-12)
        np.testing.assert_array_equal(np.abs(turn).argmax(axis=0), places)
        assert (overlaps >= 0).all()


def test_what_cannot_be_followed_is_refused(archives, synthetic):
    run = load(archives[0]).only
    with pytest.raises(AnalysisError, match=f"1 ≤ k ≤ {synthetic.TOP_K}.*got 17"):
        matched_modes(run, 17)
    status = run.dataset["status"].copy()
    status[0] = 1  # the first measurement failed
    without = dataclasses.replace(run, dataset=run.dataset.assign(status=status))
    with pytest.raises(AnalysisError, match="no eigenvectors at these moments"):
        matched_modes(without, rows=[0])
