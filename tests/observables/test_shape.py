"""Decay exponents, complexity, effective dimension. Oracles: exact power laws, dense solves, loops over k."""

import numpy as np
import pytest

from kerneltrack import observables
from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, compute, select
from kerneltrack.spectrum.decomposition import eigensystem


def power_state(a=1.5, b=2.0, size=200, scale=3.0):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    index = np.arange(1.0, size + 1)
    kernel = scale * (basis * index**-a) @ basis.T
    targets = basis @ (index ** (-b / 2) * rng.choice([-1, 1], size))
    return State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        outputs=np.zeros((size, 1)),
        targets=targets[:, None],
        settings={"dtype": "float64"},
    )


@pytest.mark.parametrize(("a", "b"), [(0.7, 1.2), (1.5, 2.0), (2.5, 3.0)])
def test_a_power_law_gives_its_exponent(a, b):
    """Within a bin of an eighth of a decade log-means bend by less than 1 %: means of i^−a stand above mean log i."""
    found = compute(select(["spectrum_exponent", "target_exponent"]), power_state(a, b, size=400))
    assert found["spectrum_exponent"] == pytest.approx(a, rel=0.01)
    assert found["target_exponent"] == pytest.approx(b, rel=0.01)


def test_exponents_do_not_see_the_order_of_points_nor_units():
    state, order = power_state(1.5, 2.0, size=200), np.random.default_rng(1).permutation(200)
    kernel = 16 * state.kernel[np.ix_(order, order)]
    other = State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        outputs=state.outputs,
        targets=4 * state.targets[order],
        settings={"dtype": "float64"},
    )
    found, again = (compute(select(["spectrum_exponent", "target_exponent"]), s) for s in (state, other))
    for name in found:
        assert again[name] == pytest.approx(found[name], rel=1e-8)


def test_modes_below_the_noise_floor_and_the_first_ten_do_not_count():
    values = np.arange(1.0, 401) ** -1.5
    assert observables.decay_exponent(np.append(values, -np.ones(5)), 10, 400) == pytest.approx(1.5, rel=0.01)
    bent = values.copy()
    bent[:9] = 1e6
    assert observables.decay_exponent(bent, 10, 400) == observables.decay_exponent(values, 10, 400)


@pytest.mark.parametrize("features", ["waves", "gauss"])
@pytest.mark.parametrize("a", [2.0, 3.0])
def test_the_exponent_of_a_sample_is_the_operator_s(features, a):
    """Oracle: an operator with eigenvalues i^−a and known eigenfunctions, on 300 points: within 5 % by modes up to M/4.

    All 300 modes give 2.2 and 3.4 (waves), 2.1 and 3.2 (independent Gaussian features).
    """
    rng, count = np.random.default_rng(0), 300
    index = np.arange(1.0, 4 * count + 1)
    angle = 2 * np.pi * np.outer(rng.random(count), (index + 1) // 2)
    waves = np.sqrt(2) * np.where(index % 2 == 0, np.cos(angle), np.sin(angle))
    functions = waves if features == "waves" else rng.standard_normal(waves.shape)
    kernel = (functions * index**-a) @ functions.T
    state = State(eigensystem=eigensystem(kernel), kernel=kernel, outputs=np.zeros((count, 1)))
    assert compute(select("spectrum_exponent"), state)["spectrum_exponent"] == pytest.approx(a, rel=0.05)
    assert observables.decay_exponent(state.eigensystem.values, 10, 280) > 1.04 * a


def test_few_modes_have_no_exponent(problem):
    values = compute(select("spectrum_exponent"), problem.state("trace"))
    assert "needs more modes" in values.reasons["spectrum_exponent"]
    with pytest.raises(ObservableError, match="not positive"):
        observables.decay_exponent(np.zeros(100), 10, 100)
    with pytest.raises(ObservableError, match="needs more modes"):
        observables.decay_exponent(np.zeros(100), 10, 0)


def test_complexity_and_dimension_are_those_of_a_dense_solve(problem, reduction):
    matrix, y = problem.matrix(reduction), problem.columns(problem.targets, reduction)
    size = len(matrix)
    ridge = 1e-3 * np.trace(matrix) / size
    regular = matrix + ridge * np.eye(size)
    complexity = np.trace(matrix) / size * np.sum(y * np.linalg.solve(regular, y)) / np.sum(y**2)
    dimension = np.trace(np.linalg.solve(regular, matrix))
    found = compute(select(["target_complexity", "effective_dimension"]), problem.state(reduction))
    assert found["target_complexity"] == pytest.approx(complexity, rel=1e-9)
    assert found["effective_dimension"] == pytest.approx(dimension, rel=1e-9)


def test_a_kernel_that_is_a_multiple_of_one_has_complexity_one():
    """γ = tr/1000M takes a thousandth off."""
    values, y = np.full(6, 7.0), np.ones((6, 1))
    assert observables.target_complexity(values, y, 7e-3, 6.0) == pytest.approx(1 / 1.001, rel=1e-12)


def test_modes_for_a_share_are_counted(problem, reduction):
    state = problem.state(reduction)
    y, v = problem.columns(problem.targets, reduction), state.eigensystem.vectors
    k = 1
    while np.sum((v[:, :k].T @ y) ** 2) < 0.9 * np.sum(y**2):
        k += 1
    assert compute(select("target_modes_90"), state)["target_modes_90"] == k
    assert np.isnan(observables.modes_for(np.ones((2, 1)), 10.0, 0.9))
