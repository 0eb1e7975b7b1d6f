"""Bounds of the similarity of two kernels against the similarity itself."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kerneltrack.errors import KernelError, ObservableError
from kerneltrack.observables import measurement, similarity_bounds
from kerneltrack.spectrum.decomposition import EigenSystem, eigensystem


def two_kernels(seed, decay, mixing, size=12):
    rng = np.random.default_rng(seed)
    scale = np.exp(-decay * np.arange(size))
    a = rng.standard_normal((size, size)) * scale
    b = (1 - mixing) * a + mixing * rng.standard_normal((size, size)) * scale
    return a @ a.T, b @ b.T


@settings(deadline=None, max_examples=300, derandomize=True)
@example(seed=0, decay=1.0, mixing=1.0, k=8, other=8)  # what was left out is smaller than the rounding of ‖Θ‖²
@given(
    seed=st.integers(0, 10_000),
    decay=st.floats(0, 1),
    mixing=st.floats(0, 1),
    k=st.integers(1, 12),
    other=st.integers(1, 12),
)
def test_the_similarity_lies_between_its_bounds(seed, decay, mixing, k, other):
    # Oracle: the Frobenius product of the matrices.
    a, b = two_kernels(seed, decay, mixing)
    cosine = np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    low, high = similarity_bounds(eigensystem(a, k), eigensystem(b, other))
    assert 0 <= low <= cosine + 1e-12
    assert cosine - 1e-12 <= high <= 1
    rounding = 20 * np.sqrt(len(a) * np.finfo(float).eps)  # what was left out is known to √(Mε) ‖Θ‖, times a few
    scaled = similarity_bounds(eigensystem(1e-6 * a, k), eigensystem(1e3 * b, other))
    np.testing.assert_allclose(scaled, (low, high), atol=rounding)
    swapped = similarity_bounds(eigensystem(b, other), eigensystem(a, k))
    np.testing.assert_allclose(swapped, (low, high), atol=rounding)


def test_bounds_come_from_what_an_archive_keeps(problem, reduction):
    # Oracle: the Frobenius product of the matrices. Stored vectors are float32: 1e-6.
    before, start = problem.matrix(reduction), problem.state(reduction)
    problem.jacobian = problem.jacobian + 0.3 * np.random.default_rng(0).standard_normal(problem.jacobian.shape)
    after, state = problem.matrix(reduction), problem.state(reduction)
    rows = [measurement(s, top_k=5) for s in (start, state)]
    low, high = similarity_bounds(*(EigenSystem.stored(row["eigenvalues"], row["eigenvectors"]) for row in rows))
    cosine = np.vdot(before, after) / (np.linalg.norm(before) * np.linalg.norm(after))
    assert low - 1e-6 <= cosine <= high + 1e-6
    assert high - low < 1


def test_a_row_without_all_eigenvalues_is_refused():
    with pytest.raises(KernelError, match="all 21 eigenvalues"):
        EigenSystem.stored(np.ones(5), np.ones((7, 3, 5)))


def test_the_bounds_meet_when_everything_was_kept():
    a, b = two_kernels(0, 0.1, 0.5)
    low, high = similarity_bounds(eigensystem(a), eigensystem(b))
    assert low == pytest.approx(high, abs=1e-12)


def test_a_fast_spectrum_needs_few_pairs():
    # With eigenvalues falling by e^{-1} a mode, eight of twelve leave less than 1e-3 open.
    a, b = two_kernels(0, 0.5, 0.3)
    widths = [np.ptp(similarity_bounds(eigensystem(a, k), eigensystem(b, k))) for k in (2, 4, 8)]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 1e-3


def test_orthogonal_leading_pairs_say_nothing_by_themselves():
    # diag(2, 1, 0) and diag(1, 2, 0), one pair of each: no part of the product 4 is known, and all of it is possible.
    low, high = similarity_bounds(eigensystem(np.diag([2.0, 1.0, 0.0]), 1), eigensystem(np.diag([1.0, 2.0, 0.0]), 1))
    assert low == 0
    assert high >= 4 / 5


def test_the_lower_bound_is_reached():
    # diag(2, 1, 0) and diag(2, 0, 1) share their leading pair and nothing else: the product is exactly the known part.
    a, b = np.diag([2.0, 1.0, 0.0]), np.diag([2.0, 0.0, 1.0])
    low, _ = similarity_bounds(eigensystem(a, 1), eigensystem(b, 1))
    assert low == pytest.approx(np.vdot(a, b) / 5)


def test_what_has_no_similarity_is_refused():
    with pytest.raises(ObservableError, match="different probes"):
        similarity_bounds(eigensystem(np.eye(3)), eigensystem(np.eye(4)))
    with pytest.raises(ObservableError, match="Frobenius norms"):
        similarity_bounds(eigensystem(np.eye(3)), eigensystem(np.zeros((3, 3))))
