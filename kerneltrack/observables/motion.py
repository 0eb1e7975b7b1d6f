"""How far a kernel has moved between two snapshots of the same probe.

Kernels are compared in their reduced shape, entry by entry, or as matrices VΛVᵀ where only complete
eigensystems are at hand. Nothing here subtracts two nearly equal numbers: a lazy kernel moves by less than
the rounding of 1 − cos.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State


def kernel_distance(a: Array, b: Array) -> float:
    """S = 1 − ⟨A, B⟩_F/(‖A‖_F ‖B‖_F), in [0, 1] for positive kernels; blind to scale. Fort et al. 2020.

    Computed as ½‖A/‖A‖ − B/‖B‖‖², the same number without its cancellation.
    """
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    if not (norm_a and norm_b):
        return float("nan")
    return float(np.sum((a / norm_a - b / norm_b) ** 2) / 2)


def relative_kernel_change(kernel: Array, reference: Array) -> float:
    """‖Θ_t − Θ_0‖_F/‖Θ_0‖_F: 0 if lazy, of order 1 once features are learned. Chizat et al. 2019."""
    norm = np.linalg.norm(reference)
    return float(np.linalg.norm(kernel - reference) / norm) if norm else float("nan")


def _kernels(state: State, other: State | None) -> tuple[Array, Array]:
    """Both kernels in one form: as they were measured, or put together from complete eigensystems."""
    if other is None:
        raise ObservableError("there is no other snapshot to compare with")
    if state.kernel is not None and other.kernel is not None:
        return state.kernel, other.kernel
    if state.eigensystem.complete and other.eigensystem.complete:
        return state.eigensystem.matrix(), other.eigensystem.matrix()
    raise ObservableError("neither both kernels nor all eigenpairs of both are at hand")


OBSERVABLES = (
    observable(
        "kernel_distance_from_initial",
        lambda s: kernel_distance(*_kernels(s, s.initial)),
        "1 − ⟨Θ_t, Θ_0⟩_F/(‖Θ_t‖_F ‖Θ_0‖_F)",
        "spectrum",
        "initial",
        source="Fort et al. 2020",
        long_name="kernel distance from initialisation",
    ),
    observable(
        "relative_kernel_change",
        lambda s: relative_kernel_change(*_kernels(s, s.initial)),
        "‖Θ_t − Θ_0‖_F/‖Θ_0‖_F",
        "spectrum",
        "initial",
        source="Chizat, Oyallon and Bach 2019",
        long_name="relative change of the kernel",
    ),
)
