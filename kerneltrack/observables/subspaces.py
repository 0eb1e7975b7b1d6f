"""How the span of the leading eigenvectors turns between two snapshots.

A span that cuts a cluster of equal eigenvalues is not determined by its kernel: NaN. Where the gap behind it is small it
turns at a small change of the kernel; ``subspace_rotation_bound`` says how far that change lets it turn at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, eigenvalues, is_numpy, norms, singular_values
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State


def subspace_overlap(vectors: Array, others: Array, k: Sequence[int]) -> Array:
    """O_k = ‖U_kᵀ W_k‖_F²/k at each k, in [0, 1]: 1 where both spans agree, k/M for random ones. Gur-Ari et al. 2018.

    All M columns span everything: O_M = 1 without a product. Spans of more than half of them are compared by the other
    columns U', W', where these are given: ‖U_kᵀ W_k‖_F² = 2k − M + ‖U'ᵀ W'‖_F². The largest product would be most of the work.

    Args:
        vectors: (M, ≥ max k) orthonormal columns U.
        others: (M, ≥ max k) orthonormal columns W.
        k: numbers of leading columns.
    """
    size, inside = len(vectors), [m for m in k if m < len(vectors)]
    whole = vectors.shape[1] == others.shape[1] == size
    most = [m for m in inside if whole and 2 * m > size]
    reach, rest = max((m for m in inside if m not in most), default=0), min(most, default=size)
    leading = (vectors[:, :reach].T @ others[:, :reach]) ** 2
    others_left = (vectors[:, rest:].T @ others[:, rest:]) ** 2
    squares = {m: float(leading[:m, :m].sum()) for m in inside if m not in most}
    squares |= {m: 2 * m - size + float(others_left[m - rest :, m - rest :].sum()) for m in most}
    return np.array([squares.get(m, size) / m for m in k])


def largest_principal_angle(vectors: Array, others: Array, k: Sequence[int]) -> Array:
    """θ_max between the spans of the first k columns at each k, in radians, in [0, π/2]. Björck and Golub 1973.

    Small angles come from sines and large ones from cosines, so that neither loses its digits.
    """
    angle = _angle if is_numpy(vectors) else _angle_elsewhere
    return np.array([angle(vectors[:, :m], others[:, :m]) for m in k])


def _angle(vectors: Array, others: Array) -> float:
    return float(np.max(scipy.linalg.subspace_angles(vectors, others)))


def _angle_elsewhere(vectors: Any, others: Any) -> float:
    """The same of orthonormal columns: SciPy takes no arrays of other libraries."""
    cosines = vectors.T @ others
    smallest = float(singular_values(cosines)[-1])
    if smallest**2 < 0.5:
        return float(np.arccos(smallest))
    return float(np.arcsin(min(1.0, float(singular_values(others - vectors @ cosines)[0]))))


def rotation_bound(change: Array, before: Array, after: Array, k: Sequence[int]) -> Array:
    """min(1, ‖(Θ_t − Θ_s) U_k(s)‖₂/(λ_k(Θ_s) − λ_{k+1}(Θ_t))) at each k: at least sin θ_max. Davis and Kahan 1970.

    1 where the denominator is not positive: nothing is known then. 0 for all M modes, which span everything.

    Args:
        change: (M, ≥ max k) the columns (Θ_t − Θ_s) u_i of the first eigenvectors u_i of Θ_s; for k = M not needed.
        before: (M,) eigenvalues of Θ_s, descending.
        after: (M,) eigenvalues of Θ_t, descending.
        k: numbers of leading modes.
    """
    return _bounds(lambda reach: change[:, :reach], before, after, k)


def _bounds(columns: Callable[[int], Array], before: Array, after: Array, k: Sequence[int]) -> Array:
    """The same from columns that are formed as far as they are needed.

    ‖C‖₂ is at least the norm of any column of C: where a gap is no larger than one that is known, the bound is 1 without the
    others. The leading eigenvectors' columns are the longest, and the gaps between small eigenvalues the narrowest, so most are.
    """
    found, longest = np.ones(len(k)), 0.0
    for place, m in enumerate(k):
        gap = 0.0 if m == len(after) else before[m - 1] - after[m]
        if m == len(after):
            found[place] = 0.0
        elif gap > longest:
            change = columns(m)
            longest = float(norms(change, 0).max())
            if gap > longest:
                found[place] = min(1.0, float(np.sqrt(max(eigenvalues(change.T @ change)[-1], 0.0))) / gap)
    return found


def _bound(state: State, other: State | None) -> Array:
    _, others, grid = _vectors(state, other)
    assert other is not None
    values, before = state.eigensystem.values, other.eigensystem.values

    def columns(reach: int) -> Array:
        kernel = state.once("matrix", lambda: beside(state.kernel_matrix(), others))
        basis = others[:, :reach]
        change: Array = kernel @ basis - basis * beside(before[:reach], basis)
        return change

    return _bounds(columns, before, values, grid)


def _determined(statistic: Callable[[Array, Array, Sequence[int]], Array], state: State, other: State | None) -> Array:
    """The statistic of both spans, of as many modes; NaN where k cuts a cluster of either kernel."""
    modes, others, grid = _vectors(state, other)
    assert other is not None
    whole = [{*one.eigensystem.cluster_ends.tolist(), one.eigensystem.size} for one in (state, other)]
    kept = np.array([all(k in ends for ends in whole) for k in grid])
    if not kept.any():
        raise ObservableError("every span of leading eigenvectors cuts a cluster of equal eigenvalues")
    found = np.full(len(grid), np.nan)
    found[kept] = statistic(modes, others, np.asarray(grid)[kept].tolist())
    return found


def _vectors(state: State, other: State | None) -> tuple[Array, Array, tuple[int, ...]]:
    if other is None or other.eigensystem.size != state.eigensystem.size:
        raise ObservableError("there is no other snapshot of this probe to compare with")
    modes, others = state.eigensystem.vectors, other.eigensystem.vectors
    if others.shape[1] < modes.shape[1]:
        raise ObservableError("the other snapshot has fewer eigenvectors", expected=modes.shape[1], got=others.shape[1])
    return modes, beside(others, modes), energy_k(modes.shape[1])


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "subspace_overlap_with_initial",
        lambda s: _determined(subspace_overlap, s, s.initial),
        "‖U_k(t)ᵀ U_k(0)‖_F²/k, U_k the first k eigenvectors; k/M for random ones",
        "eigenvectors",
        "initial",
        source="Gur-Ari, Roberts and Dyer 2018",
        dims=("energy_k",),
        definition=2,
        long_name="overlap of the first k eigenvectors with the initial ones",
    ),
    observable(
        "subspace_overlap_with_previous",
        lambda s: _determined(subspace_overlap, s, s.previous),
        "‖U_k(t)ᵀ U_k(s)‖_F²/k, s the snapshot before",
        "eigenvectors",
        "previous",
        source="Gur-Ari, Roberts and Dyer 2018",
        dims=("energy_k",),
        definition=2,
        long_name="overlap of the first k eigenvectors with those before",
    ),
    observable(
        "principal_angle_with_initial",
        lambda s: _determined(largest_principal_angle, s, s.initial),
        "arccos σ_min(U_k(t)ᵀ U_k(0))",
        "eigenvectors",
        "initial",
        units="rad",
        source="Björck and Golub 1973",
        dims=("energy_k",),
        definition=2,
        default=False,
        long_name="largest principal angle of the first k eigenvectors with the initial ones",
    ),
    observable(
        "subspace_rotation_bound",
        lambda s: _bound(s, s.initial),
        "min(1, ‖(Θ_t − Θ_0) U_k(0)‖₂/(λ_k(Θ_0) − λ_{k+1}(Θ_t))); 1 where that is not positive",
        "spectrum",
        "initial",
        source="Davis and Kahan 1970",
        dims=("energy_k",),
        long_name="bound on the sine of the first k modes' rotation since initialisation",
    ),
    observable(
        "subspace_rotation_bound_previous",
        lambda s: _bound(s, s.previous),
        "min(1, ‖(Θ_t − Θ_s) U_k(s)‖₂/(λ_k(Θ_s) − λ_{k+1}(Θ_t))), s the snapshot before",
        "spectrum",
        "previous",
        source="Davis and Kahan 1970",
        dims=("energy_k",),
        default=False,
        long_name="bound on the sine of the first k modes' rotation since the snapshot before",
    ),
)
