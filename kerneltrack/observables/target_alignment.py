"""Kernel–target alignment: the cosine of the kernel with YYᵀ, always beside its mean over permuted targets.

A network of several outputs has two of them, which differ by up to a factor O. Without further words it is the alignment of
Θ(n, m) = Σ_o Θ_oo with YYᵀ, one number per pair of points on both sides, whatever reduction was measured. *Flattened* it is
that of the whole kernel, rows (n, o), with y as one long vector (Baratin et al. 2021): the other outputs' blocks stand in its
norm, and a kernel YYᵀ ⊗ I_O has 1/O.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, norm, to_numpy, trace
from kerneltrack.observables.alignment import centre, centred_frobenius, kernel_target_alignment, permuted_squares
from kerneltrack.observables.classes import pair_kernel
from kerneltrack.observables.motion import centred_kernel, kernel_of
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State

_FORMULA = "⟨Θ, YYᵀ⟩_F/(‖Θ‖_F ‖YYᵀ‖_F), Θ = Σ_o Θ_oo"
_CENTRED = "⟨HΘH, YYᵀ⟩_F/(‖HΘH‖_F ‖HYYᵀH‖_F), Θ = Σ_o Θ_oo"
_FLAT = "yᵀΘy/(‖Θ‖_F ‖y‖²), y one vector over points and outputs"
_FLAT_CENTRED = "yᵀHΘHy/(‖HΘH‖_F ‖Hy‖²), y one vector over points and outputs"
_PERMUTED = "exact mean over all permutations of the points' targets"


def pair_alignment(kernel: Array, targets: Array) -> float:
    """⟨K, YYᵀ⟩_F/(‖K‖_F ‖YYᵀ‖_F) of a kernel (N, N) and targets (N, C); NaN where one is zero. Cristianini et al. 2001."""
    scale = norm(kernel) * norm(targets.T @ targets)
    if not scale:
        return float("nan")
    return float(np.vdot(targets, to_numpy(kernel @ beside(targets, kernel)))) / scale


def permuted_pair_alignment(kernel: Array, targets: Array) -> float:
    """Its exact mean over all permutations of the points' targets.

    A permutation leaves ‖YYᵀ‖ alone. Of ⟨K, πYYᵀπᵀ⟩ it averages the diagonal of YYᵀ to a = Σ_n‖y_n‖²/N and the rest to
    b = (‖Σ_n y_n‖² − Σ_n‖y_n‖²)/(N(N − 1)), so that the mean is a tr K + b (1ᵀK1 − tr K). Of a centred kernel and centred
    targets, that over the norms is √(PR(K) PR(YYᵀ))/(N − 1), with the participation ratio PR = tr²/‖·‖_F².

    Args:
        kernel: (N, N).
        targets: (N, C).
    """
    samples, same_points = len(kernel), trace(kernel)
    scale = norm(kernel) * norm(targets.T @ targets)
    if not scale:
        return float("nan")
    squares, total = float(np.vdot(targets, targets)), targets.sum(axis=0)
    same = squares / samples
    different = (float(total @ total) - squares) / max(samples * (samples - 1), 1)
    return (same * same_points + different * (float(kernel.sum()) - same_points)) / scale


def aligned(state: State, kernel: Array, statistic: Callable[[Array, Array], float], *, centred: bool = False) -> float:
    """:func:`pair_alignment` or its mean of any kernel of this state's shape, with this state's targets.

    Args:
        state: whose reduction the kernel has.
        kernel: in its reduced shape, (N, N), (N, N, O) or (N, N, O, O).
        statistic: (kernel (N, N), targets (N, C)) → number.
        centred: whether the means of rows and columns, and of each target, are taken off.

    Raises:
        ObservableError: there are no targets, or they have no direction.
    """
    targets, pairs = _targets(state, centred=centred), pair_kernel(kernel)
    return statistic(centred_kernel(pairs) if centred else pairs, _seen(state, targets))


def _seen(state: State, targets: Array) -> Array:
    """The targets as a kernel of pairs meets them."""
    return targets.sum(axis=1, keepdims=True) if state.reduction == "sum" else targets


def _targets(state: State, *, centred: bool) -> Array:
    if state.targets is None:
        raise ObservableError("there are no targets")
    targets = centre(state.targets) if centred else state.targets
    if state.is_rounding(targets, state.targets):
        raise ObservableError("the targets are constant, so they have no direction")
    return targets


def _own(statistic: Callable[[Array, Array], float], *, centred: bool = False) -> Callable[[State], float]:
    """Of the state's own kernel, whose pairs four observables share."""

    def compute(state: State) -> float:
        targets = _targets(state, centred=centred)
        pairs = state.once("pairs", lambda: pair_kernel(kernel_of(state)))
        if centred:
            pairs = state.once("centred pairs", lambda: centred_kernel(pairs))
        return statistic(pairs, _seen(state, targets))

    return compute


def _flattened(state: State, *, centred: bool, permuted: bool) -> float:
    if state.reduction == "trace" and state.outputs.shape[1] > 1:
        raise ObservableError('needs output="full" or "diagonal"')
    targets, pairs = _targets(state, centred=centred), state.eigensystem
    column = state.project(targets)
    squared = float(np.vdot(column, column))
    frobenius = centred_frobenius(pairs.values, state.mode_sums, state.samples) if centred else pairs.frobenius
    if not permuted:
        return kernel_target_alignment(pairs.values, state.along(column), frobenius, squared)
    squares = permuted_squares(pairs.vectors, targets, state.reduction)
    return float(pairs.values @ squares) / (frobenius * squared) if frobenius * squared else float("nan")


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "kernel_target_alignment", _own(pair_alignment), _FORMULA, "spectrum", "targets",
        source="Cristianini et al. 2001", definition=2, long_name="kernel–target alignment",
    ),
    observable(
        "kernel_target_alignment_null", _own(permuted_pair_alignment), _PERMUTED, "spectrum", "targets",
        long_name="mean kernel–target alignment of permuted targets",
    ),
    observable(
        "kernel_target_alignment_centred", _own(pair_alignment, centred=True), _CENTRED, "spectrum", "targets",
        source="Cortes, Mohri and Rostamizadeh 2012", definition=2, long_name="centred kernel–target alignment",
    ),
    observable(
        "kernel_target_alignment_centred_null", _own(permuted_pair_alignment, centred=True), _PERMUTED,
        "spectrum", "targets", long_name="mean centred kernel–target alignment of permuted targets",
    ),
    observable(
        "kernel_target_alignment_flattened", lambda s: _flattened(s, centred=False, permuted=False), _FLAT,
        "spectrum", "targets", source="Baratin et al. 2021", default=False,
        long_name="kernel–target alignment, flattened",
    ),
    observable(
        "kernel_target_alignment_flattened_null", lambda s: _flattened(s, centred=False, permuted=True), _PERMUTED,
        "spectrum", "targets", default=False, long_name="mean flattened kernel–target alignment of permuted targets",
    ),
    observable(
        "kernel_target_alignment_centred_flattened", lambda s: _flattened(s, centred=True, permuted=False),
        _FLAT_CENTRED, "spectrum", "targets", source="Baratin et al. 2021", default=False,
        long_name="centred kernel–target alignment, flattened",
    ),
    observable(
        "kernel_target_alignment_centred_flattened_null", lambda s: _flattened(s, centred=True, permuted=True),
        _PERMUTED, "spectrum", "targets", default=False,
        long_name="mean centred flattened kernel–target alignment of permuted targets",
    ),
)  # fmt: skip
