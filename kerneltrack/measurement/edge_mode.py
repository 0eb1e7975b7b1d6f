"""Edge mode: the one mode that goes to and fro in the parameters at the edge of stability, and what should hold it there.

Of three states in a row swings δ_θ = (2θ_{t−1} − θ_t − θ_{t−2})/4 about their mean θ̄. Along the top eigenvector u of ∇²L at θ̄
the swing of variance σ² adds ½σ²∇λ_1 to the mean gradient, which turns the way of the loss away from sharper states. In balance
λ_1 stands still:

    ⟨−∇L − ½σ²∇λ_1, ∇λ_1⟩ = 0,    σ² = 2⟨−∇L, ∇λ_1⟩/‖∇λ_1‖²,    ∇λ_1 = ∇_θ(uᵀ∇²L u)

all at θ̄: at the states themselves ∇L is mostly the swing's. Damian, Nichani and Lee 2022; central flows of Cohen et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kerneltrack.measurement.curvature import stability_terms
from kerneltrack.measurement.hessian import hessian_of, inner, turning_of
from kerneltrack.measurement.not_measured import NotMeasured
from kerneltrack.measurement.specification import ProbeSpec
from kerneltrack.ntk import NetworkState
from kerneltrack.observables import EdgeMode
from kerneltrack.training import UpdateRule

#: λ_1 over its bound from which a mode is at the edge: there it hovers within some percent, below it nothing is held.
_AT_THE_EDGE = 0.95
#: Roundings of θ that a swing must be larger than; three states are added up.
_ROUNDINGS = 8


def edge_mode(
    spec: ProbeSpec, module: nn.Module, path: Mapping[int, NetworkState], step: int, rule: UpdateRule, outputs: Tensor
) -> EdgeMode:
    """The swing's variance along u, and that of the central flow.

    Args:
        spec: what is measured.
        module: the network at the third of three states.
        path: step → the network's state, of the two before.
        step: t.
        rule: the update that leaves the third.
        outputs: f_t (N, O).

    Raises:
        NotMeasured: not the third of three states, an update without one rate, a swing that is rounding, or not exactly one mode
            at the edge.
    """
    if sorted(path) != [step - 2, step - 1]:
        raise NotMeasured("not the third state of a triple. Measure triples: kt.schedule.Every(n, window=3).")
    first, second, third = path[step - 2], path[step - 1], NetworkState.of(module)
    if not first.parameters.keys() == second.parameters.keys() == third.parameters.keys():
        raise NotMeasured("other parameters train than two updates ago")
    bound = _bound(rule, list(third.parameters))
    triple = {n: (first.parameters[n], second.parameters[n], value) for n, value in third.parameters.items()}
    swing = {name: (2 * b - a - c) / 4 for name, (a, b, c) in triple.items()}
    if inner(swing, swing) <= sum(map(_rounding, third.parameters.values())):
        raise NotMeasured("what oscillates is rounding")
    mean = replace(second, parameters={name: (a + 2 * b + c) / 4 for name, (a, b, c) in triple.items()})
    own, fine = (spec.network(module, every_parameter=True, anchor=mean, dtype=d) for d in (None, torch.float64))
    hessian = hessian_of(own, fine, spec.inputs(module), spec.targets(outputs), spec.loss)
    values, (u, _) = hessian.leading(2)
    _refuse_unless_one(values[0] / bound, values[1] / bound)
    slope, turn = hessian.gradient(), turning_of(hessian, fine, u)
    if not (size := inner(turn, turn)) > 0:
        raise NotMeasured("the sharpness does not depend on the parameters")
    return EdgeMode(seen=inner(u, swing) ** 2, balance=max(0.0, -2 * inner(slope, turn) / size))


def _bound(rule: UpdateRule, parameters: list[str]) -> float:
    """The λ that is at the edge.

    Raises:
        NotMeasured: the update is no multiple of a gradient that the loss alone makes.
    """
    threshold, metric = stability_terms(rule, parameters)
    if not isinstance(metric, float) or not metric > 0:
        raise NotMeasured(
            "the parameters have no common learning rate, in whose metric a mode would be one of the Hessian"
        )
    settings: tuple[Mapping[str, Any], ...] = rule.settings
    if any(group.get("weight_decay") for one in settings for group in one.get("groups", ())):
        raise NotMeasured("weight decay moves the parameters, which is not in the loss")
    return threshold / metric


def _refuse_unless_one(first: float, second: float) -> None:
    if first < _AT_THE_EDGE:
        raise NotMeasured(f"no mode is at the edge: λ₁ is {first:.3g} of its bound at the mean state")
    if second >= 1:
        raise NotMeasured(f"more than one mode is unstable: λ₂ is {second:.3g} of its bound at the mean state")


def _rounding(value: Any) -> float:
    """The square of what a sum of three tensors of that size is rounded by."""
    return float((_ROUNDINGS * torch.finfo(value.dtype).eps * value.detach().double()).square().sum())
