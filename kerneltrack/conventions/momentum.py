"""Momentum: how an optimizer weighs the gradients of the past, read off plain settings. No torch here.

SGD with momentum β and dampening d steps along b_n = β b_{n−1} + (1 − d) g_n, b_1 = g_1, and Nesterov's along g_n + β b_n; Adam
along an average whose weights add up to one. Of a gradient that stands still, as along a slow mode, the n-th update makes

    gradient descent    1
    heavy ball          β^{n−1} + (1 − d)(1 − β^{n−1})/(1 − β)      in the long run (1 − d)/(1 − β)
    Nesterov            1 + β times that                            in the long run 1 + β(1 − d)/(1 − β)
    Adam                1

times itself: the **gain**.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: What makes SGD something else than plain gradient descent.
_BESIDE = ("momentum", "weight_decay", "dampening", "nesterov")
_ADAMS = ("Adam", "AdamW")


@dataclass(frozen=True)
class Momentum:
    """The momentum of one parameter group.

    Attributes:
        beta: β of SGD, β₁ of Adam.
        dampening: d.
        nesterov: whether the step looks ahead.
        averages: whether the weights of all gradients add up to one, as Adam's.
    """

    beta: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    averages: bool = False

    @classmethod
    def of(cls, name: str, group: Mapping[str, Any]) -> Momentum | None:
        """The momentum of a group of SGD, Adam or AdamW, by the class's name; None of another."""
        if name in _ADAMS:
            betas = group.get("betas")
            return cls(beta=_number(betas[0] if isinstance(betas, list | tuple) and betas else 0.9), averages=True)
        if name != "SGD":
            return None
        beta = _number(group.get("momentum"))
        if not 0 < beta < 1:
            return cls()
        return cls(beta, _number(group.get("dampening")), bool(group.get("nesterov")))

    def gain(self, updates: float = math.inf) -> float:
        """What the update of that number, from 1, makes of a gradient that has not changed since the first."""
        if self.averages or not self.beta:
            return 1.0
        left = float(self.beta ** (updates - 1))
        held = left + (1 - self.dampening) * (1 - left) / (1 - self.beta)
        return 1 + self.beta * held if self.nesterov else held


def alternating_gain(group: Mapping[str, Any]) -> float:
    """What SGD with those settings makes of a gradient that flips its sign at every update, in the long run: 2 over its edge."""
    momentum, dampening = float(group.get("momentum", 0.0)), float(group.get("dampening", 0.0))
    if not momentum:
        return 1.0
    averaged = (1 - dampening) / (1 + momentum)
    return 1 + momentum * averaged if group.get("nesterov") else averaged


def groups(optimizers: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(class, settings) of every parameter group that a provenance or an update rule tells of, one at least an optimizer."""
    for optimizer in optimizers if isinstance(optimizers, list | tuple) else [optimizers]:
        if not isinstance(optimizer, Mapping):
            yield (optimizer if isinstance(optimizer, str) else "SGD").rpartition(".")[2], {}
            continue
        name = str(optimizer.get("class", "SGD")).rpartition(".")[2]
        told = optimizer.get("groups")
        held = [group for group in told if isinstance(group, Mapping)] if isinstance(told, list | tuple) else []
        yield from ((name, group) for group in held or [{}])


def no_plain_descent(optimizers: object) -> str:
    """Why the update is not plain gradient descent; "" where nothing is against it."""
    for name, group in groups(optimizers):
        if name != "SGD":
            return f"the optimizer is {name}"
        if held := [key for key in _BESIDE if group.get(key)]:
            return f"the optimizer has {', '.join(held)}"
    return ""


def _number(value: object) -> float:
    """0 for what is no finite number: a stranger's archive may say anything."""
    try:
        number = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:  # an integer beyond float64
        return 0.0
    return number if math.isfinite(number) else 0.0
