"""How far a kernel has moved between two snapshots of the same probe.

Kernels are compared with their first two axes over the probe's points, entry by entry, as they were measured or as VΛVᵀ
where only complete eigensystems are available. Nothing here subtracts two nearly equal numbers: a lazy kernel moves by
less than the rounding of 1 − cos.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, norm, permuted
from kerneltrack.observables.kernel_sums import KernelSums, independence, squared_difference
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State, epsilon_of


def kernel_distance(a: Array, b: Array) -> float:
    """S = 1 − ⟨A, B⟩_F/(‖A‖_F ‖B‖_F), in [0, 1] for positive kernels; blind to scale. Fort et al. 2020.

    Computed as ½‖A/‖A‖ − B/‖B‖‖², the same number without its cancellation.
    """
    return _distance(KernelSums(a), KernelSums(b))


def _distance(a: KernelSums, b: KernelSums, *, centred: bool = False) -> float:
    """The same of HAH and HBH, where they are ``centred``."""
    sizes = (a.centred_norm, b.centred_norm) if centred else (a.norm, b.norm)
    if not all(sizes):
        return float("nan")
    return squared_difference(a, b, sizes[0] / sizes[1], centred=centred) / (2 * sizes[0] ** 2)


def kernel_angle(a: Array, b: Array) -> float:
    """Angle arccos ⟨A, B⟩_F/(‖A‖_F ‖B‖_F) = 2 arcsin √(S/2) in radians, of polar dynamics. Tsilivis and Kempe 2022."""
    return _angle(kernel_distance(a, b))


def _angle(distance: float) -> float:
    return float(2 * np.arcsin(np.sqrt(np.clip(distance / 2, 0.0, 1.0))))


def angular_velocity(a: Array, b: Array, lag: float) -> float:
    """ω_Δ = arccos(⟨A, B⟩_F/(‖A‖_F ‖B‖_F))/Δ in radians per update, A and B the kernels Δ updates apart.

    Where the kernel turns steadily by ω < π/Δ an update it is ω whatever Δ; on an orbit of period 2 it is the angle between
    both phases at Δ = 1 and 0 at Δ = 2. Numbers of different Δ are therefore not compared. After Fort et al. 2020.
    """
    return kernel_angle(a, b) / lag


def turn_is_rounding(angle: float, dtype: object) -> bool:
    """Whether a kernel in this dtype may seem to turn by so much and stand still: by eight roundings of every entry."""
    return angle <= 8 * epsilon_of(dtype)


def relative_kernel_change(kernel: Array, reference: Array) -> float:
    """‖Θ_t − Θ_0‖_F/‖Θ_0‖_F: 0 if lazy, of order 1 once features are learned. Chizat et al. 2019."""
    size = norm(reference)
    return norm(kernel - reference) / size if size else float("nan")


def centred_kernel(kernel: Array) -> Array:
    """HΘH: each output block (N, N) less the means of its rows and columns. Axes 0 and 1 run over the probe."""
    sums = KernelSums(kernel)
    centred: Array = kernel - sums.row_means
    centred -= sums.other_means
    return centred


def cka(a: Array, b: Array) -> float:
    """Centred kernel alignment ⟨HAH, HBH⟩_F/(‖HAH‖_F ‖HBH‖_F), in [0, 1]. Cortes et al. 2012; Kornblith et al. 2019.

    Biased upwards where N is not large against the effective rank; :func:`unbiased_cka` is not.
    """
    return 1.0 - _distance(KernelSums(a), KernelSums(b), centred=True)


def unbiased_cka(a: Array, b: Array) -> float:
    """CKA from the unbiased estimator of HSIC, which may fall below zero. Song et al. 2012; Nguyen et al. 2021.

    HSIC_1(A, B) is the mean of A_ij (B_ij + B_qr − B_iq − B_qj) over all different i, j, q, r, and CKA = HSIC_1(A, B)/
    √(HSIC_1(A, A) HSIC_1(B, B)). Kernels come in uncentred; of a kernel with output axes HSIC_1 is the sum over them. Its
    mean over permutations of the points is zero.

    Raises:
        ObservableError: fewer than four points, or kernels whose first two axes are not the points.
    """
    return _unbiased_cka(KernelSums(a), KernelSums(b))


def _unbiased_cka(a: KernelSums, b: KernelSums) -> float:
    shape, other = a.kernel.shape, b.kernel.shape
    if len(shape) < 2 or shape != other or shape[0] != shape[1] or shape[0] < 4:
        raise ObservableError("unbiased CKA", expected="two kernels (N, N, …), N at least 4", got=(shape, other))
    own = a.independence * b.independence
    return float(independence(a, b) / np.sqrt(own)) if own > 0 else float("nan")


def permuted_cka(a: Array, b: Array) -> float:
    """Exact mean of :func:`cka` over all permutations of one kernel's points: what two unrelated kernels have.

    Of centred kernels (N, N) it is tr(HAH) tr(HBH)/((N−1)‖HAH‖_F ‖HBH‖_F) = √(PR(HAH) PR(HBH))/(N−1), PR = tr²/‖·‖_F²; with
    output axes tr is the trace over points, and the product the sum over outputs.
    """
    return _permuted_cka(KernelSums(a), KernelSums(b))


def _permuted_cka(a: KernelSums, b: KernelSums) -> float:
    scale = a.centred_norm * b.centred_norm * (len(a) - 1)
    return float(np.vdot(a.centred_trace, b.centred_trace)) / scale if scale else float("nan")


def _kernels(state: State, other: State | None) -> tuple[KernelSums, KernelSums]:
    """Both kernels in one form, axes 0 and 1 over the probe: as measured, or put together from all eigenpairs."""
    if other is None:
        raise ObservableError("there is no other snapshot to compare with")
    if state.kernel is not None and other.kernel is not None:
        there = beside(other.kernel, state.kernel)
        return state.kernel_sums, other.kernel_sums if there is other.kernel else KernelSums(there)
    if state.eigensystem.complete and other.eigensystem.complete:
        return state.once(f"both assembled, {id(other)}", lambda: _both_assembled(state, other))
    raise ObservableError("needs both kernels, or all eigenpairs of both")


def _both_assembled(state: State, other: State) -> tuple[KernelSums, KernelSums]:
    mine = _assembled(state)
    return KernelSums(mine), KernelSums(beside(_assembled(other), mine))


def kernel_of(state: State) -> Array:
    """The kernel, axes 0 and 1 over the probe: as measured, or put together from all eigenpairs.

    Raises:
        ObservableError: neither is available.
    """
    if state.kernel is not None:
        return state.kernel
    if not state.eigensystem.complete:
        raise ObservableError("neither the kernel nor all eigenpairs are available")
    kernel = _assembled(state)
    return kernel[:, :, 0, 0] if state.reduction in ("trace", "sum") else kernel


def _assembled(state: State) -> Array:
    n, k = state.samples, state.kernel_outputs
    kernel: Array = permuted(state.eigensystem.matrix().reshape(n, k, n, k), (0, 2, 1, 3))
    return kernel


def _angular_velocity(state: State) -> float:
    """ω_Δ of the way that led here: a row is stored before the state Δ updates later exists, and never written again."""
    lag = state.settings.get("lag")
    if not lag:
        raise ObservableError("the run's lag is unknown")
    return _angle(_distance_from(state, state.lagged)) / float(lag)


def _distance_from(state: State, other: State | None) -> float:
    """Of both kernels; the state before this one may be the one at the lag too."""
    return state.once(f"distance, {id(other)}", lambda: _distance(*_kernels(state, other)))


def _radius(state: State) -> float:
    return state.once("radius", lambda: float(np.sqrt(squared_difference(*_kernels(state, state.initial)))))


def _relative_change(state: State) -> float:
    """:func:`relative_kernel_change`, whose numerator is a number of its own."""
    size = _kernels(state, state.initial)[1].norm
    return _radius(state) / size if size else float("nan")


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "kernel_distance_from_initial", lambda s: _distance_from(s, s.initial),
        "1 − ⟨Θ_t, Θ_0⟩_F/(‖Θ_t‖_F ‖Θ_0‖_F)", "matrix", "initial", source="Fort et al. 2020",
        long_name="kernel distance from initialisation",
    ),
    observable(
        "relative_kernel_change", _relative_change, "‖Θ_t − Θ_0‖_F/‖Θ_0‖_F",
        "matrix", "initial", source="Chizat, Oyallon and Bach 2019", long_name="relative change of the kernel",
    ),
    observable(
        "kernel_angle_from_initial", lambda s: _angle(_distance_from(s, s.initial)),
        "arccos(⟨Θ_t, Θ_0⟩_F/(‖Θ_t‖_F ‖Θ_0‖_F))", "matrix", "initial", units="rad", source="Tsilivis and Kempe 2022",
        long_name="angle of the kernel with initialisation (polar dynamics)",
    ),
    observable(
        "kernel_radius_from_initial", _radius,
        "‖Θ_t − Θ_0‖_F", "matrix", "initial", source="Tsilivis and Kempe 2022",
        long_name="distance of the kernel from initialisation (polar dynamics, not yet divided by the last one)",
    ),
    observable(
        "kernel_distance_from_previous", lambda s: _distance_from(s, s.previous),
        "1 − ⟨Θ_t, Θ_s⟩_F/(‖Θ_t‖_F ‖Θ_s‖_F), s the snapshot before", "matrix", "previous", source="Fort et al. 2020",
        long_name="kernel distance from the snapshot before",
    ),
    observable(
        "kernel_angular_velocity", _angular_velocity,
        "arccos(⟨Θ_t, Θ_{t−Δ}⟩_F/(‖Θ_t‖_F ‖Θ_{t−Δ}‖_F))/Δ, Δ the gap of the run's first two snapshots; NaN unless one was "
        "taken Δ updates earlier", "matrix", "lagged", units="rad/step",
        source="Fort et al. 2020 (there the distance, per epoch)", long_name="angular velocity of the kernel at one lag",
    ),
    observable(
        "cka_with_initial", lambda s: 1.0 - _distance(*_kernels(s, s.initial), centred=True),
        "⟨HΘ_tH, HΘ_0H⟩_F/(‖HΘ_tH‖_F ‖HΘ_0H‖_F)",
        "matrix", "initial", source="Kornblith et al. 2019", long_name="centred alignment with the initial kernel",
    ),
    observable(
        "cka_with_initial_null", lambda s: _permuted_cka(*_kernels(s, s.initial)),
        "exact mean over all permutations of the points of Θ_0", "matrix", "initial",
        long_name="mean centred alignment with the initial kernel of permuted points",
    ),
    observable(
        "cka_with_initial_unbiased", lambda s: _unbiased_cka(*_kernels(s, s.initial)),
        "HSIC_1(Θ_t, Θ_0)/√(HSIC_1(Θ_t, Θ_t) HSIC_1(Θ_0, Θ_0)); its mean over permuted points is 0", "matrix", "initial",
        source="Nguyen, Raghu and Kornblith 2021", definition=2,
        long_name="centred alignment with the initial kernel, unbiased",
    ),
)  # fmt: skip
