"""Distances between kernels against explicit matrices and exact small rotations."""

import itertools
import math

import numpy as np
import pytest
import torch

from kerneltrack.errors import ObservableError
from kerneltrack.measurement.references import RunReferences
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.observables import (
    centred_kernel,
    cka,
    compute,
    kernel_angle,
    kernel_distance,
    permuted_cka,
    relative_kernel_change,
    select,
    unbiased_cka,
)
from kerneltrack.probe import Probe

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
    assert values[NAMES[1]] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-10)


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


def test_the_angle_of_two_kernels():
    # Oracle: the angle between two planar vectors.
    a, b = np.diag([1.0, 0.0]), np.diag([math.cos(0.3), math.sin(0.3)])
    assert kernel_angle(a, b) == pytest.approx(0.3)
    assert kernel_angle(a, 7 * a) == 0
    assert kernel_angle(a, -a) == pytest.approx(math.pi)


def test_centring_is_a_projection_on_both_sides(problem, reduction):
    matrix, samples = problem.matrix(reduction), len(problem.targets)
    outputs = len(matrix) // samples
    projector = np.kron(np.eye(samples) - 1 / samples, np.eye(outputs))
    expected = (projector @ matrix @ projector).reshape(samples, outputs, samples, outputs).transpose(0, 2, 1, 3)
    found = centred_kernel(problem.kernel(reduction))
    if found.ndim == 3:
        expected = np.einsum("nmoo->nmo", expected)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-11)


@pytest.mark.parametrize("kernels", [True, False])
def test_cka_is_the_cosine_of_centred_matrices(problem, reduction, kernels):
    keep = {} if kernels else {"kernel": None}
    samples = len(problem.targets)
    before, start = problem.matrix(reduction), problem.state(reduction, **keep)
    moved(problem, 0.3)
    after, state = problem.matrix(reduction), problem.state(reduction, initial=start, **keep)
    projector = np.kron(np.eye(samples) - 1 / samples, np.eye(len(before) // samples))
    a, b = (projector @ matrix @ projector for matrix in (before, after))
    expected = np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    assert compute(select("cka_with_initial"), state)["cka_with_initial"] == pytest.approx(expected, rel=1e-9)


def test_cka_does_not_see_what_is_constant():
    kernel = np.random.default_rng(0).standard_normal((5, 5))
    kernel = kernel @ kernel.T
    assert cka(kernel, 3 * kernel + 7) == pytest.approx(1)


def brute_force_hsic(a, b):
    """Oracle: the U-statistic over all quadruples of different points. Song et al. 2012."""
    n = len(a)
    total = sum(a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q]) for i, j, q, r in itertools.permutations(range(n), 4))
    return total / math.perm(n, 4)


def test_unbiased_cka_is_the_u_statistic():
    rng = np.random.default_rng(1)
    a, b = (x @ x.T for x in rng.standard_normal((2, 6, 3)))
    expected = brute_force_hsic(a, b) / math.sqrt(brute_force_hsic(a, a) * brute_force_hsic(b, b))
    assert unbiased_cka(a, b) == pytest.approx(expected, rel=1e-10)
    assert unbiased_cka(a, a) == pytest.approx(1)
    # biased CKA of independent features is far from zero at six points, the unbiased one scatters around it
    scatter = [unbiased_cka(*(x @ x.T for x in rng.standard_normal((2, 6, 3)))) for _ in range(200)]
    assert abs(np.mean(scatter)) < 4 * np.std(scatter) / math.sqrt(200)


@pytest.mark.parametrize(
    "kernels", [(np.eye(3), np.eye(3)), (np.eye(5), np.eye(4)), (np.ones((5, 4, 1)),) * 2, (np.ones(5),) * 2]
)
def test_unbiased_cka_needs_four_points_and_two_kernels_of_them(kernels):
    with pytest.raises(ObservableError, match="unbiased CKA"):
        unbiased_cka(*kernels)


def test_unbiased_cka_of_several_outputs_adds_up_over_them(problem, reduction):
    """Oracle: the U-statistic over quadruples of each pair of outputs, of kernels that need not be symmetric there."""
    before, start = problem.kernel(reduction), problem.state(reduction)
    moved(problem, 0.3)
    after, state = problem.kernel(reduction), problem.state(reduction, initial=start)

    def total(a, b):
        pairs = zip(
            a.reshape(7, 7, -1)[:5, :5].transpose(2, 0, 1), b.reshape(7, 7, -1)[:5, :5].transpose(2, 0, 1), strict=True
        )
        return sum((brute_force_hsic(x, y) + brute_force_hsic(x.T, y.T)) / 2 for x, y in pairs)

    expected = total(after, before) / math.sqrt(total(after, after) * total(before, before))
    assert unbiased_cka(after[:5, :5], before[:5, :5]) == pytest.approx(expected, rel=1e-9)
    values = compute(select("cka_with_initial_unbiased"), state)
    assert values["cka_with_initial_unbiased"] == pytest.approx(unbiased_cka(after, before), rel=1e-12)


OMEGA = "kernel_angular_velocity"


def turning(problem, angle):
    """A state whose kernel is A cos φ + B sin φ, ⟨A, B⟩ = 0 and ‖A‖ = ‖B‖: it turns by the angle φ."""
    rng = np.random.default_rng(3)
    a, b = (m + m.T for m in rng.standard_normal((2, 7, 7)))
    a /= np.linalg.norm(a)
    b -= np.vdot(a, b) * a
    return a * np.cos(angle) + b / np.linalg.norm(b) * np.sin(angle)


