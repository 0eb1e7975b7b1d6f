"""The optimizer's kernel J P_t Jᵀ: the kernel in the metric of the coming update, P_t its diagonal preconditioner.

For one learning rate it is ηΘ. For Adam P_t = η/(√v̂ + ε) with the second moments v̂ as the optimizer holds them at θ_t:
then its modes are not Θ's, and they are the ones that learning follows.
"""

from __future__ import annotations

import numpy as np

from kerneltrack.conventions import Momentum, groups
from kerneltrack.errors import ObservableError
from kerneltrack.linear_algebra import beside
from kerneltrack.observables.modes import mode_curvature
from kerneltrack.observables.motion import kernel_distance
from kerneltrack.observables.observable import Observable, observable
from kerneltrack.observables.spectral import effective_rank, participation_ratio
from kerneltrack.observables.state import Array, State
from kerneltrack.observables.target_alignment import aligned, pair_alignment, permuted_pair_alignment
from kerneltrack.spectrum import EigenSystem, solved

_SOURCE = "Cohen et al. 2022"
SPECTRUM_OF = "the optimizer's kernel"
#: A mode is slow where the gradient moves by less than this share while momentum remembers it.
_SLOW = 0.1


def _kernel(state: State) -> Array:
    if state.optimizer_kernel is None:
        raise ObservableError("the optimizer's kernel was not measured")
    return state.optimizer_kernel


def _eigenvalues(state: State) -> Array:
    """As many as the state has of its own kernel."""
    return _ranks(state).values[: len(state.eigensystem.values)]


def _ranks(state: State) -> EigenSystem:
    """Of the optimizer's kernel, once for all its ranks."""
    return state.once("optimizer kernel", lambda: solved(_kernel(state)))


def _distance(state: State) -> float:
    if state.kernel is None:
        raise ObservableError("the kernel itself is not available")
    return kernel_distance(_kernel(state), beside(state.kernel, _kernel(state)))


def _momentum(state: State) -> Momentum:
    """The one momentum of all parameter groups."""
    told = list(groups(state.settings.get("optimizers", ())))
    if any(group.get("weight_decay") for _, group in told):
        raise ObservableError("weight decay moves the outputs too")
    found = {Momentum.of(name, group) for name, group in told} or {Momentum()}
    momentum = found.pop()
    if found or momentum is None:
        raise ObservableError("the momentum of the update is not known, or not one")
    return momentum


def _factor(state: State) -> Array:
    """A mode's coefficient shrinks by q = s g λ_i/N an update, up to a relative q β/(1 − β): NaN where that is not small."""
    momentum = _momentum(state)
    speeds = mode_curvature(state) * momentum.gain() * _eigenvalues(state) / state.samples
    slow = speeds * momentum.beta <= _SLOW * (1 - momentum.beta)
    return np.asarray(np.where(slow, np.abs(1 - speeds), np.nan))


OBSERVABLES: tuple[Observable, ...] = (
    observable(
        "optimizer_eigenvalues",
        _eigenvalues,
        "λ_i(J P_t Jᵀ)",
        "optimizer_kernel",
        source=_SOURCE,
        dims=("mode",),
        spectrum_of=SPECTRUM_OF,
        default=False,
        long_name="eigenvalues of the optimizer's kernel",
    ),
    observable(
        "optimizer_effective_rank",
        lambda s: effective_rank(_ranks(s).values, _ranks(s).noise_floor),
        "exp(−Σ_i p_i ln p_i) over λ_i(J P_t Jᵀ) > noise_floor, p_i = λ_i/tr",
        "optimizer_kernel",
        source="Roy and Vetterli 2007",
        spectrum_of=SPECTRUM_OF,
        default=False,
        long_name="effective rank of the optimizer's kernel",
    ),
    observable(
        "optimizer_participation_ratio",
        lambda s: participation_ratio(_ranks(s).trace, _ranks(s).frobenius),
        "(tr J P_t Jᵀ)²/‖J P_t Jᵀ‖_F²",
        "optimizer_kernel",
        spectrum_of=SPECTRUM_OF,
        default=False,
        long_name="participation ratio of the optimizer's kernel",
    ),
    observable(
        "optimizer_factor",
        _factor,
        "|1 − s g λ_i(J P_t Jᵀ)/N|, g the long-run gain of momentum β; NaN where s g λ_i/N > 0.1 (1 − β)/β",
        "optimizer_kernel",
        "loss",
        source=_SOURCE,
        dims=("mode",),
        spectrum_of=SPECTRUM_OF,
        default=False,
        long_name="factor of the optimizer on the residual along each slow mode of its own kernel",
    ),
    observable(
        "optimizer_kernel_distance",
        _distance,
        "1 − ⟨J P_t Jᵀ, Θ_t⟩_F/(‖J P_t Jᵀ‖_F ‖Θ_t‖_F)",
        "optimizer_kernel",
        "kernel",
        source="Fort et al. 2020",
        default=False,
        long_name="distance of the optimizer's kernel from the kernel",
    ),
    observable(
        "optimizer_target_alignment",
        lambda s: aligned(s, _kernel(s), pair_alignment),
        "⟨J P_t Jᵀ, YYᵀ⟩_F/(‖J P_t Jᵀ‖_F ‖YYᵀ‖_F), J P_t Jᵀ summed over outputs",
        "optimizer_kernel",
        "targets",
        source="Cristianini et al. 2001",
        default=False,
        definition=2,
        long_name="alignment of the optimizer's kernel with the target",
    ),
    observable(
        "optimizer_target_alignment_null",
        lambda s: aligned(s, _kernel(s), permuted_pair_alignment),
        "exact mean over all permutations of the points' targets",
        "optimizer_kernel",
        "targets",
        default=False,
        long_name="mean alignment of the optimizer's kernel with permuted targets",
    ),
)
