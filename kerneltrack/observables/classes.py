"""How the kernel tells classes and outputs apart.

Θ(n, m) stands for one number per pair of points: Σ_o Θ_oo for full, diagonal and trace kernels, the kernel itself for
sum. Classes are those of one-hot targets, or the two values of a single binary output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.conventions import helmert
from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, chosen, einsum, hollow, inner, norms, reordered, to_numpy, trace
from kerneltrack.observables.motion import centred_kernel, kernel_of
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State, epsilon_of
from kerneltrack.spectrum import EPSILON

_BLOCKS = "Seleznova et al. 2023"


def class_labels(targets: Array) -> NDArray[np.int64]:
    """The class of each point (N,), from one-hot targets (N, O) or from one output with two values.

    Raises:
        ObservableError: the targets are no classes.
    """
    if targets.shape[1] == 1:
        values, labels = np.unique(targets[:, 0], return_inverse=True)
        if len(values) == 2:
            return np.asarray(labels, dtype=np.int64)
    elif np.all((targets == 0) | (targets == 1)) and np.all(targets.sum(axis=1) == 1):
        return np.asarray(targets.argmax(axis=1), dtype=np.int64)
    raise ObservableError("the targets are no classes", expected="one-hot targets, or one output with two values")


def pair_kernel(kernel: Array) -> Array:
    """(N, N) one number per pair of points: the trace over outputs of a kernel in its reduced shape."""
    if kernel.ndim == 4:
        pairs: Array = einsum("nmoo->nm", kernel)
        return pairs
    return kernel.sum(axis=2) if kernel.ndim == 3 else kernel


def class_blocks(kernel: Array, labels: NDArray[np.int64]) -> Array:
    """Mean of Θ(n, m), n ≠ m, over n of class a and m of class b (C, C). Seleznova et al. 2023.

    A class with a single point has no pair of its own: NaN on the diagonal.

    Args:
        kernel: (N, N), one number per pair of points.
        labels: (N,) classes 0, …, C − 1.
    """
    members = np.eye(int(labels.max()) + 1)[labels]
    counts = members.sum(axis=0)
    pairs = np.outer(counts, counts) - np.diag(counts)
    totals = _between(members, hollow(kernel))
    return np.asarray(np.divide(totals, pairs, out=np.full_like(totals, np.nan), where=pairs > 0))


def class_levels(kernel: Array, labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Means of Θ(n, n), of Θ(n, m) within classes and of Θ(n, m) between classes; NaN where there is no such pair."""
    same = labels[:, None] == labels
    off = ~np.eye(len(labels), dtype=bool)
    kinds = (~off, same & off, ~same)
    means = (float(chosen(kernel, pairs).mean()) if pairs.any() else float("nan") for pairs in kinds)
    diagonal, within, between = means
    return diagonal, within, between


def class_pair_r2(kernel: Array, labels: NDArray[np.int64]) -> float:
    """R² = Σ ω(B − Θ̄)²/Σ ω(Θ − Θ̄)² over pairs n ≠ m: what of the kernel's variation the labels explain.

    B has one value within classes and one between; Θ̄ is the ω-mean of all pairs. Every class counts alike, and so does
    every pair of classes: ω is the mean number of pairs of a block over the number in the pair's own block, which is 1
    where classes are equally large. A kernel without class structure has about one over its number of unordered pairs.
    NaN where :func:`no_class_levels` has a reason.

    Args:
        kernel: (N, N), one number per pair of points.
        labels: (N,) classes 0, …, C − 1.
    """
    return float("nan") if no_class_levels(kernel, labels) else _pair_r2(*_without_diagonal(kernel), _members(labels))


