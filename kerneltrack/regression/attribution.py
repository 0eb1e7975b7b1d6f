"""Attribution judged: whether what each point is said to add ranks the outputs of models trained on random halves.

The linear datamodelling score of Park et al. 2023 (arXiv 2303.14186, section 2): of K random halves S of the training points the
outputs at x are ranked twice, by Σ_{i∈S} τ_i(x) and by training on S, and the score is the rank correlation of the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerneltrack.errors import RegressionError
from kerneltrack.regression.ridge import Array

Sets = NDArray[np.bool_]


def half_sets(samples: int, count: int = 50, *, seed: int = 0) -> Sets:
    """(count, N) True for the points of each random half, N/2 of them, rounded down.

    Raises:
        RegressionError: fewer than two points or sets.
    """
    if samples < 2 or count < 2:
        raise RegressionError(
            "random halves of a set", expected="two points and two halves at least", got=(samples, count)
        )
    rng = np.random.default_rng(seed)
    return np.stack([np.isin(np.arange(samples), rng.permutation(samples)[: samples // 2]) for _ in range(count)])


def refitted(kernel: Array, cross: Array, targets: Array, sets: Sets, *, ridge: float) -> Array:
    """f_S(X') (K, M', C): kernel ridge regression trained on each set alone.

    Args:
        kernel: (M, M) Θ(X, X).
        cross: (M', M) Θ(X', X).
        targets: (M, C) y.
        sets: (K, M) True where a row belongs to the set.
        ridge: γ > 0.
    """
    _check(sets, len(kernel))
    if not ridge > 0:
        raise RegressionError("a refit on few points needs a ridge", expected="γ > 0", got=ridge)
    return np.stack(
        [
            cross[:, own] @ np.linalg.solve(kernel[np.ix_(own, own)] + ridge * np.eye(int(own.sum())), targets[own])
            for own in sets
        ]
    )


def linear_datamodelling_score(influences: Array, sets: Sets, outputs: Array) -> Array:
    """Spearman correlation (M', C), over the sets, of Σ_{i∈S} τ_i(x) with the outputs f_S(x); NaN where either is constant.

    Args:
        influences: (M', M, C) of :func:`kerneltrack.regression.influence`, or of any other attribution that adds up.
        sets: (K, M) of :func:`half_sets`.
        outputs: (K, M', C) of models trained on each set: of :func:`refitted`, or of networks.

    Raises:
        RegressionError: shapes that do not fit.
    """
    _check(sets, influences.shape[1])
    if outputs.shape != (len(sets), influences.shape[0], influences.shape[2]):
        expected = (len(sets), influences.shape[0], influences.shape[2])
        raise RegressionError("outputs of the models trained on each set", expected=expected, got=outputs.shape)
    from scipy.stats import spearmanr  # loading it takes a second that only a score needs

    told = np.einsum("xic,ki->kxc", influences, sets)
    constant = (np.ptp(told, axis=0) == 0) | (np.ptp(outputs, axis=0) == 0)
    score = np.full(constant.shape, np.nan)
    for x, c in zip(*np.nonzero(~constant), strict=True):
        score[x, c] = spearmanr(told[:, x, c], outputs[:, x, c]).statistic
    return score


def _check(sets: Sets, rows: int) -> None:
    if sets.ndim != 2 or sets.shape[1] != rows or sets.dtype != np.bool_:
        raise RegressionError("sets of rows", expected=f"(K, {rows}) of True and False", got=(sets.shape, sets.dtype))
