"""How the kernel tells classes and outputs apart.

Θ(n, m) stands for one number per pair of points: Σ_o Θ_oo for full, diagonal and trace kernels, the kernel itself for
sum. Classes are those of one-hot targets, or the two values of a single binary output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import ObservableError
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
        return np.asarray(np.einsum("nmoo->nm", kernel))
    return np.asarray(kernel.sum(axis=2) if kernel.ndim == 3 else kernel)


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
    totals = members.T @ (kernel - np.diag(np.diag(kernel))) @ members
    return np.asarray(np.divide(totals, pairs, out=np.full_like(totals, np.nan), where=pairs > 0))


def class_levels(kernel: Array, labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Means of Θ(n, n), of Θ(n, m) within classes and of Θ(n, m) between classes; NaN where there is no such pair."""
    same = labels[:, None] == labels
    off = ~np.eye(len(labels), dtype=bool)
    chosen = (~off, same & off, ~same)
    diagonal, within, between = (float(kernel[pairs].mean()) if pairs.any() else float("nan") for pairs in chosen)
    return diagonal, within, between


def class_block_share(kernel: Array, labels: NDArray[np.int64]) -> float:
    """‖B‖_F²/‖Θ‖_F², B the kernel nearest to Θ with one level each for n = m, for one class and for two classes.

    It does not say how much the classes explain: a kernel that is nearly constant off its diagonal has a share near 1
    whatever the labels. NaN where it is exactly that, or where the labels make no three levels.
    """
    if no_class_levels(kernel, labels):
        return float("nan")
    same, n = labels[:, None] == labels, len(labels)
    off = ~np.eye(n, dtype=bool)
    norm = float(np.vdot(kernel, kernel))
    squares = [kernel[pairs].sum() ** 2 / pairs.sum() for pairs in (~off, same & off, ~same) if pairs.any()]
    return float(sum(squares) / norm) if norm else float("nan")


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
    if np.ptp(kernel[off]) <= 8 * epsilon * np.abs(kernel).max():
        return "constant off the diagonal"
    return ""


def _block_share(state: State) -> float:
    kernel, labels = _pairs(state)
    if reason := no_class_levels(kernel, labels, epsilon_of(state.settings.get("dtype"))):
        raise ObservableError(f"the levels say nothing of classes: {reason}")
    return class_block_share(kernel, labels)


def kernel_specialization(kernel: Array, targets: Array) -> float:
    """Mean over outputs c of A(Θ_cc, y_c)/mean_d A(Θ_dd, y_c): above 1 where each output's kernel fits its own target.

    A(K, y) = ⟨HKH, yyᵀ⟩_F/(‖HKH‖_F ‖Hy‖²). After Shan and Bordelon 2021 (arXiv 2105.14301).

    Args:
        kernel: (N, N, O) the kernel of each output.
        targets: (N, O).
    """
    kernels, centred = centred_kernel(kernel), targets - targets.mean(axis=0)
    forms = np.einsum("nc,nmd,mc->dc", centred, kernels, centred, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        alignments = forms / np.linalg.norm(kernels, axis=(0, 1))[:, None]
        return float(np.mean(np.diag(alignments) / alignments.mean(axis=0)))


def cross_output_share(kernel: Array) -> float:
    """1 − ‖Σ_o Θ_oo‖_F²/(O ‖Θ‖_F²): what of Θ (N, N, O, O) no kernel of the form k ⊗ I_O can hold."""
    norm = float(np.vdot(kernel, kernel))
    trace = pair_kernel(kernel)
    return 1 - float(np.vdot(trace, trace)) / (kernel.shape[2] * norm) if norm else float("nan")


def _pairs(state: State) -> tuple[Array, NDArray[np.int64]]:
    if state.targets is None:
        raise ObservableError("there are no targets")
    return pair_kernel(kernel_of(state)), class_labels(state.targets)


def _of_outputs(state: State) -> Array:
    if state.outputs.shape[1] == 1 or state.reduction not in ("full", "diagonal"):
        raise ObservableError(
            "defined for the kernels of several outputs", got=f"output={state.reduction!r}, O={state.outputs.shape[1]}"
        )
    return kernel_of(state)


def _specialization(state: State) -> float:
    if state.targets is None:
        raise ObservableError("there are no targets")
    kernel = _of_outputs(state)
    return kernel_specialization(np.einsum("nmoo->nmo", kernel) if kernel.ndim == 4 else kernel, state.targets)


def _cross_output(state: State) -> float:
    if state.reduction != "full":
        raise ObservableError("defined for the full kernel", got=f"output={state.reduction!r}")
    return cross_output_share(_of_outputs(state))


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "class_diagonal", lambda s: class_levels(*_pairs(s))[0], "mean_n Θ(n, n), Θ(n, m) summed over outputs",
        "spectrum", "targets", source=_BLOCKS, default=False, long_name="kernel of a point with itself",
    ),
    observable(
        "class_within", lambda s: class_levels(*_pairs(s))[1], "mean of Θ(n, m) over n ≠ m of one class", "spectrum",
        "targets", source=_BLOCKS, default=False, long_name="kernel between two points of one class",
    ),
    observable(
        "class_between", lambda s: class_levels(*_pairs(s))[2], "mean of Θ(n, m) over pairs of different classes",
        "spectrum", "targets", source=_BLOCKS, default=False, long_name="kernel between two points of different classes",
    ),
    observable(
        "class_block_share", _block_share,
        "‖B‖_F²/‖Θ‖_F², B nearest to Θ among kernels with one value each for n = m, one class, two classes", "spectrum",
        "targets", source=_BLOCKS, default=False,
        long_name="share of the kernel in three levels (near 1 for any flat kernel, whatever its classes)",
    ),
    observable(
        "kernel_specialization", _specialization, "mean_c A(Θ_cc, y_c)/mean_d A(Θ_dd, y_c), A the centred alignment",
        "spectrum", "targets", source="Shan and Bordelon 2021", default=False,
        long_name="how much better each output's kernel fits its own target than another's",
    ),
    observable(
        "cross_output_share", _cross_output, "1 − ‖Σ_o Θ_oo‖_F²/(O ‖Θ‖_F²)", "spectrum", default=False,
        source="Mohamadi, Bae and Sutherland 2023", long_name="share of the kernel that couples or distinguishes outputs",
    ),
)  # fmt: skip
