"""Classes and outputs. Oracles: double loops over pairs of points, and kernels whose blocks are known by construction."""

import itertools

import numpy as np
import pytest

from kerneltrack import observables
from kerneltrack.errors import ObservableError
from kerneltrack.observables import State, compute, select
from kerneltrack.observables.classes import no_class_levels, permuted_class_pair_r2, permuted_three_level_share
from kerneltrack.spectrum.decomposition import eigensystem

LABELS = np.array([0, 1, 2, 0, 1, 2, 0])
#: What labels explain, and what permuted labels would.
FROM_LEVELS = (
    "class_pair_r2", "class_pair_r2_null", "class_pair_r2_score", "class_three_level_share", "class_three_level_share_null",
)  # fmt: skip
UNEQUAL = np.array([0] * 6 + [1] * 2 + [2])


def one_hot(labels=LABELS):
    return np.eye(labels.max() + 1)[labels]


def pair_kernel(problem, reduction):
    """Σ_o of the diagonal blocks, or the kernel itself, written out."""
    kernel = problem.kernel("full" if reduction in ("full", "diagonal", "trace") else "sum")
    if kernel.ndim == 2:
        return kernel
    n = len(kernel)
    return np.array([[sum(kernel[i, j, o, o] for o in range(3)) for j in range(n)] for i in range(n)])


def means(kernel, labels):
    """Diagonal, within, between by a double loop."""
    found = {"class_diagonal": [], "class_within": [], "class_between": []}
    for i, j in itertools.product(range(len(labels)), repeat=2):
        key = "diagonal" if i == j else "within" if labels[i] == labels[j] else "between"
        found[f"class_{key}"].append(kernel[i, j])
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("formed", [True, False], ids=["kernel", "eigenpairs"])
def test_levels_are_means_over_pairs(problem, reduction, formed):
    targets = one_hot()
    if reduction == "sum":  # one-hot targets add up to a constant there; the labels alone are the same
        targets = (LABELS[:, None] == [0, 1, 2]) * 1.0
        state = problem.state(reduction)
        found = dict(
            zip(
                ("class_diagonal", "class_within", "class_between"),
                observables.class_levels(state.kernel, LABELS),
                strict=True,
            )
        )
    else:
        state = problem.state(reduction, targets=targets, **({} if formed else {"kernel": None}))
        found = compute(select(["class_diagonal", "class_within", "class_between"]), state)
    for name, expected in means(pair_kernel(problem, reduction), LABELS).items():
        assert found[name] == pytest.approx(expected, rel=1e-11), name


def test_blocks_are_means_over_pairs_of_classes(problem):
    kernel = pair_kernel(problem, "trace")
    found = observables.class_blocks(kernel, LABELS)
    for a, b in itertools.product(range(3), repeat=2):
        pairs = [kernel[i, j] for i in range(7) for j in range(7) if i != j and (LABELS[i], LABELS[j]) == (a, b)]
        assert found[a, b] == pytest.approx(np.mean(pairs), rel=1e-12)


def test_a_class_of_one_point_has_no_pair_of_its_own():
    found = observables.class_blocks(np.ones((3, 3)), np.array([0, 0, 1]))
    np.testing.assert_array_equal(found, [[1, 1], [1, np.nan]])
    diagonal, within, between = observables.class_levels(np.diag([2.0, 4.0]), np.array([0, 1]))
    assert (diagonal, between) == (3.0, 0.0)
    assert np.isnan(within)


def test_the_share_of_blocks_is_a_least_squares_fit(problem):
    """Oracle: lstsq on the three indicator matrices; R² without an intercept."""
    kernel = pair_kernel(problem, "trace")
    same, eye = LABELS[:, None] == LABELS, np.eye(7, dtype=bool)
    design = np.stack([m.ravel() for m in (eye, same & ~eye, ~same)], axis=1).astype(float)
    fitted = design @ np.linalg.lstsq(design, kernel.ravel(), rcond=None)[0]
    share = np.sum(fitted**2) / np.sum(kernel**2)
    assert 0 < share < 1
    assert observables.class_three_level_share(kernel, LABELS) == pytest.approx(share, rel=1e-12)
    assert observables.class_three_level_share(5.0 * same + 2.0 * eye + 1.0, LABELS) == pytest.approx(1)