def course(problem, steps, angles):
    """ω at each step of a run, by the references that a recorder keeps; None where it was not measured."""
    specification = ProbeSpec(probe=Probe(problem.outputs, problem.targets), observables=select(OMEGA))
    runs, found = RunReferences([specification]), []
    for step, angle in zip(steps, angles, strict=True):
        known = runs.of("probe", step)
        settings = {"step": step, "layers": []} | ({} if known.lag is None else {"lag": known.lag})
        state = problem.state("trace", kernel=turning(problem, angle), settings=settings, lagged=known.lagged)
        found.append(None if known.lagged is None else float(compute(select(OMEGA), state)[OMEGA]))
        runs.keep("probe", step, state)
        again = RunReferences([specification])
        again.load_state_dict(runs.state_dict(), torch.device("cpu"), measures=True)
        runs = again  # resumed from a checkpoint after every snapshot
    return found


@pytest.mark.parametrize(
    "steps",
    [
        (0, 1, 2, 3, 5, 8, 11, 12),
        (0, 1, 500, 501, 1000, 1001),
        (0, 50, 100, 150, 151, 200),
        (0, 10, 20, 25),
        (3, 7, 11),
    ],
    ids=["log", "pairs", "and-a-change", "and-the-last", "later"],
)
@pytest.mark.parametrize("omega", [1e-3, 1e-6, 0.06])
def test_one_motion_has_one_angular_velocity_whatever_the_spacing(problem, steps, omega):
    """Law: K(t) = A cos ωt + B sin ωt turns by ω an update, at the run's lag, to 1e-12; elsewhere there is no number."""
    lag = steps[1] - steps[0]
    found = course(problem, steps, [omega * step for step in steps])
    gaps = np.diff(steps, prepend=steps[0])
    assert [value is not None for value in found] == (gaps == lag).tolist()
    # to 1e-12 of 1 for the angles themselves; the angle's rounding is divided by the lag as it is
    np.testing.assert_allclose([value for value in found if value is not None], omega, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("lag", "expected"), [(1, 0.7), (2, 0.0), (3, 0.7 / 3), (4, 0.0)])
def test_an_orbit_of_period_two_turns_at_odd_lags_only(problem, lag, expected):
    """A, B, A, B: ω_1 = arccos ⟨A, B⟩, ω_2 = 0, and no number falls with the gap to another snapshot."""
    steps = range(0, 12 * lag, lag)
    found = course(problem, steps, [0.7 * (step % 2) for step in steps])
    np.testing.assert_allclose(found[1:], expected, rtol=0, atol=1e-12)


def test_the_old_velocity_is_superseded_and_says_why():
    with pytest.raises(ObservableError, match="superseded") as refused:
        select("kernel_velocity")
    assert "kernel_angular_velocity" in str(refused.value)
    assert "spaced" in str(refused.value)


def test_a_state_that_does_not_know_its_lag_has_no_angular_velocity(problem):
    values = compute(select(OMEGA), problem.state(lagged=problem.state()))
    assert math.isnan(values[OMEGA])
    assert "lag is unknown" in values.reasons[OMEGA]


def test_what_observables_share_is_computed_once(problem, reduction, monkeypatch):
    """Counted: passes over two kernels, and over one for what it tells alone; the initial one's are made for the first state only.

    Of two: distance, radius, centred distance and HSIC; of one: its centred norm and its own HSIC. No array of N² numbers stays.
    """
    from kerneltrack.observables import kernel_sums, motion

    initial, passes = problem.state(reduction), []
    blocks = kernel_sums.row_blocks
    monkeypatch.setattr(kernel_sums, "row_blocks", lambda kernel: passes.append(kernel) or blocks(kernel))
    names = [entry.name for entry in motion.OBSERVABLES if entry.needs <= {"matrix", "initial"}]
    for own in (4, 2):
        state = problem.state(reduction, initial=initial)
        passes.clear()
        compute(select(names), state)
        assert len(passes) == 4 + own
        arrays = [value for value in vars(state.kernel_sums).values() if value is not state.kernel]
        assert max(np.size(value) for value in arrays) < np.size(state.kernel)
        assert "_shared" not in vars(state)


def test_a_run_keeps_its_initial_state_as_one(problem):
    """What the initial kernel tells alone is made once a run: every state is given the very same one."""
    specification = ProbeSpec(probe=Probe(problem.outputs, problem.targets), observables=select(NAMES))
    runs = RunReferences([specification])
    settings = {"step": 0, "layers": []}
    runs.keep("probe", 0, problem.state("trace", settings=settings).as_initial())
    first, second = (problem.state("trace", initial=runs.of("probe", step).initial) for step in (1, 2))
    assert first.initial is not None
    assert first.initial is second.initial


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_passes_in_blocks_of_rows_are_those_over_all(problem, reduction, rows, monkeypatch):
    """Oracle: the same numbers with all rows in one block, to the rounding of sums of 7²·9 terms."""
    from kerneltrack.observables import kernel_sums

    before = problem.kernel(reduction)
    moved(problem, 0.3)
    after = problem.kernel(reduction)
    found = []
    for each in (rows, len(before)):
        slices = [slice(start, min(start + each, len(before))) for start in range(0, len(before), each)]
        monkeypatch.setattr(kernel_sums, "row_blocks", lambda kernel, slices=slices: slices)
        found.append([f(after, before) for f in (kernel_distance, cka, permuted_cka, unbiased_cka)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
