"""The conjugate kernel K_CK = φφᵀ of the last hidden layer: the part of Θ that a linear readout alone would have.

φ (N, m) are the inputs of the linear readout, so that Θ = K_CK ⊗ I_O + (bias and the layers below); a bias that trains adds
11ᵀ ⊗ I_O. Qadeer et al. 2023 (arXiv 2310.18612) ask how much of what Θ predicts is in it.
"""

from __future__ import annotations

from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside, eigenvalues, trace
from kerneltrack.observables.motion import kernel_distance
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.spectral import effective_rank
from kerneltrack.observables.state import Array, State
from kerneltrack.observables.target_alignment import pair_alignment, permuted_pair_alignment

_SOURCE = "Qadeer et al. 2023"


def _kernel(state: State | None) -> Array:
    if state is None or state.conjugate is None:
        raise ObservableError("the conjugate kernel was not measured in one of the two states")
    return state.conjugate


def _share(state: State, *, with_bias: bool = False) -> float:
    if state.reduction == "callable":
        raise ObservableError("the readout's share of the kernel of g(f) is not that of f")
    known, conjugate = state.readout_parameters, _kernel(state)
    if known is None:
        raise ObservableError("what of the readout the kernel is of was not measured")
    if "weight" not in known and not (with_bias and known):
        raise ObservableError("the readout's weights are not among the kernel's parameters")
    weights = trace(conjugate) if "weight" in known else 0.0
    bias = float(state.samples) if with_bias and "bias" in known else 0.0
    # Every reduction keeps the sum over outputs of the diagonal: the readout gives each output the same kernel. In a gauge
    # that is this kernel ⊗ C, and tr C = O − 1.
    outputs = state.network_outputs - (state.gauge == "softmax")
    return float(outputs * (weights + bias) / state.eigensystem.trace)


def _targets(state: State) -> Array:
    if state.targets is None:
        raise ObservableError("there are no targets")
    return state.targets


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "conjugate_kernel",
        lambda s: _kernel(s),
        "K_CK = φφᵀ, φ (N, m) the inputs of the linear readout",
        "conjugate",
        source=_SOURCE,
        dims=("sample", "sample_2"),
        default=False,
        long_name="conjugate kernel of the last hidden layer",
    ),
    observable(
        "conjugate_kernel_share",
        _share,
        "tr(K_CK ⊗ I_O)/tr Θ",
        "conjugate",
        source=_SOURCE,
        default=False,
        definition=2,
        long_name="share of the conjugate kernel, the readout's weights, in the trace",
    ),
    observable(
        "conjugate_kernel_share_with_bias",
        lambda s: _share(s, with_bias=True),
        "tr((K_CK + 11ᵀ) ⊗ I_O)/tr Θ, 11ᵀ where the readout has a bias that the kernel is of",
        "conjugate",
        source=_SOURCE,
        default=False,
        long_name="share of the readout, weights and bias, in the trace",
    ),
    observable(
        "conjugate_kernel_effective_rank",
        lambda s: effective_rank(eigenvalues(_kernel(s))[::-1]),
        "exp(−Σ_i p_i ln p_i), p_i = λ_i/Σ_j λ_j of K_CK",
        "conjugate",
        source="Roy and Vetterli 2007",
        default=False,
        long_name="effective rank of the conjugate kernel",
    ),
    observable(
        "conjugate_kernel_target_alignment",
        lambda s: pair_alignment(_kernel(s), _targets(s)),
        "⟨K_CK, YYᵀ⟩_F/(‖K_CK‖_F ‖YYᵀ‖_F)",
        "conjugate",
        "targets",
        source="Cristianini et al. 2001",
        default=False,
        long_name="alignment of the conjugate kernel with the target",
    ),
    observable(
        "conjugate_kernel_target_alignment_null",
        lambda s: permuted_pair_alignment(_kernel(s), _targets(s)),
        "exact mean over all permutations of the points' targets",
        "conjugate",
        "targets",
        default=False,
        long_name="mean alignment of the conjugate kernel with permuted targets",
    ),
    observable(
        "conjugate_kernel_distance_from_initial",
        lambda s: kernel_distance(_kernel(s), beside(_kernel(s.initial), _kernel(s))),
        "1 − ⟨K_CK(t), K_CK(0)⟩_F/(‖K_CK(t)‖_F ‖K_CK(0)‖_F)",
        "conjugate",
        "initial",
        source="Fort et al. 2020",
        default=False,
        long_name="distance of the conjugate kernel from initialisation",
    ),
)