def test_each_output_s_own_kernel_is_its_specialisation():
    """Θ_cc = y_c y_cᵀ for orthogonal, centred y_c: A is 1 on its own target and 0 on the others, so the ratio is O."""
    targets = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 4)) - 0)[0]
    targets = np.linalg.qr(targets - targets.mean(axis=0))[0]
    own = np.einsum("nc,mc->nmc", targets, targets)
    assert observables.kernel_specialization(own, targets) == pytest.approx(4)
    same = np.repeat(own.sum(axis=2, keepdims=True), 4, axis=2)
    assert observables.kernel_specialization(same, targets) == pytest.approx(1)


@pytest.mark.parametrize("chosen", ["full", "diagonal"])
def test_specialisation_against_loops(problem, chosen):
    kernel, y, h = problem.kernel("full"), problem.targets, np.eye(7) - 1 / 7
    alignment = np.empty((3, 3))
    for d, c in itertools.product(range(3), repeat=2):
        block, column = h @ kernel[:, :, d, d] @ h, h @ y[:, c]
        alignment[d, c] = column @ block @ column / (np.linalg.norm(block) * (column @ column))
    expected = np.mean([alignment[c, c] / alignment[:, c].mean() for c in range(3)])
    found = compute(select("kernel_specialization"), problem.state(chosen))["kernel_specialization"]
    assert found == pytest.approx(expected, rel=1e-11)


def test_what_couples_outputs_is_what_the_nearest_k_times_identity_misses(problem):
    """Oracle: ‖Θ − k ⊗ I‖²/‖Θ‖² minimised over k entry by entry: k is the mean of the diagonal blocks."""
    kernel = problem.kernel("full")
    nearest = np.einsum("nm,op->nmop", np.einsum("nmoo->nm", kernel) / 3, np.eye(3))
    expected = np.sum((kernel - nearest) ** 2) / np.sum(kernel**2)
    found = compute(select("cross_output_share"), problem.state())["cross_output_share"]
    assert found == pytest.approx(expected, rel=1e-11)
    assert observables.cross_output_share(nearest) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("name", ["class_diagonal", "class_within", "class_between", *FROM_LEVELS])
def test_targets_that_are_no_classes_are_refused(problem, name):
    values = compute(select(name), problem.state())
    assert np.isnan(values[name])
    assert "the targets are no classes" in values.reasons[name]


