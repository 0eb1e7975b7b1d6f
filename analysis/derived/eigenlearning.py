"""Eigenlearning: the test error that a kernel's spectrum predicts for n points, beside what regression on n points then has.

From a snapshot's eigenvalues and target coefficients alone, by :func:`kerneltrack.regression.learning_curve`; the probe stands for
the data, so its points must not have been trained on (or the kernel is that of step 0), and n stays at a quarter of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerneltrack.errors import AnalysisError
from kerneltrack.regression import effective_regularisation, learning_curve

from ..trajectory import Floats, Ints, Run
from ..withheld import seen
from .kernels import full_kernel, kernel_matrix

#: γ/(tr Θ/M), as of the package's other regressions.
RIDGE = 1e-3
#: Random subsets of the probe that regression is tried on, and how many sizes they have.
DRAWS, SIZES = 20, 6
#: Points that a quarter of the probe must have: a curve over fewer says nothing.
FEWEST = 5
#: Rows of a kernel up to which regression is tried.
_LARGEST = 2000


@dataclass(frozen=True)
class LearningCurves:
    """Squared errors on new points over ‖y‖², by moment and number of points.

    Attributes:
        steps: (R,) of the moments.
        points: (K,) n, whole points of the probe; of a full kernel with O outputs each brings O rows.
        predicted: (R, K) by the spectrum, at the other points of the probe.
        measured: (R, K) of regression on random subsets of the probe, at its other points: the mean over subsets; NaN where no
            kernel is known.
        spread: (R, K) standard deviation over the subsets.
        network: (R,) the network's own error on these points; NaN where its loss is no mean of squares.
    """

    steps: Ints
    points: Ints
    predicted: Floats
    measured: Floats
    spread: Floats
    network: Floats


def unseen_rows(run: Run) -> Ints:
    """Measured rows of which Θ_t has not seen the labels: all of a held-out probe, else that of step 0.

    Raises:
        AnalysisError: there is none, or no complete spectrum and targets.
    """
    run.require("eigenvalues", "target_coefficients", why="eigenlearning")
    if run.values("eigenvalues").shape[1] != run.dimension:
        raise AnalysisError("eigenlearning needs every eigenvalue", expected=run.dimension, where=run.path or None)
    values = run.values("eigenvalues")
    rows = np.flatnonzero(run.measured & np.isfinite(values).all(axis=1) & (values.sum(axis=1) > 0))
    rows = rows if seen(run) == "no" else rows[run.steps[rows] == 0]
    if not len(rows):
        raise AnalysisError(
            "eigenlearning needs 'probe_in_training' to be \"no\": the kernel has seen these labels",
            where=run.path or None,
            remedy="Take a probe from the validation loader, probe={'train': 128, 'val': 128}.",
        )
    return rows


def eigenlearning(
    run: Run, rows: Sequence[int] | None = None, *, points: Sequence[int] | None = None
) -> LearningCurves:
    """Predicted and measured learning curves of kernel ridge regression with Θ_t, γ = 0.001 tr Θ/M.

    Args:
        run: the run, seen through a probe that stands for new data.
        rows: moments; None: every one of :func:`unseen_rows`.
        points: n, at most a quarter of the probe; None: a few, evenly in log n.

    Raises:
        AnalysisError: as :func:`unseen_rows`, targets that are zero, or n out of range.
    """
    allowed = unseen_rows(run)
    chosen = allowed if rows is None else np.asarray(rows, dtype=np.int64)
    if not set(chosen.tolist()) <= set(allowed.tolist()):
        raise AnalysisError("eigenlearning at these rows: the kernel has seen their labels", expected=allowed.tolist())
    sizes = _sizes(run) if points is None else np.asarray(points, dtype=np.int64)
    if not (len(sizes) and sizes.min() >= 1 and 4 * sizes.max() <= run.count):
        raise AnalysisError(
            "numbers of points to learn from", expected=f"1 to {run.count // 4}, a quarter", got=list(sizes)
        )
    found = [_measured(run, int(row), sizes) for row in chosen]
    return LearningCurves(
        steps=run.steps[chosen],
        points=sizes,
        predicted=np.array([_predicted(run, int(row), sizes) for row in chosen]),
        measured=np.array([mean for mean, _ in found]),
        spread=np.array([spread for _, spread in found]),
        network=run.values("network_error")[chosen] if run.has("network_error") else np.full(len(chosen), np.nan),
    )


def _sizes(run: Run) -> Ints:
    most = run.count // 4
    if most < FEWEST:
        raise AnalysisError(
            "eigenlearning needs 'targets' at more points", expected=f"at least {4 * FEWEST}", got=run.count
        )
    return np.unique(np.geomspace(FEWEST, most, SIZES).round().astype(np.int64))


def _predicted(run: Run, row: int, sizes: Ints) -> Floats:
    values, own = run.values("eigenvalues")[row], run.values("target_coefficients")[row]
    powers = np.sum(own.reshape(len(values), -1) ** 2, axis=1)
    if not powers.sum() > 0:
        raise AnalysisError("the targets are zero", where=run.path or None)
    kept = len(values) // run.count
    curve = at_other_points(
        values / len(values), powers / len(values), kept * sizes, ridge=RIDGE * float(values.mean())
    )
    return np.asarray(curve / (powers.sum() / len(values)))


def at_other_points(values: Floats, powers: Floats, counts: Ints, *, ridge: float) -> Floats:
    """E(n) at the M − n rows that were not drawn, (K,): (M E − n E_train)/(M − n), E_train = (γ/nκ)² E.

    The learning curve is over all of what n rows are drawn from, and that is the M rows of the probe here: n of them are learned by
    heart. Of M equal eigenvalues without a ridge E = (1 − n/M)‖c‖², and at the other rows ‖c‖², as it must be.

    Args:
        values: (M,) λ_i of the operator.
        powers: (M,) c_i².
        counts: (K,) n < M.
        ridge: γ of the kernel matrix of n rows.
    """
    rows, n = len(values), counts.astype(np.float64)
    positive = values[values > 0]
    kappa = np.array([effective_regularisation(positive, float(count), ridge) for count in n])
    everywhere = learning_curve(values, powers, n, ridge=ridge)
    return np.asarray(everywhere * (rows - n * (ridge / (n * kappa)) ** 2) / (rows - n))


def _measured(run: Run, row: int, sizes: Ints) -> tuple[Floats, Floats]:
    """Mean and standard deviation over random subsets; NaN where no kernel is known."""
    try:
        kernel = kernel_matrix(full_kernel(run, row)) if run.dimension <= _LARGEST else None
    except AnalysisError:
        kernel = None
    if kernel is None:
        return np.full(len(sizes), np.nan), np.full(len(sizes), np.nan)
    kept = len(kernel) // run.count
    targets = run.seen(run.values("targets"))
    columns = targets if kept == 1 else targets.reshape(len(kernel), 1)
    rng, ridge = np.random.default_rng(0), RIDGE * float(np.trace(kernel)) / len(kernel)
    errors = np.empty((len(sizes), DRAWS))
    for i, size in enumerate(sizes):
        for draw in range(DRAWS):
            own = np.zeros(run.count, dtype=bool)
            own[rng.permutation(run.count)[:size]] = True
            errors[i, draw] = _error(kernel, columns, np.repeat(own, kept), ridge)
    return errors.mean(axis=1), errors.std(axis=1, ddof=1)


def _error(kernel: Floats, columns: Floats, own: np.ndarray, ridge: float) -> float:
    """Mean squared error at the other rows, over the mean square of all targets."""
    inner = kernel[np.ix_(own, own)] + ridge * np.eye(int(own.sum()))
    missed = columns[~own] - kernel[np.ix_(~own, own)] @ np.linalg.solve(inner, columns[own])
    return float(np.mean(missed**2) / np.mean(columns**2))
