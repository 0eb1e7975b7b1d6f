"""Plans that earlier calls have made, kept as long as their module lives.

A plan holds no tensor, and what it rests on is compared with every pass that is contracted by it (:attr:`.ForwardPass.facts`);
how much memory is free is asked again (:meth:`.StructuredPlan.within`). Where a metric is given, none is kept: what its
entries are decides how weights are contracted. A plan of ordinary batches (:mod:`.batched`) holds while what is known of these
is what it was made by; programs of batches are compared in every pass.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.methods.structured_plan import StructuredPlan

#: Module → what was asked of it → the plan.
_KEPT: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], StructuredPlan]] = WeakKeyDictionary()
_REMEMBERED = 32


class Outdated(Exception):
    """A kept plan, or what was taken for granted with it, does not hold any longer: everything is to be asked anew."""


def kept_plan(request: KernelRequest) -> StructuredPlan | None:
    """The plan of an earlier call that asked for the same, in the memory that was free then; None where there is none.

    None also where vmap has refused the model since, or where a batch has left a parameter to its Jacobian since.
    """
    if request.metric is not None:
        return None
    plan = _KEPT.get(request.network.module, {}).get(key_of(request))
    batched = request.network.known(request.x1).batched
    if plan is None or bool(plan.batched) != (batched is not None) or (batched is not None and batched.superseded):
        return None
    return plan


def keep_plan(request: KernelRequest, plan: StructuredPlan) -> None:
    """Keeps what a call has found out, but with a metric."""
    if request.metric is not None:
        return
    of_module = _KEPT.setdefault(request.network.module, {})
    if len(of_module) >= _REMEMBERED:
        of_module.clear()
    of_module[key_of(request)] = plan


def forget_plan(request: KernelRequest) -> None:
    """The plan is to be made again."""
    _KEPT.get(request.network.module, {}).pop(key_of(request), None)


def key_of(request: KernelRequest) -> tuple[Any, ...]:
    """What one plan is of, and of how many samples."""
    second = None if request.x2 is None else len(request.x2)
    asked = request.reduction.name, request.reduction.kind, request.reduction.gauge, request.method, request.by_layer
    return request.network.plan_key(request.x1), type(request.network), len(request.x1), second, asked, request.machine
