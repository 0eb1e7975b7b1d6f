"""What earlier calls have found out about a module: kept as long as the module lives, apart for each plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import nn

from kerneltrack.ntk.network.plan_key import PlanKey
from kerneltrack.ntk.network.witness import Sight

#: What was found out about each module, by mode, shape and dtype.
_KNOWN: WeakKeyDictionary[nn.Module, dict[PlanKey, Known]] = WeakKeyDictionary()
_REMEMBERED = 32


@dataclass(frozen=True, eq=False)
class Rounding:
    """Differences that rounding explains, in units of the sizes of what differs.

    Attributes:
        outputs: by output (O,).
        derivatives: by parameter (P,).
    """

    outputs: np.ndarray[Any, Any]
    derivatives: np.ndarray[Any, Any]


@dataclass
class Known:
    """What was found out about a module in one mode, with samples of one shape.

    Attributes:
        activation_bytes: what autograd saves for one sample; None before it was measured.
        sight: what the witness of a forward and a backward pass saw; None before there was one.
        accepted: of the samples that a first call has looked at closely, how many they are and sums of what they hold.
        rounding: what rounding was found to explain where samples alone and in a batch differed; None before they did.
        batched: how a batch is captured where vmap refuses the model; what that is, its finder knows.
        plain: sizes of a request of which the plain Jacobian was found to be the faster way → the bytes that it needs, and
            why.
        rows: how many samples, the method → O, where vmap has made all rows of a plain Jacobian.
        mapped: how many samples at once, how many outputs, the parameters → whether vmap's derivative was a sample's own.
    """

    activation_bytes: int | None = None
    sight: Sight | None = None
    accepted: set[tuple[int, ...]] = field(default_factory=set)
    rounding: Rounding | None = None
    batched: Any = None
    plain: dict[tuple[Any, ...], tuple[int, str]] = field(default_factory=dict)
    rows: dict[tuple[int, str], int] = field(default_factory=dict)
    mapped: dict[tuple[int, int, tuple[str, ...]], bool] = field(default_factory=dict)


def known(module: nn.Module, key: PlanKey) -> Known:
    """What is known of ``module`` under ``key``, of all that a plan depends on; new where it is the first time."""
    of_module = _KNOWN.setdefault(module, {})
    if key not in of_module and len(of_module) >= _REMEMBERED:
        of_module.clear()
    found = of_module.setdefault(key, Known())
    if len(found.accepted) > _REMEMBERED:
        found.accepted.clear()
    return found


def forget(module: nn.Module, key: PlanKey) -> None:
    """Whatever was found out under ``key`` is to be found out again."""
    _KNOWN.get(module, {}).pop(key, None)
