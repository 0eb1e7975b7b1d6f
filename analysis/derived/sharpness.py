"""Sharpness over the snapshots of a run: λ_1(S^½ J Jᵀ S^½) where it is stored, else ρ/η where that is the same.

ρ = λ_1(S^½ J P Jᵀ S^½)/c moves with P and c as well as with the network. Where P is η_t times one fixed diagonal, ρ/η is
λ_1(S^½ J Jᵀ S^½) up to a constant: it depends on the parameters alone, whatever schedule the rate follows. Elsewhere what
moved cannot be separated, and there is no sharpness.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..trajectory import Floats, Run

#: Rates of two groups are in one proportion where it moves by less than this: that of a schedule multiplies each by itself.
_SAME = 1e-9
#: SGD's decay w takes ηw off the threshold. Below this share of it that moves ρ/η by less than the rules look at.
_DECAY = 0.01


def sharpness(run: Run) -> tuple[Floats, str]:
    """(S,) NaN where it is not known, and ""; or all NaN and why the ratio is not the sharpness times the rate."""
    if "gauss_newton_sharpness" in run.dataset:
        return run.values("gauss_newton_sharpness"), ""
    rates, ratio = run.learning_rates, run.values("stability_ratio", why="the sharpness")
    known = run.measured & np.isfinite(rates).all(axis=1) & (rates > 0).any(axis=1)
    rates = np.where(known[:, None], rates, np.nan)
    if not known.any():
        return np.full(len(run), np.nan), "the learning rates are not stored"
    first = rates[:, np.argmax(rates[known][0])]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts, course = rates / first[:, None], ratio / first
        if np.any(np.ptp(parts[known], axis=0) > _SAME):
            return np.full(len(run), np.nan), "the rates of the parameter groups moved against each other"
    reason = _optimizer_reason(run.provenance.get("run", {}), float(np.ptp(first[known])), rates[known].max())
    return (np.full(len(run), np.nan), reason) if reason else (course, "")


def _optimizer_reason(provenance: Any, moved: float, largest: float) -> str:
    """Why P or the threshold moved by more than the rate; "" for SGD whose settings stand still."""
    optimizers = (
        provenance.get("optimizers") or provenance.get("optimizer") if isinstance(provenance, Mapping) else None
    )
    if not optimizers:
        return "the optimizer is not stored, so what its preconditioner did is not known"
    if provenance.get("clipping"):
        return "gradients are clipped, and the ratio is of the rate that this leaves of the stored one"
    for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
        name = optimizer.get("class", "") if isinstance(optimizer, Mapping) else optimizer
        if str(name).rpartition(".")[2] != "SGD":
            return "the preconditioner of the optimizer, which is not SGD, moved with the gradients"
        groups = optimizer.get("groups", []) if isinstance(optimizer, Mapping) else []
        for group in groups if isinstance(groups, list) else []:
            if moved and (reason := _threshold_reason(group, largest)):
                return reason
    return ""


def _threshold_reason(group: Any, largest: float) -> str:
    """Why the threshold c of a group moved with the rate."""
    if not isinstance(group, Mapping):
        return ""
    if group.get("base_momentum") != group.get("max_momentum"):  # OneCycleLR and CyclicLR put them there
        return "the rate moved, and the momentum with it"
    decay = group.get("weight_decay")
    if isinstance(decay, int | float) and not abs(decay * largest) <= _DECAY:
        return "the rate moved, and with it what weight decay takes off the bound"
    return ""
