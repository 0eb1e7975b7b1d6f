"""Which layers the kernel comes from. Θ = Σ_l Θ_l exactly, with one term for the parameters of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, einsum, norm, to_numpy
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.state import Array, State
from kerneltrack.observables.target_alignment import aligned, pair_alignment, permuted_pair_alignment

_PERMUTED = "exact mean over all permutations of the points' targets"


def shares(parts: Mapping[str, float]) -> Array:
    """Each part over the sum of all, in their order."""
    values = np.array(list(parts.values()), dtype=np.float64)
    total = values.sum()
    return np.asarray(values / total) if total else np.full_like(values, np.nan)


def _traces(state: State) -> Mapping[str, float]:
    if state.layer_traces is None:
        raise ObservableError("the traces of the layers were not measured")
    return state.layer_traces


def _kernels(state: State) -> Mapping[str, Array]:
    if state.layer_kernels is None:
        raise ObservableError("the kernels of the layers were not measured")
    return state.layer_kernels


def quadratic_form(kernel: Array, phi: Array) -> float:
    """⟨Θ, ΦΦᵀ⟩ of a kernel in its reduced shape with a function φ (N, O), without forming the kernel matrix.

    (N, N, O, O): Σ φ[n, o] Θ[n, m, o, p] φ[m, p]; (N, N, O): its terms with o = p; (N, N): Σ_o φ_oᵀ Θ φ_o.
    """
    if kernel.ndim == 4:
        return float(einsum("no,nmop,mp->", phi, kernel, phi, optimize=True))
    if kernel.ndim == 3:
        return float(einsum("no,nmo,mo->", phi, kernel, phi, optimize=True))
    return float(np.vdot(phi, to_numpy(kernel @ beside(phi, kernel))))


def _stacked(state: State) -> Array:
    kernels = [to_numpy(kernel) for kernel in _kernels(state).values()]
    return np.stack([kernel.reshape(*kernel.shape, *(1,) * (4 - kernel.ndim)) for kernel in kernels])


def _alignments(state: State, statistic: Callable[[Array, Array], float], *, centred: bool = False) -> Array:
    return np.array([aligned(state, kernel, statistic, centred=centred) for kernel in _kernels(state).values()])


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "layer_trace", lambda s: np.array(list(_traces(s).values())), "tr Θ_l, Θ = Σ_l Θ_l", "layers", dims=("layer",),
        default=False, long_name="trace of each layer's kernel",
    ),
    observable(
        "layer_share", lambda s: shares(_traces(s)), "tr Θ_l/tr Θ", "layers", source="Baratin et al. 2021",
        dims=("layer",), long_name="share of each layer in the trace of the kernel",
    ),
    observable(
        "layer_kernel", _stacked, "Θ_l[n, m, o, p], Θ = Σ_l Θ_l", "layer_kernels",
        dims=("layer", "sample", "sample_2", "kernel_output", "kernel_output_2"), default=False,
        long_name="kernel of each layer",
    ),
    observable(
        "layer_frobenius", lambda s: np.array([norm(kernel) for kernel in _kernels(s).values()]), "‖Θ_l‖_F",
        "layer_kernels", dims=("layer",), default=False, long_name="Frobenius norm of each layer's kernel",
    ),
    observable(
        "layer_target_alignment", lambda s: _alignments(s, pair_alignment),
        "⟨Θ_l, YYᵀ⟩_F/(‖Θ_l‖_F ‖YYᵀ‖_F), Θ_l summed over outputs", "layer_kernels", "targets",
        source="Baratin et al. 2021 (there flattened)", dims=("layer",), default=False, definition=2,
        long_name="kernel–target alignment of each layer",
    ),
    observable(
        "layer_target_alignment_null", lambda s: _alignments(s, permuted_pair_alignment), _PERMUTED,
        "layer_kernels", "targets", dims=("layer",), default=False,
        long_name="mean kernel–target alignment of each layer, of permuted targets",
    ),
    observable(
        "layer_target_alignment_centred", lambda s: _alignments(s, pair_alignment, centred=True),
        "⟨HΘ_lH, YYᵀ⟩_F/(‖HΘ_lH‖_F ‖HYYᵀH‖_F), Θ_l summed over outputs", "layer_kernels", "targets",
        source="Baratin et al. 2021 (there flattened)", dims=("layer",), default=False, definition=2,
        long_name="centred kernel–target alignment of each layer",
    ),
    observable(
        "layer_target_alignment_centred_null", lambda s: _alignments(s, permuted_pair_alignment, centred=True),
        _PERMUTED, "layer_kernels", "targets", dims=("layer",), default=False,
        long_name="mean centred kernel–target alignment of each layer, of permuted targets",
    ),
)  # fmt: skip
