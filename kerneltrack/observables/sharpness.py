"""Sharpness beyond Gauss–Newton: of the whole Hessian, of training batches along their gradients, and along the real update.

    λ_1(∇²L)                  what Cohen et al. plot; ∇²L = Gauss–Newton + Σ m·∇²f/N
    E_B[g_BᵀH_Bg_B/‖g_B‖²]    batch sharpness, the mean of the ratios: what stands at 2/η under minibatch SGD
    q = −uᵀHu/(gᵀu)           of the update u itself, whatever rule made it, of the probe's loss or of its own batch's

Along u the quadratic model of the loss falls if and only if gᵀu < 0 and q < 2. For gradient descent of the same loss
u = −ηg and q = η gᵀHg/‖g‖².
"""

from __future__ import annotations

import numpy as np

from kerneltrack.errors import ObservableError
from kerneltrack.observables.observable import observable
from kerneltrack.observables.state import Array, State

_EDGE = "Cohen et al. 2021"
_BATCHES = "Andreyev and Beneventano 2024 (arXiv 2412.20553)"


def one_step_criterion(slope: float, bend: float, *, of: str = "the probe") -> float:
    """q = −uᵀHu/(gᵀu) of an update u.

    Args:
        slope: gᵀu.
        bend: uᵀHu.
        of: whose loss it is.

    Raises:
        ObservableError: gᵀu is not negative: the update climbs already to first order, and q says nothing.

    >>> one_step_criterion(-2.0, 4.0)
    2.0
    """
    if not slope < 0:
        raise ObservableError(f"the update does not descend on {of} to first order", got=f"gᵀu = {slope:.3g}")
    return -bend / slope


def batch_mean(ratios: Array) -> float:
    """The mean over batches of gᵀHg/‖g‖²; the ratio is inside the mean.

    Raises:
        ObservableError: no batch has a gradient.
    """
    known = ratios[np.isfinite(ratios)]
    if not known.size:
        raise ObservableError("the gradient of every batch is zero")
    return float(known.mean())


def batch_error(ratios: Array) -> float:
    """The standard error of that mean, s/√B.

    Raises:
        ObservableError: fewer than two batches.
    """
    known = ratios[np.isfinite(ratios)]
    if known.size < 2:
        raise ObservableError("one batch has no standard error", expected="two batches or more", got=int(known.size))
    return float(known.std(ddof=1) / known.size**0.5)


def _hessian(state: State) -> float:
    if state.hessian_sharpness is None:
        raise ObservableError("the Hessian of the loss was not measured")
    return float(state.hessian_sharpness)


def _ratio(state: State) -> float:
    if state.hessian_ratio is None:
        raise ObservableError("the Hessian of the loss in the optimizer's metric was not measured")
    return float(state.hessian_ratio)


def _share(state: State) -> float:
    whole = _hessian(state)
    if state.sharpness is None or not whole > 0:
        raise ObservableError("the largest eigenvalue of the Hessian is not positive", got=whole)
    return float(state.sharpness) / whole


def _batches(ratios: Array | None) -> Array:
    if ratios is None:
        raise ObservableError("no training batch was measured")
    return ratios


def _criterion(state: State) -> float:
    update = state.update
    if update is None or update.slope is None or update.bend is None:
        raise ObservableError("the curvature along the update was not measured")
    return one_step_criterion(update.slope, update.bend)


def _batch_criterion(state: State) -> float:
    update = state.update
    if update is None or update.batch_slope is None or update.batch_bend is None:
        raise ObservableError("the curvature along the update was not measured on its batch")
    return one_step_criterion(update.batch_slope, update.batch_bend, of="its own batch")


OBSERVABLES = (
    observable(
        "hessian_sharpness",
        _hessian,
        "λ_1(∇²L), L the loss on the probe",
        "hessian",
        source=_EDGE,
        default=False,
        long_name="largest eigenvalue of the Hessian of the loss on the probe",
    ),
    observable(
        "hessian_stability_ratio",
        _ratio,
        "λ_1(P_t^½ ∇²L P_t^½)/c",
        "hessian_ratio",
        source="Cohen et al. 2021, 2022",
        default=False,
        long_name="stability ratio of the whole Hessian: 1 at the edge",
    ),
    observable(
        "gauss_newton_share",
        _share,
        "λ_1(S^½ J Jᵀ S^½)/λ_1(∇²L)",
        "sharpness",
        "hessian",
        default=False,
        long_name="Gauss–Newton sharpness over that of the Hessian",
    ),
    observable(
        "batch_sharpness",
        lambda s: batch_mean(_batches(s.batch_curvatures)),
        "E_B[g_Bᵀ∇²L_B g_B/‖g_B‖²] over 16 training batches B",
        "batches",
        source=_BATCHES,
        default=False,
        long_name="curvature of a training batch along its own gradient",
    ),
    observable(
        "batch_sharpness_error",
        lambda s: batch_error(_batches(s.batch_curvatures)),
        "standard error of `batch_sharpness` over its batches",
        "batches",
        default=False,
        long_name="standard error of the batch sharpness",
    ),
    observable(
        "batch_stability_ratio",
        lambda s: batch_mean(_batches(s.batch_ratios)),
        "E_B[g_BᵀP_t∇²L_B P_tg_B/(g_BᵀP_tg_B)]/c",
        "batch_ratios",
        source=_BATCHES,
        default=False,
        long_name="batch sharpness in the optimizer's metric over its threshold",
    ),
    observable(
        "one_step_criterion",
        _criterion,
        "q = −uᵀ∇²L u/(∇Lᵀu), u = θ_{t+1} − θ_t, L the loss on the probe; NaN where ∇Lᵀu ≥ 0",
        "update",
        "update_curvature",
        default=False,
        long_name="one-step criterion of the real update: the quadratic model falls below 2",
    ),
    observable(
        "one_step_criterion_batch",
        _batch_criterion,
        "q = −uᵀ∇²L_B u/(∇L_Bᵀu), L_B the loss on the batch B that the update was made from; NaN where ∇L_Bᵀu ≥ 0",
        "update",
        "update_batch",
        default=False,
        long_name="one-step criterion of the real update on its own batch",
    ),
)