def test_binary_targets_are_two_classes():
    labels = observables.class_labels(np.array([[-1.0], [1.0], [-1.0]]))
    assert labels.tolist() == [0, 1, 0]
    with pytest.raises(ObservableError, match="no classes"):
        observables.class_labels(np.array([[0.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("name", ["kernel_specialization", "cross_output_share"])
def test_reductions_without_outputs_are_refused(problem, name):
    values = compute(select(name), problem.state("trace"))
    assert "defined for the" in values.reasons[name]


def test_the_order_of_points_and_of_classes_does_not_matter(problem):
    order = np.random.default_rng(3).permutation(7)
    kernel, renamed = pair_kernel(problem, "trace"), np.array([2, 0, 1])[LABELS]
    moved = kernel[order][:, order]
    np.testing.assert_allclose(
        observables.class_levels(moved, renamed[order]), observables.class_levels(kernel, LABELS), rtol=1e-12
    )
    assert observables.class_three_level_share(moved, renamed[order]) == pytest.approx(
        observables.class_three_level_share(kernel, LABELS), rel=1e-12
    )


FLAT = {
    "ones": np.ones((7, 7)),
    "ones and a diagonal": np.ones((7, 7)) + 4 * np.eye(7),
    "an uneven diagonal": np.ones((7, 7)) + np.diag(np.arange(7.0)),
    "negative": np.eye(7) - 3,
    "nothing": np.zeros((7, 7)),
    "the identity": np.eye(7),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_kernel_that_is_constant_off_its_diagonal_knows_no_class(name):
    """Oracle: the same kernel under labels in any other order has the very same share, so it is not the classes'."""
    kernel = FLAT[name]
    assert np.isnan(observables.class_three_level_share(kernel, LABELS))
    state = State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction="trace",
        outputs=one_hot(),
        targets=one_hot(),
        settings={"dtype": "float64"},
    )
    values = compute(select(FROM_LEVELS), state)
    assert np.isnan(list(values.values())).all()
    assert all("constant off the diagonal" in values.reasons[each] for each in FROM_LEVELS)


def test_rounding_of_a_constant_is_no_class():
    kernel = np.float64(np.float32(1e4) * (1 + np.float32(2**-23) * np.random.default_rng(0).integers(-2, 3, (7, 7))))
    state = State(
        eigensystem=eigensystem(kernel + kernel.T),
        kernel=kernel + kernel.T,
        reduction="trace",
        outputs=one_hot(),
        targets=one_hot(),
        settings={"dtype": "torch.float32"},
    )
    reasons = compute(select(FROM_LEVELS), state).reasons
    assert all("constant" in reasons[each] for each in FROM_LEVELS)


@pytest.mark.parametrize(("labels", "reason"), [(np.zeros(4, int), "one class"), (np.arange(4), "no two points")])
def test_labels_without_three_levels_have_no_share(labels, reason):
    kernel = np.cov(np.random.default_rng(0).standard_normal((4, 9)))
    assert np.isnan(observables.class_three_level_share(kernel, labels))
    assert reason in no_class_levels(kernel, labels)


def test_classes_in_a_kernel_keep_their_share():
    """Θ = YYᵀ has three levels exactly, and they are the classes'."""
    kernel = one_hot() @ one_hot().T
    assert observables.class_three_level_share(kernel, LABELS) == pytest.approx(1)


def noise(n, seed=0):
    """A kernel of independent functions, without any class."""
    rows = np.random.default_rng(seed).standard_normal((n, 3 * n))
    return rows @ rows.T / (3 * n)


def loop_r2(kernel, labels):
    """Weighted least squares of the pairs n ≠ m on two levels, each class and each pair of classes weighing alike."""
    pairs = [(i, j) for i, j in itertools.permutations(range(len(labels)), 2)]
    blocks = {}
    for i, j in pairs:
        blocks.setdefault((labels[i], labels[j]), []).append((i, j))
    weight = {}
    for kind in (True, False):
        members = [found for (a, b), found in blocks.items() if bool(a == b) == kind]
        for found in members:
            weight |= dict.fromkeys(found, sum(map(len, members)) / len(members) / len(found))
    root = np.sqrt([weight[pair] for pair in pairs])
    values = np.array([kernel[pair] for pair in pairs])
    same = np.array([labels[i] == labels[j] for i, j in pairs], float)
    squares = []
    for design in (np.stack([same, 1 - same], axis=1), np.ones((len(pairs), 1))):
        fit = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
        squares.append(np.sum((root * (values - design @ fit)) ** 2))
    return 1 - squares[0] / squares[1]


@pytest.mark.parametrize("labels", [LABELS, UNEQUAL, np.repeat(np.arange(3), 3)], ids=["seven", "unequal", "equal"])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_what_labels_explain_is_weighted_least_squares_over_pairs(labels, shift):
    """A common shift of 10⁴ costs its digits: 1e-16 · 10⁴/10⁻¹ of the differences, squared sums of 42 and more pairs."""
    kernel = noise(len(labels)) + shift
    assert observables.class_pair_r2(kernel, labels) == pytest.approx(
        loop_r2(kernel, labels), abs=1e-12 + 1e-11 * shift
    )


def test_equal_classes_weigh_their_pairs_alike():
    """Oracle: one-way analysis of variance of the off-diagonal entries, each once."""
    labels, kernel = np.repeat(np.arange(4), 5), noise(20)
    same, off = labels[:, None] == labels, ~np.eye(20, dtype=bool)
    levels = np.where(same, kernel[same & off].mean(), kernel[~same].mean())[off]
    expected = np.sum((levels - kernel[off].mean()) ** 2) / np.sum((kernel[off] - kernel[off].mean()) ** 2)
    assert observables.class_pair_r2(kernel, labels) == pytest.approx(expected, rel=1e-11)


def test_a_kernel_of_classes_is_explained_by_them_whatever_its_level():
    """Θ = YYᵀ + 10³ 11ᵀ: the share in three levels is 1 under any labels nearly, R² is 1 under the right ones only."""
    labels = np.repeat(np.arange(3), 4)
    kernel = one_hot(labels) @ one_hot(labels).T + 1e3
    wrong = np.tile(np.arange(3), 4)
    assert observables.class_pair_r2(kernel, labels) == pytest.approx(1, abs=1e-9)
    assert observables.class_three_level_share(kernel, wrong) > 0.999
    assert observables.class_pair_r2(kernel, wrong) < 0.1


@pytest.mark.parametrize("n", [12, 30])
def test_without_class_structure_labels_explain_one_pair_s_share(n):
    """Mean over 400 kernels of 1/#unordered pairs; its standard error is √2/(20 #pairs), asked for within four."""
    labels, pairs = np.arange(n) % 3, n * (n - 1) / 2
    found = [observables.class_pair_r2(noise(n, seed), labels) for seed in range(400)]
    assert np.mean(found) == pytest.approx(1 / pairs, abs=4 * np.sqrt(2) / 20 / pairs)


@pytest.mark.parametrize("labels", [np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 2])], ids=["five", "unequal"])
def test_nulls_are_those_of_every_permutation(labels):
    """Oracle: all distinct orders of the labels. The share's mean is exact; R²'s is of 200 draws, within four of their errors."""
    kernel = noise(len(labels)) + 1
    orders = [np.array(order) for order in sorted(set(itertools.permutations(labels.tolist())))]
    shares = [observables.class_three_level_share(kernel, order) for order in orders]
    assert permuted_three_level_share(kernel, labels) == pytest.approx(np.mean(shares), rel=1e-12)
    found = [observables.class_pair_r2(kernel, order) for order in orders]
    mean, deviation = permuted_class_pair_r2(kernel, labels)
    assert mean == pytest.approx(np.mean(found), abs=4 * np.std(found) / np.sqrt(200))
    assert deviation == pytest.approx(np.std(found), rel=0.3)


def test_the_score_counts_standard_deviations_of_permuted_labels():
    labels = np.repeat(np.arange(3), 6)
    kernel = noise(18) + 0.2 * one_hot(labels) @ one_hot(labels).T
    state = State(
        eigensystem=eigensystem(kernel),
        kernel=kernel,
        reduction="trace",
        outputs=one_hot(labels),
        targets=one_hot(labels),
    )
    values = compute(select(FROM_LEVELS), state)
    mean, deviation = permuted_class_pair_r2(kernel, labels)
    assert values["class_pair_r2_score"] == pytest.approx((values["class_pair_r2"] - mean) / deviation)
    assert values["class_pair_r2_score"] > 4
    assert values["class_pair_r2_null"] == mean


def test_the_superseded_name_says_what_came_after_it():
    with pytest.raises(ObservableError, match="superseded: expected class_pair_r2 or class_three_level_share"):
        select("class_block_share")