def permuted_class_pair_r2(kernel: Array, labels: NDArray[np.int64], draws: int = 200) -> tuple[float, float]:
    """Mean and standard deviation of :func:`class_pair_r2` over random permutations of the labels.

    They are always the same ones, of the points in the order of their row sums: the order of the probe does not matter.
    """
    if no_class_levels(kernel, labels):
        return float("nan"), float("nan")
    order = np.argsort(to_numpy(kernel.sum(axis=1)), kind="stable")
    powers = _without_diagonal(reordered(kernel, order))
    rng, members = np.random.default_rng(0), _members(np.repeat(*_sizes(labels)))
    found = [_pair_r2(*powers, rng.permutation(members)) for _ in range(draws)]
    return float(np.mean(found)), float(np.std(found, ddof=1))


def _sizes(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers for the classes, the largest first, and how many points each has."""
    counts = np.sort(np.unique(labels, return_counts=True)[1])[::-1]
    return np.arange(len(counts)), counts


def _members(labels: NDArray[np.int64]) -> Array:
    """(N, C) one-hot, of the classes that are there."""
    return np.eye(int(labels.max()) + 1)[labels][:, np.unique(labels)]


def _without_diagonal(kernel: Array) -> tuple[Array, Array]:
    """Θ less its off-diagonal mean and the square of that, both with a zero diagonal: the mean is the larger part."""
    n = len(kernel)
    centred = hollow(kernel - (float(kernel.sum()) - trace(kernel)) / (n * (n - 1)))
    return centred, centred**2


def _between(members: Array, kernel: Array) -> Array:
    """MᵀΘM (C, C), the sums over pairs of two classes."""
    there = beside(members, kernel)
    return to_numpy(there.T @ kernel @ there)


def _pair_r2(centred: Array, squares: Array, members: Array) -> float:
    counts = members.sum(axis=0)
    pairs = np.outer(counts, counts) - np.diag(counts)
    own = np.eye(len(counts), dtype=bool)
    weights = np.zeros_like(pairs)
    for kind in (own & (pairs > 0), ~own):
        weights[kind] = pairs[kind].mean() / pairs[kind]
    mass, sums = weights * pairs, weights * _between(members, centred)
    mean = sums.sum() / mass.sum()
    total = np.sum(weights * _between(members, squares)) - mass.sum() * mean**2
    levels = sum(sums[kind].sum() ** 2 / mass[kind].sum() for kind in (own, ~own))
    return float((levels - mass.sum() * mean**2) / total)


def class_three_level_share(kernel: Array, labels: NDArray[np.int64]) -> float:
    """‖B‖_F²/‖Θ‖_F², B the kernel nearest to Θ with one level each for n = m, for one class and for two classes.

    It does not say how much the classes explain: a kernel that is nearly constant off its diagonal has a share near 1
    whatever the labels; :func:`class_pair_r2` does. NaN where :func:`no_class_levels` has a reason.
    """
    if no_class_levels(kernel, labels):
        return float("nan")
    same, n = labels[:, None] == labels, len(labels)
    off = ~np.eye(n, dtype=bool)
    norm = inner(kernel, kernel)
    kinds = (~off, same & off, ~same)
    squares = [float(chosen(kernel, pairs).sum()) ** 2 / pairs.sum() for pairs in kinds if pairs.any()]
    return float(sum(squares) / norm) if norm else float("nan")


def permuted_three_level_share(kernel: Array, labels: NDArray[np.int64]) -> float:
    """Exact mean of :func:`class_three_level_share` over all permutations of the labels.

    With T = Σ_{n≠m} Θ_nm and its sum of squares over ordered pairs, the mean of (Σ_within Θ)² needs how often two pairs
    are both within a class when they share two points, one point or none: Mantel's moments.
    """
    if no_class_levels(kernel, labels):
        return float("nan")
    n, (within, both, neither) = len(labels), _within_moments(labels)
    off = hollow(kernel)
    total, rows, squares = float(off.sum()), to_numpy(off.sum(axis=1)), inner(off, off)
    sharing = 4 * (float(rows @ rows) - squares)
    apart = total**2 - 2 * squares - sharing
    mean_square = 2 * squares * within + sharing * both + apart * neither
    inside, outside = within * n * (n - 1), (1 - within) * n * (n - 1)
    between = total**2 - 2 * total * (within * total) + mean_square
    levels = trace(kernel) ** 2 / n + mean_square / inside + between / outside
    return float(levels / inner(kernel, kernel))


def _within_moments(labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Chances that a pair, two pairs with a common point, and two pairs without one lie within classes."""
    counts = np.bincount(labels).astype(float)
    n, twos, threes = counts.sum(), counts * (counts - 1), counts * (counts - 1) * (counts - 2)
    fours = twos.sum() ** 2 - 4 * threes.sum() - 2 * twos.sum()
    orders = np.cumprod([n, n - 1, n - 2, max(n - 3, 1)])  # three points have no two pairs apart
    return float(twos.sum() / orders[1]), float(threes.sum() / orders[2]), float(fours / orders[3])


def no_class_levels(kernel: Array, labels: NDArray[np.int64], epsilon: float = EPSILON["float64"]) -> str:
    """Why the three levels say nothing of classes, or "".

    Args:
        kernel: (N, N), one number per pair of points.
        labels: (N,) classes.
        epsilon: of the dtype in which the kernel was computed; a level is known to a few of these.
    """
    same, off = labels[:, None] == labels, ~np.eye(len(labels), dtype=bool)
    if same.all():
        return "one class"
    if not (same & off).any():
        return "no two points of one class"
    others = chosen(kernel, off)
    if float(others.max() - others.min()) <= 8 * epsilon * float(abs(kernel).max()):
        return "constant off the diagonal"
    return ""


def _levels(state: State) -> tuple[Array, NDArray[np.int64]]:
    """The kernel of pairs and the labels, where their levels say something of classes."""
    kernel, labels = _pairs(state)
    if reason := no_class_levels(kernel, labels, epsilon_of(state.settings.get("dtype"))):
        raise ObservableError(f"the levels say nothing of classes: {reason}")
    return kernel, labels


def _r2_score(state: State) -> float:
    kernel, labels = _levels(state)
    mean, deviation = permuted_class_pair_r2(kernel, labels)
    return (class_pair_r2(kernel, labels) - mean) / deviation if deviation else float("nan")


def kernel_specialization(kernel: Array, targets: Array) -> float:
    """Mean over outputs c of A(Θ_cc, y_c)/mean_d A(Θ_dd, y_c): above 1 where each output's kernel fits its own target.

    A(K, y) = ⟨HKH, yyᵀ⟩_F/(‖HKH‖_F ‖Hy‖²). After Shan and Bordelon 2021 (arXiv 2105.14301).

    Args:
        kernel: (N, N, O) the kernel of each output.
        targets: (N, O).
    """
    kernels, centred = centred_kernel(kernel), targets - targets.mean(axis=0)
    forms = to_numpy(einsum("nc,nmd,mc->dc", centred, kernels, centred, optimize=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        alignments = forms / norms(kernels, (0, 1))[:, None]
        return float(np.mean(np.diag(alignments) / alignments.mean(axis=0)))


def cross_output_share(kernel: Array) -> float:
    """1 − ‖Σ_o Θ_oo‖_F²/(O ‖Θ‖_F²): what of Θ (N, N, O, O) no kernel of the form k ⊗ I_O can hold."""
    norm, pairs = inner(kernel, kernel), pair_kernel(kernel)
    return 1 - inner(pairs, pairs) / (kernel.shape[2] * norm) if norm else float("nan")


def _pairs(state: State) -> tuple[Array, NDArray[np.int64]]:
    if state.raw_targets is None:
        raise ObservableError("there are no targets")
    return pair_kernel(kernel_of(state)), class_labels(state.raw_targets)


def _of_outputs(state: State) -> Array:
    if state.outputs.shape[1] == 1 or state.reduction not in ("full", "diagonal"):
        raise ObservableError(
            "defined for the kernels of several outputs", got=f"output={state.reduction!r}, O={state.outputs.shape[1]}"
        )
    return kernel_of(state)


def _specialization(state: State) -> float:
    if state.targets is None:
        raise ObservableError("there are no targets")
    return kernel_specialization(_each_output(state), state.by_output(state.targets))


def _each_output(state: State) -> Array:
    """(N, N, O) the kernel of each of the network's outputs by itself; in a gauge of the outputs less their mean."""
    kernel = _of_outputs(state)
    if kernel.ndim == 3:
        return kernel
    if state.gauge == "raw":
        own: Array = einsum("nmoo->nmo", kernel)
        return own
    basis = helmert(state.network_outputs)
    turned: Array = einsum("nmab,oa,ob->nmo", kernel, basis, basis, optimize=True)
    return turned


def _cross_output(state: State) -> float:
    if state.reduction != "full":
        raise ObservableError("defined for the full kernel", got=f"output={state.reduction!r}")
    return cross_output_share(_of_outputs(state))


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "class_diagonal", lambda s: class_levels(*_pairs(s))[0], "mean_n Θ(n, n), Θ(n, m) summed over outputs",
        "matrix", "targets", source=_BLOCKS, default=False, long_name="kernel of a point with itself",
    ),
    observable(
        "class_within", lambda s: class_levels(*_pairs(s))[1], "mean of Θ(n, m) over n ≠ m of one class", "matrix",
        "targets", source=_BLOCKS, default=False, long_name="kernel between points of one class, pooled over classes",
    ),
    observable(
        "class_between", lambda s: class_levels(*_pairs(s))[2], "mean of Θ(n, m) over pairs of different classes",
        "matrix", "targets", source=_BLOCKS, default=False, long_name="kernel between points of two classes, pooled over pairs",
    ),
    observable(
        "class_pair_r2", lambda s: class_pair_r2(*_levels(s)),
        "Σ_{n≠m} ω(B − Θ̄)²/Σ_{n≠m} ω(Θ − Θ̄)², B the within/between mean, ω: every class alike", "matrix", "targets",
        default=False, long_name="share of the kernel's variation between points that labels explain",
    ),
    observable(
        "class_pair_r2_null", lambda s: permuted_class_pair_r2(*_levels(s))[0], "mean of R² over permuted labels",
        "spectrum", "targets", default=False, long_name="what permuted labels explain of that variation",
    ),
    observable(
        "class_pair_r2_score", _r2_score, "(R² − mean)/standard deviation, over 200 permutations of the labels",
        "spectrum", "targets", default=False,
        long_name="standard deviations of permuted labels by which the labels explain more",
    ),
    observable(
        "class_three_level_share", lambda s: class_three_level_share(*_levels(s)),
        "‖B‖_F²/‖Θ‖_F², B nearest to Θ among kernels with one value each for n = m, one class, two classes", "matrix",
        "targets", source=_BLOCKS, default=False,
        long_name="share of the kernel in three levels (near 1 for any flat kernel, whatever its classes)",
    ),
    observable(
        "class_three_level_share_null", lambda s: permuted_three_level_share(*_levels(s)),
        "mean of the share over all permutations of the labels", "spectrum", "targets", default=False,
        long_name="share of the kernel in three levels of permuted labels",
    ),
    observable(
        "kernel_specialization", _specialization, "mean_c A(Θ_cc, y_c)/mean_d A(Θ_dd, y_c), A the centred alignment",
        "matrix", "targets", source="Shan and Bordelon 2021", default=False,
        long_name="how much better each output's kernel fits its own target than another's",
    ),
    observable(
        "cross_output_share", _cross_output, "1 − ‖Σ_o Θ_oo‖_F²/(O ‖Θ‖_F²)", "matrix", default=False,
        source="Mohamadi, Bae and Sutherland 2023", long_name="share of the kernel that couples or distinguishes outputs",
    ),
)  # fmt: skip
