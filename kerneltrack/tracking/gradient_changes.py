"""Whether something changes gradients between the backward pass that makes them and the step that uses them: clipping, say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: Why a stability ratio is not given where they were changed.
CHANGED = "gradients were changed between the backward pass and the step, and clip= does not say that they are clipped"
#: Norms of one gradient, before and after a loss scale was divided out, agree to this: a few of them may be subnormal.
_SAME = 1e-5


class GradientChanges:
    """Remembers the norm of every gradient as a backward pass left it, while it watches: in updates that are measured."""

    def __init__(self) -> None:
        self._norms: dict[int, Tensor] = {}
        self._hooks: list[Any] = []

    def watch(self, optimizers: Iterable[Optimizer]) -> None:
        """Look at what backward passes leave in these optimizers' parameters from now on."""
        self.release()
        held = {id(p): p for o in optimizers for group in o.param_groups for p in group["params"] if p.requires_grad}
        self._hooks = [p.register_post_accumulate_grad_hook(self._made) for p in held.values() if p.is_leaf]

    def release(self) -> None:
        """Look no longer, and forget."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._norms = [], {}

    def found(self, optimizer: Optimizer) -> bool:
        """Whether the gradients that ``optimizer`` is about to use are others than those that were made.

        A power of two that all of them have in common is the scale of a loss, which changes no update.
        """
        shares = set()
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            made = self._norms.get(id(p))
            if made is not None and p.grad is not None and not p.grad.is_sparse:
                then, now = float(made), float(_norm(p.grad))
                if then != now and math.isfinite(then) and math.isfinite(now):
                    shares.add(then / now if now else math.inf)
                elif then == now != 0:
                    shares.add(1.0)
        return bool(shares) and not _one_power_of_two(shares)

    def _made(self, parameter: Tensor) -> None:
        if parameter.grad is not None and not parameter.grad.is_sparse:
            self._norms[id(parameter)] = _norm(parameter.grad)


def _norm(gradient: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(
        gradient.detach(), dtype=torch.promote_types(gradient.dtype, torch.float64)
    )
    return found


def _one_power_of_two(shares: set[float]) -> bool:
    first = min(shares)
    if not 0 < first < math.inf or max(shares) > first * (1 + _SAME):
        return False
    nearest = 2.0 ** round(math.log2(first))
    return abs(first - nearest) <= _SAME * nearest
