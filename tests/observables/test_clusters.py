"""Clusters of equal eigenvalues. Oracles: the law that no number depends on the basis inside one, and means over bases."""

import numpy as np
import pytest

from kerneltrack.observables import State, catalogue, compute, energy_k, relative_energy, select
from kerneltrack.spectrum import across_clusters, cluster_ends
from kerneltrack.spectrum.decomposition import EigenSystem, eigensystem

POINTS, OUTPUTS = 8, 3
#: Every observable that speaks of the span of k modes, and nothing but states is needed for.
OF_SPANS = [
    entry.name
    for entry in catalogue().values()
    if "energy_k" in entry.dims and not entry.needs & {"update", "extension", "layers"}
]


def orthogonal(rng, size):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def wide(seed=0):
    """k ⊗ I_O as an infinitely wide network has it at initialisation: every eigenvalue O times. (kernel, k)."""
    rows = np.random.default_rng(seed).standard_normal((POINTS, 2 * POINTS))
    kernel = rows @ rows.T
    return np.einsum("nm,op->nmop", kernel, np.eye(OUTPUTS)), kernel


def state(kernel, turn, *, seed=1, **others):
    """A state whose eigenvectors are turned at random inside each eigenspace."""
    rng, pairs = np.random.default_rng(turn), eigensystem(kernel)
    vectors, start = pairs.vectors.copy(), 0
    for end in pairs.cluster_ends:
        vectors[:, start:end] = vectors[:, start:end] @ orthogonal(rng, end - start)
        start = end
    turned = EigenSystem(**{**vars(pairs), "vectors": vectors})
    draw = np.random.default_rng(seed)
    outputs, targets = draw.standard_normal((2, POINTS, OUTPUTS))
    return State(
        eigensystem=turned, kernel=kernel, reduction="full", outputs=outputs, targets=targets, residual=outputs - targets,
        settings={"dtype": "float64", "step": seed}, **others,
    )  # fmt: skip


def test_each_eigenvalue_of_a_wide_kernel_is_a_cluster():
    assert eigensystem(wide()[0]).cluster_ends.tolist() == list(range(OUTPUTS, POINTS * OUTPUTS + 1, OUTPUTS))
    assert cluster_ends(np.array([4.0, 3.0, 3.0 - 1e-9, 1.0]), 1e-6).tolist() == [1, 3, 4]
    assert cluster_ends(np.ones(1), 0.0).tolist() == [1]


@pytest.mark.parametrize("name", OF_SPANS)
def test_no_number_depends_on_the_basis_inside_an_eigenspace(name):
    """All but rounding: bases are orthogonal to 1e-15, and spans inside other kernels turn by as much."""
    first = state(wide(7)[0], 0, seed=2)
    found = [compute(select(name), state(wide()[0], turn, initial=first, previous=first))[name] for turn in range(4)]
    assert np.isfinite(found[0]).any()
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-11)


def test_energies_inside_a_cluster_are_means_over_its_bases():
    """Oracle: 4,000 random bases of each eigenspace; the mean's error is four of its standard errors."""
    kernel, phi = wide()[0], np.random.default_rng(5).standard_normal((POINTS * OUTPUTS, 1))
    pairs = eigensystem(kernel)
    ends, norm, rng = pairs.cluster_ends, float(np.vdot(phi, phi)), np.random.default_rng(6)
    grid = range(1, POINTS * OUTPUTS + 1)
    drawn = []
    for _ in range(4000):
        coefficients, start = pairs.vectors.T @ phi, 0
        for end in ends:
            coefficients[start:end] = orthogonal(rng, end - start) @ coefficients[start:end]
            start = end
        drawn.append(relative_energy(coefficients, norm, grid))
    found = relative_energy(pairs.vectors.T @ phi, norm, grid, ends)
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(found - np.mean(drawn, axis=0)) <= 4 * error + 1e-13)
    whole = np.asarray(ends) - 1
    np.testing.assert_allclose(found[whole], np.array(drawn[0])[whole], atol=1e-13)


def test_sums_are_kept_where_no_cluster_is_cut():
    sums = np.array([1.0, 5.0, 6.0, 6.5])
    np.testing.assert_allclose(across_clusters(sums, np.array([1, 3, 4])), [1, 3.5, 6, 6.5])
    np.testing.assert_array_equal(across_clusters(sums, np.arange(1, 5)), sums)


def test_a_span_that_cuts_a_cluster_has_no_overlap():
    first = state(wide(7)[0], 0, seed=2)
    value = compute(select("subspace_overlap_with_initial"), state(wide()[0], 1, initial=first))
    known = np.isfinite(value["subspace_overlap_with_initial"])
    assert [k for k, here in zip(energy_k(POINTS * OUTPUTS), known, strict=True) if here] == [POINTS * OUTPUTS]
