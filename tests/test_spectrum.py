"""The eigensystem against matrices built from a prescribed spectrum, and against NumPy's own solver.

What holds of SciPy's solver holds of torch's, which works where a kernel lives: one suite over both. Where there is no card
torch's is given a CPU's tensor that NumPy cannot read unasked (tests/elsewhere.py).
"""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from kerneltrack.errors import KernelError
from kerneltrack.spectrum.decomposition import eigensystem, solved
from kerneltrack.spectrum.lanczos import largest_eigenvalue
from tests.elsewhere import OutOfMemory, elsewhere

EPS = np.finfo(np.float64).eps


def where_it_lives(kernel, k=None, *, previous=None, **options):
    """torch's solver on the kernel as a tensor elsewhere; NumPy, as what eigensystem() returns."""
    return solved(elsewhere(kernel), k, previous=previous, place="kept", **options).on_host()


SOLVERS = {"lapack": eigensystem, "torch": where_it_lives}


@pytest.fixture(params=SOLVERS)
def solve(request):
    return SOLVERS[request.param]


def matrix_with(values, seed=0):
    """A symmetric matrix with these eigenvalues, and its eigenvectors: the oracle of this file."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (vectors * values) @ vectors.T, vectors


def full_kernel(samples, outputs, parameters=60, seed=0):
    rng = np.random.default_rng(seed)
    jacobian = rng.standard_normal((samples, outputs, parameters))
    return np.einsum("nop,mqp->nmoq", jacobian, jacobian)


SPECTRA = {
    "distinct": np.array([5.0, 3.0, 2.0, 1.0, 0.5]),
    "degenerate": np.array([4.0, 2.0, 2.0, 2.0, 1.0]),
    "rank deficient": np.array([3.0, 1.0, 0.0, 0.0, 0.0]),
    "indefinite": np.array([3.0, 1.0, 0.1, -0.2, -2.0]),
    "wide": 10.0 ** -np.arange(0, 12, 2),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_a_prescribed_spectrum_comes_back(solve, name):
    # Backward stability of LAPACK: eigenvalues within a modest multiple of M ε λ_1.
    values = SPECTRA[name]
    kernel, _ = matrix_with(values)
    found = solve(kernel)
    tolerance = 10 * len(values) * EPS * np.abs(values).max()
    np.testing.assert_allclose(found.values, values, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.matrix(), kernel, atol=tolerance)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(len(values)), atol=100 * EPS)
    assert found.complete
    assert found.residuals.max() <= tolerance
    assert found.trace == pytest.approx(values.sum(), abs=tolerance)
    assert found.frobenius == pytest.approx(np.linalg.norm(values))


@pytest.mark.parametrize("k", [None, 5])
@pytest.mark.parametrize("shape", ["one", "diagonal", "full"])
def test_both_solvers_agree_between_gaps(shape, k):
    """Values to 1e-10 λ_1; vectors to 1e-10 where no neighbour is nearer than 1e-3 λ_1, and spans where a cluster ends.

    Rounding turns a vector by ε λ_1 over its gap, 2e-13 there. Of the full kernel every eigenvalue comes three times.
    """
    rng = np.random.default_rng(3)
    features = rng.standard_normal((20, 60)) * 0.8 ** np.arange(60)
    one = features @ features.T
    kernel = {
        "one": one,
        "diagonal": np.stack([one, 2 * one[::-1, ::-1], one**3], axis=2),
        "full": np.einsum("nm,op->nmop", one, np.eye(3)),
    }[shape]
    a, b = eigensystem(kernel, k), where_it_lives(kernel, k)
    assert (a.solver, b.solver, a.complete) == ("lapack", "torch", b.complete)
    np.testing.assert_allclose(b.values, a.values, rtol=0, atol=1e-10 * a.values[0])
    for name in ("noise_floor", "trace", "frobenius"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-12)
    assert max(a.residuals.max(), b.residuals.max()) < 100 * EPS * a.values[0]
    # The smallest eigenvalues of one block of three may be nearer to each other than to what is above them.
    ends = list(np.flatnonzero(-np.diff(a.values) > 1e-3 * a.values[0]) + 1)
    assert ends
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        mine, others = a.vectors[:, begin:end], b.vectors[:, begin:end]
        np.testing.assert_allclose(others @ others.T, mine @ mine.T, atol=1e-10)
        if end - begin == 1:
            np.testing.assert_allclose(others, mine, atol=1e-10)


def test_a_kernel_too_large_for_its_device_goes_to_the_cpu():
    """Oracle: the same solve with the memory. Seven copies in float64 are asked for, of one block where there are several."""
    one, blocks = np.diag(np.arange(1.0, 9.0)), np.stack([np.diag(np.arange(1.0, 9.0))] * 5, axis=2)
    for kernel in (one, blocks):
        enough, little = (where_it_lives(kernel, room=room) for room in (7 * 8 * 64, 7 * 8 * 64 - 1))
        assert (enough.solver, little.solver) == ("torch", "lapack")
        np.testing.assert_array_equal(little.values, enough.values)


def test_a_solver_that_runs_out_of_memory_goes_to_the_cpu():
    """Oracle: the prescribed spectrum. What is no lack of memory comes through."""
    kernel, _ = matrix_with(SPECTRA["distinct"])
    found = solved(elsewhere(kernel, OutOfMemory), place="kept")
    assert (found.solver, type(found.vectors)) == ("lapack", np.ndarray)
    np.testing.assert_allclose(found.values, SPECTRA["distinct"], rtol=1e-13)
    with pytest.raises(KernelError, match="9 of 9 NaN"):
        solved(elsewhere(np.full((3, 3), np.nan), OutOfMemory), place="kept")


def test_vectors_stay_where_the_kernel_lives_but_in_the_public_function():
    kernel, _ = matrix_with(SPECTRA["distinct"])
    tensor = torch.from_numpy(kernel)
    assert isinstance(solved(tensor, place="kept").vectors, torch.Tensor)
    for pairs in (eigensystem(tensor), solved(tensor), solved(tensor, place="host"), where_it_lives(kernel)):
        assert type(pairs.vectors) is type(pairs.values) is type(pairs.residuals) is np.ndarray
    assert solved(tensor).solver == "lapack"  # a CPU's tensor is SciPy's


def test_negative_eigenvalues_are_not_clipped(solve):
    kernel, _ = matrix_with(SPECTRA["indefinite"])
    assert solve(kernel).values[-1] == pytest.approx(-2.0)


def test_the_largest_component_of_every_vector_is_positive(solve):
    kernel, _ = matrix_with(np.arange(1.0, 9.0))
    vectors = solve(kernel).vectors
    largest = np.argmax(np.abs(vectors), axis=0)
    assert (vectors[largest, np.arange(8)] > 0).all()
    np.testing.assert_array_equal(vectors, solve(kernel.copy()).vectors)


def test_the_largest_few_are_the_first_of_all(solve):
    # Oracle: the complete solve; vectors to (rounding)/(gap), here 1e-12.
    kernel, _ = matrix_with(np.arange(20.0, 0.0, -1.0))
    every, few = solve(kernel), solve(kernel, 4)
    np.testing.assert_allclose(few.values, every.values[:4], rtol=1e-13)
    np.testing.assert_allclose(few.vectors, every.vectors[:, :4], atol=1e-12)
    assert not few.complete
    assert few.frobenius == pytest.approx(every.frobenius)
    assert few.trace == pytest.approx(every.trace)


@pytest.mark.parametrize("k", [None, 7])
def test_a_full_kernel_is_flattened_with_rows_n_o(solve, k):
    # Oracle: NumPy's solver on the matrix that explicit loops fill.
    kernel = full_kernel(4, 3)
    matrix = np.zeros((12, 12))
    for n in range(4):
        for m in range(4):
            for o in range(3):
                for p in range(3):
                    matrix[n * 3 + o, m * 3 + p] = kernel[n, m, o, p]
    found = solve(kernel, k)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(matrix)[::-1][:k], rtol=1e-11)
    np.testing.assert_allclose(matrix @ found.vectors, found.vectors * found.values, atol=1e-11 * found.values[0])


@pytest.mark.parametrize("k", [None, 5])
def test_a_diagonal_kernel_is_block_diagonal(solve, k):
    # Oracle: NumPy's solver on the block-diagonal NO×NO matrix, rows (n, o).
    kernel = np.einsum("nmoo->nmo", full_kernel(4, 3))
    matrix = np.zeros((4, 3, 4, 3))
    for output in range(3):
        matrix[:, output, :, output] = kernel[:, :, output]
    matrix = matrix.reshape(12, 12)
    found = solve(kernel, k)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(matrix)[::-1][:k], rtol=1e-11)
    np.testing.assert_allclose(matrix @ found.vectors, found.vectors * found.values, atol=1e-11 * found.values[0])
    supports = (np.abs(found.vectors.reshape(4, 3, -1)).max(axis=0) > 0).sum(axis=0)
    assert (supports == 1).all()
    assert found.trace == pytest.approx(np.trace(matrix))
    assert found.frobenius == pytest.approx(np.linalg.norm(matrix))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_noise_floor_follows_the_dtype_of_the_kernel(solve, dtype):
    # Oracle: torch's own machine constants.
    kernel, _ = matrix_with(np.array([4.0, 2.0, 1.0, 1.0]))
    found = solve(torch.from_numpy(kernel).to(getattr(torch, dtype)))
    assert found.solver == {"eigensystem": "lapack"}.get(solve.__name__, "torch")
    epsilon = torch.finfo(getattr(torch, dtype)).eps
    rms = np.sqrt(np.mean(found.values**2))
    assert found.noise_floor == pytest.approx(8 * (epsilon * rms + EPS * found.values[0]))
    assert found.values.dtype == found.vectors.dtype == np.float64


@pytest.mark.parametrize("offset", [0, 1, 10])
@pytest.mark.parametrize("count", [100, 400])
def test_rounding_stays_below_the_noise_floor_and_not_far(solve, offset, count):
    # Singular Gram matrices multiplied in float32: their zero eigenvalues are pure rounding, and show its size.
    rng = np.random.default_rng(1)
    features = (rng.standard_normal((count, 50)) + offset).astype(np.float32)
    found = solve(features @ features.T)
    rounding = np.abs(found.values[50:]).max()
    assert found.noise_floor / 20 < rounding < found.noise_floor < found.values[49]


def test_small_eigenvalues_above_the_noise_floor_are_right(solve):
    # Oracle: the same network's kernel in float64. One hidden tanh layer: a spectrum that falls through ten decades.
    torch.manual_seed(0)
    x, w, b = torch.randn(200, 2, dtype=torch.float64), torch.randn(2, 300), torch.randn(300)
    kernels = []
    for dtype in (torch.float32, torch.float64):
        hidden = torch.tanh(x.to(dtype) @ w.to(dtype) + b.to(dtype))
        slopes = 1 - hidden**2
        kernels.append(hidden @ hidden.T + (slopes @ slopes.T) * (x @ x.T + 1).to(dtype))
    single, double = (solve(kernel) for kernel in kernels)
    assert np.abs(single.values - double.values)[50:].max() < single.noise_floor
    assert (single.values < single.noise_floor).sum() > 50  # the float32 spectrum ends in noise
    assert (double.values < double.noise_floor).sum() < 50  # and the float64 one does not there


@pytest.mark.parametrize("size", [50, 400])
def test_the_solver_s_own_rounding_stays_below_the_noise_floor(solve, size):
    kernel, _ = matrix_with(np.concatenate([[1e3], np.zeros(size - 1)]))
    found = solve(kernel)
    assert np.abs(found.values[1:]).max() < found.noise_floor < 1e-11


def test_eigenfunctions_extend_to_new_points():
    # Oracle: a linear kernel. Its eigenfunctions are linear, x ↦ x·w, so new points are fitted by least squares.
    rng = np.random.default_rng(0)
    seen, new = rng.standard_normal((20, 3)), rng.standard_normal((5, 3))
    pairs = eigensystem(seen @ seen.T)
    weights = np.linalg.lstsq(seen, pairs.vectors[:, :3], rcond=None)[0]
    extended = pairs.extend(new @ seen.T)
    np.testing.assert_allclose(extended[:, :3], new @ weights, atol=1e-12)
    assert np.isnan(extended[:, 3:]).all()
    np.testing.assert_allclose(pairs.extend(seen @ seen.T)[:, :3], pairs.vectors[:, :3], atol=1e-12)


def test_tensors_that_require_grad_are_taken():
    kernel, _ = matrix_with(SPECTRA["distinct"])
    tensor = torch.from_numpy(kernel).requires_grad_()
    np.testing.assert_allclose(eigensystem(tensor).values, SPECTRA["distinct"], rtol=1e-13)


def test_a_zero_kernel_has_zero_eigenvalues(solve):
    found = solve(np.zeros((3, 3)))
    np.testing.assert_array_equal(found.values, 0)
    assert found.noise_floor == 0


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.full((3, 3), np.nan), "9 of 9 NaN or infinite"),
        (np.array([[1.0, np.inf], [np.inf, 1.0]]), "2 of 4 NaN or infinite"),
        (np.ones((3, 4)), "shape of the kernel"),
        (np.ones((3, 3, 2, 4)), "shape of the kernel"),
        (np.ones(3), "shape of the kernel"),
        (np.ones((0, 0)), "shape of the kernel"),
        (np.triu(np.ones((3, 3))), "not symmetric"),
    ],
)
def test_what_is_no_kernel_is_refused(solve, kernel, message):
    with pytest.raises(KernelError, match=message):
        solve(kernel)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_slight_asymmetry_is_refused_too(solve, dtype):
    """‖Θ − Θᵀ‖/‖Θ‖ a little above and a little below √ε of the kernel's dtype, by construction. Fails where only the gross
    is refused: 1e-4 is far above the rounding of a float64 kernel, 1e-3 above that of a float32 one.
    """
    kernel = np.eye(4, dtype=dtype)  # ‖Θ‖_F = 2
    limit = float(np.finfo(dtype).eps) ** 0.5
    for size, refused in ((1e-4 if dtype is np.float64 else 1e-3, True), (1.5 * limit, True), (0.7 * limit, False)):
        kernel[0, 1] = size * 2 / 2**0.5  # Θ − Θᵀ has this entry twice
        if refused:
            with pytest.raises(KernelError, match="the kernel is not symmetric"):
                solve(kernel)
        else:
            assert solve(kernel).asymmetry == pytest.approx(size, rel=1e-3)


def test_no_eigenpairs_are_refused(solve):
    with pytest.raises(KernelError, match="number of eigenpairs"):
        solve(np.eye(3), 0)


def test_rounding_asymmetry_is_accepted_and_reported(solve):
    kernel, _ = matrix_with(SPECTRA["distinct"])
    kernel[0, 1] += 1e-12
    found = solve(kernel)
    assert 0 < found.asymmetry < 1e-11


class Operator:
    """A kernel that only multiplies, and counts how often."""

    def __init__(self, matrix, dtype=np.float64):
        self.matrix, self.shape, self.dtype, self.products = matrix, matrix.shape, np.dtype(dtype), 0

    def matmat(self, block):
        self.products += block.shape[1]
        return (self.matrix @ block).astype(self.dtype)


DECAY = 100 * 0.8 ** np.arange(150.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_operator_gives_what_its_matrix_gives(dtype):
    # Oracle: the dense solve. Weyl: eigenvalues agree within the residuals, which the solver keeps below 320
    # ε λ_1.
    matrix, _ = matrix_with(DECAY)
    found, dense = eigensystem(Operator(matrix, dtype), 6), eigensystem(matrix, 6)
    np.testing.assert_allclose(found.values, dense.values, atol=320 * np.finfo(dtype).eps * DECAY[0])
    overlaps = np.abs(np.sum(found.vectors * dense.vectors, axis=0))
    np.testing.assert_allclose(overlaps, 1, atol=1e-4 if dtype == np.float32 else 1e-12)
    assert found.solver == "lanczos"
    assert not found.complete
    assert np.isnan(found.frobenius)


def test_scipy_operators_and_wrappers_are_taken():
    matrix, _ = matrix_with(DECAY)
    scipy_operator = scipy.sparse.linalg.aslinearoperator(matrix)

    class Wrapper:
        def as_linear_operator(self):
            return scipy_operator

    for operator in (scipy_operator, Wrapper()):
        np.testing.assert_allclose(eigensystem(operator, 3).values, DECAY[:3], rtol=1e-12)


def test_all_pairs_of_an_operator_are_exact():
    matrix, _ = matrix_with(DECAY[:20])
    found = eigensystem(Operator(matrix))
    assert found.complete
    np.testing.assert_allclose(found.values, DECAY[:20], rtol=1e-11)
    single = eigensystem(Operator(matrix, np.float32), 19)
    assert single.noise_floor == pytest.approx(8 * 2.0**-23 * np.sqrt(np.mean(DECAY[:20] ** 2)), rel=1e-6)


@pytest.mark.parametrize("knows", [True, False])
def test_the_noise_floor_of_an_operator_is_not_below_its_matrix_s(knows):
    # ‖Θ‖_F is unknown there and bounded by what is known.
    matrix, _ = matrix_with(DECAY)
    operator = Operator(matrix, np.float32)
    if knows:
        operator.trace = lambda: DECAY.sum()
    found, exact = eigensystem(operator, 4), eigensystem(matrix.astype(np.float32))
    assert exact.noise_floor < found.noise_floor < (3 if knows else 20) * exact.noise_floor
    assert np.isnan(found.trace) != knows


def test_degenerate_pairs_of_an_operator_are_all_found():
    values = np.concatenate([[5.0, 3.0, 3.0, 3.0], np.linspace(1, 0.1, 96)])
    matrix, _ = matrix_with(values)
    np.testing.assert_allclose(eigensystem(Operator(matrix), 5).values, values[:5], rtol=1e-12)


CLUSTERS = {
    "reaches beyond k": [5.0] * 10 + list(np.linspace(1, 0.1, 190)),
    "behind a leader": [10.0] + [5.0] * 9 + list(np.linspace(1, 0.1, 190)),
    "two values": [3.0] * 30 + [1.0] * 170,
    "rank deficient": list(100 * 0.8 ** np.arange(50)) + [0.0] * 150,
    "nearly equal": [3.0] * 2 + [3 - 1e-9] * 3 + [1.0] * 195,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [5, 8, 12])
@pytest.mark.parametrize("name", list(CLUSTERS))
def test_clusters_of_eigenvalues_are_found_whole(name, k, dtype):
    """Oracle: the prescribed spectrum. Seeds 4, 8 and 16 left a pair unconverged until more pairs were asked for."""
    values = np.array(CLUSTERS[name])
    for seed in (0, 4, 8, 16):
        found = eigensystem(Operator(matrix_with(values, seed=seed)[0], dtype), k)
        np.testing.assert_allclose(found.values, values[:k], atol=320 * np.finfo(dtype).eps * values[0])
        np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-12)


@pytest.mark.parametrize("shape", ["one", "diagonal", "full"])
def test_a_few_pairs_of_a_large_kernel_come_from_lanczos(solve, shape):
    """Oracle: the dense solve of the same kernel."""
    rng = np.random.default_rng(0)
    decay = 0.9 ** np.arange(80)
    if shape == "full":
        features = rng.standard_normal((260, 2, 80)) * decay
        kernel = np.einsum("nop,mqp->nmoq", features, features)
    elif shape == "diagonal":
        features = rng.standard_normal((520, 2, 80)) * decay
        kernel = np.einsum("nop,mop->nmo", features, features)
    else:
        features = rng.standard_normal((520, 80)) * decay
        kernel = features @ features.T
    few, all_of_them = solve(kernel, 7), solve(kernel)
    assert few.solver == "lanczos"
    assert few.residuals.max() < 3200 * np.finfo(np.float64).eps * few.values[0]
    np.testing.assert_allclose(few.values, all_of_them.values[:7], rtol=1e-12)
    np.testing.assert_allclose(few.vectors, all_of_them.vectors[:, :7], atol=1e-9)
    assert (few.frobenius, few.trace, few.noise_floor) == pytest.approx(
        (all_of_them.frobenius, all_of_them.trace, all_of_them.noise_floor), rel=1e-12
    )


def test_previous_vectors_that_are_still_right_spare_lanczos():
    # The kernel only grew by 3: same vectors, other values. Oracle: the cold start, and a count of the products.
    matrix, _ = matrix_with(DECAY)
    previous = eigensystem(matrix, 6)
    warm, cold = Operator(3 * matrix), Operator(3 * matrix)
    found, expected = eigensystem(warm, 6, previous=previous), eigensystem(cold, 6)
    assert (found.solver, expected.solver) == ("previous", "lanczos")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-10)


def test_previous_vectors_that_turned_among_themselves_are_turned_back():
    matrix, vectors = matrix_with(DECAY)
    values = DECAY.copy()
    values[:3] = DECAY[[2, 0, 1]]
    exchanged = (vectors * values) @ vectors.T
    found = eigensystem(Operator(exchanged), 3, previous=eigensystem(matrix, 3))
    assert found.solver == "previous"
    np.testing.assert_allclose(found.values, DECAY[:3], rtol=1e-12)


def test_an_operator_of_low_rank_or_none():
    values = np.concatenate([[3.0, 2.0, 1.0], np.zeros(57)])
    matrix, _ = matrix_with(values)
    found = eigensystem(Operator(matrix), 8)
    np.testing.assert_allclose(found.values, values[:8], atol=1e-14)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(8), atol=1e-13)
    nothing = eigensystem(Operator(np.zeros((60, 60))), 3)
    np.testing.assert_array_equal(nothing.values, 0)
    again = eigensystem(Operator(np.zeros((60, 60))), 3, previous=nothing)
    np.testing.assert_array_equal(again.values, 0)


def test_a_kernel_that_moved_is_solved_anew():
    matrix, _ = matrix_with(DECAY)
    other, _ = matrix_with(DECAY, seed=1)
    found = eigensystem(Operator(other), 6, previous=eigensystem(matrix, 6))
    assert found.solver == "lanczos"
    np.testing.assert_allclose(found.values, DECAY[:6], rtol=1e-12)
    for useless in (eigensystem(matrix, 3), eigensystem(matrix[:99, :99], 6)):
        assert eigensystem(Operator(matrix), 6, previous=useless).solver == "lanczos"


@pytest.mark.parametrize("angle", [1e-4, np.pi / 2])
def test_a_middle_vector_that_moved_is_noticed(angle):
    # The first and the last vector are still right, one between is not, by a little or altogether.
    matrix, vectors = matrix_with(DECAY)
    turned = vectors.copy()
    turned[:, 2] = np.cos(angle) * vectors[:, 2] + np.sin(angle) * vectors[:, 60]
    turned[:, 60] = np.cos(angle) * vectors[:, 60] - np.sin(angle) * vectors[:, 2]
    found = eigensystem(Operator((turned * DECAY) @ turned.T), 6, previous=eigensystem(matrix, 6))
    np.testing.assert_allclose(found.values, DECAY[:6], rtol=1e-12)


def test_a_direction_that_is_new_to_the_kernel_is_not_missed():
    # All six previous vectors are exact eigenvectors of the new kernel; its leading one is orthogonal to all of them.
    values = np.concatenate([np.linspace(10, 5, 6), np.full(94, 0.1)])
    matrix, vectors = matrix_with(values)
    moved = matrix + 20 * np.outer(vectors[:, 50], vectors[:, 50])
    found = eigensystem(Operator(moved), 6, previous=eigensystem(matrix, 6))
    assert found.values[0] == pytest.approx(20.1)


def test_operators_that_are_no_kernel_are_refused():
    with pytest.raises(KernelError, match="shape of the kernel operator"):
        eigensystem(Operator(np.ones((3, 4))), 2)
    with pytest.raises(KernelError, match="NaN or infinite"):
        eigensystem(Operator(np.full((9, 9), np.nan)), 2)


def test_products_noisier_than_their_dtype_says_are_refused():
    # A negative control of the residual check: random noise in every product, no eigenpair can be exact.
    matrix, _ = matrix_with(DECAY)
    rng = np.random.default_rng(0)

    class Noisy(Operator):
        def matmat(self, block):
            return super().matmat(block) + 1e-3 * rng.standard_normal(block.shape)

    with pytest.raises(KernelError, match="Lanczos"):
        eigensystem(Noisy(matrix), 6)


@pytest.mark.parametrize(
    "spectrum", [[3.0], [0.0, 0.0, 0.0], [2.0, 2.0, 1.0, -5.0], list(1.0 / np.arange(1, 101) ** 1.5)]
)
def test_the_largest_eigenvalue_needs_few_products(spectrum):
    """Oracle: the matrix is made from its eigenvalues, of which one is far below zero; the residual bounds the error."""
    size, products = len(spectrum), []
    basis, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((size, size)))
    matrix = basis * spectrum @ basis.T

    def product(v):
        products.append(v)
        return matrix @ v

    start = np.random.default_rng(0).standard_normal(size)
    assert largest_eigenvalue(product, start, 1e-6) == pytest.approx(max(spectrum), rel=1e-6, abs=1e-14)
    assert len(products) <= min(size, 15)


@pytest.mark.parametrize("excess", [0.5, 0.05, 20.0])
def test_a_start_with_little_of_the_largest_eigenvector_finds_it(excess):
    """A = I + excess e_i e_iᵀ at every place i of 600: λ_1 = 1 + excess, whatever the fixed start has at i.

    With a stop at the first small residual 18 places gave 1.000 instead of 1.5.
    """
    start, found = np.random.default_rng(0).standard_normal(600), []
    for place in range(600):

        def product(v, place=place):
            moved = v.copy()
            moved[place] *= 1 + excess
            return moved

        found.append(largest_eigenvalue(product, start, 1e-3))
    np.testing.assert_allclose(found, 1 + excess, rtol=1e-3)


def test_a_dense_kernel_that_did_not_move_spares_lanczos_too():
    """Oracle: the cold start. A kernel that moved costs two products more than without the previous pairs."""
    matrix, vectors = matrix_with(np.concatenate([DECAY, np.zeros(400)]))
    previous = eigensystem(matrix, 6)
    again = eigensystem(2 * matrix, 6, previous=previous)
    assert (previous.solver, again.solver) == ("lanczos", "previous")
    np.testing.assert_allclose(again.values, 2 * previous.values, rtol=1e-12)
    moved, cold = (Operator(matrix + 1e-3 * np.outer(vectors[:, 20], vectors[:, 20]) * 100) for _ in range(2))
    found, expected = eigensystem(moved, 6, previous=previous), eigensystem(cold, 6)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
    still, fresh = Operator(2 * matrix), Operator(2 * matrix)
    assert eigensystem(still, 6, previous=previous).solver == "previous"
    eigensystem(fresh, 6)
    assert still.products <= fresh.products
    other = Operator(matrix_with(np.concatenate([DECAY, np.zeros(400)]), seed=1)[0])
    alone = Operator(other.matrix)
    assert eigensystem(other, 6, previous=previous).solver == "lanczos"
    eigensystem(alone, 6)
    assert other.products == alone.products + 2
