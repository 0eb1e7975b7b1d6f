"""How the span of the leading eigenvectors turns between two snapshots.

Read it beside ``gap``: a span whose gap is small is not determined by the kernel (Davis and Kahan 1970), and turns for
no reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from kerneltrack.errors import ObservableError
from kerneltrack.observables.datasets import energy_k
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State


def subspace_overlap(vectors: Array, others: Array, k: Sequence[int]) -> Array:
    """O_k = ‖U_kᵀ W_k‖_F²/k at each k, in [0, 1]: 1 where both spans agree, k/M for random ones. Gur-Ari et al. 2018.

    All M columns span everything: O_M = 1 without a product, which would be most of the work.

    Args:
        vectors: (M, ≥ max k) orthonormal columns U.
        others: (M, ≥ max k) orthonormal columns W.
        k: numbers of leading columns.
    """
    size = len(vectors)
    reach = max((m for m in k if m < size), default=0)
    squares = (vectors[:, :reach].T @ others[:, :reach]) ** 2
    return np.array([1.0 if m == size else squares[:m, :m].sum() / m for m in k])


def largest_principal_angle(vectors: Array, others: Array, k: Sequence[int]) -> Array:
    """θ_max between the spans of the first k columns at each k, in radians, in [0, π/2]. Björck and Golub 1973.

    Small angles come from sines and large ones from cosines, so that neither loses its digits.
    """
    return np.array([np.max(scipy.linalg.subspace_angles(vectors[:, :m], others[:, :m])) for m in k])


def _vectors(state: State, other: State | None) -> tuple[Array, Array, tuple[int, ...]]:
    if other is None or other.eigensystem.size != state.eigensystem.size:
        raise ObservableError("there is no other snapshot of this probe to compare with")
    modes, others = state.eigensystem.vectors, other.eigensystem.vectors
    if others.shape[1] < modes.shape[1]:
        raise ObservableError("the other snapshot has fewer eigenvectors", expected=modes.shape[1], got=others.shape[1])
    return modes, others, energy_k(modes.shape[1])


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "subspace_overlap_with_initial",
        lambda s: subspace_overlap(*_vectors(s, s.initial)),
        "‖U_k(t)ᵀ U_k(0)‖_F²/k, U_k the first k eigenvectors; k/M for random ones",
        "eigenvectors",
        "initial",
        source="Gur-Ari, Roberts and Dyer 2018",
        dims=("energy_k",),
        long_name="overlap of the first k eigenvectors with the initial ones",
    ),
    observable(
        "subspace_overlap_with_previous",
        lambda s: subspace_overlap(*_vectors(s, s.previous)),
        "‖U_k(t)ᵀ U_k(s)‖_F²/k, s the snapshot before",
        "eigenvectors",
        "previous",
        source="Gur-Ari, Roberts and Dyer 2018",
        dims=("energy_k",),
        long_name="overlap of the first k eigenvectors with those before",
    ),
    observable(
        "principal_angle_with_initial",
        lambda s: largest_principal_angle(*_vectors(s, s.initial)),
        "arccos σ_min(U_k(t)ᵀ U_k(0))",
        "eigenvectors",
        "initial",
        units="rad",
        source="Björck and Golub 1973",
        dims=("energy_k",),
        default=False,
        long_name="largest principal angle of the first k eigenvectors with the initial ones",
    ),
)
