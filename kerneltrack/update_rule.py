"""UpdateRule: what an optimizer's next update multiplies the gradient with, and the edge of its stability.

For a loss whose curvature in the outputs is S = ∇²_f L, an update θ ← θ − P∇L + (momentum) is stable along a direction
of curvature λ(S^½ J P Jᵀ S^½) as long as that stays below a threshold c that depends on the momentum alone:

    gradient descent 2;  heavy ball 2(1 + β)   (Cohen et al. 2021, "Gradient descent on neural networks typically
    occurs at the edge of stability", §2 and appendix B).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.optim import Optimizer

GRADIENT_DESCENT_THRESHOLD = 2.0


@dataclass(frozen=True)
class UpdateRule:
    """The diagonal preconditioner P and the stability threshold of the next update.

    Attributes:
        learning_rates: one per parameter group, over all optimizers, in their order.
        groups: parameter name → index of its group; parameters that no optimizer holds are missing.
        threshold: c, or None where it is not known; then ``reason`` says why.
        reason: "" or why the stability ratio cannot be given.
        settings: the optimizers' class names and hyper-parameters, plain values for the archive.
    """

    learning_rates: tuple[float, ...]
    groups: Mapping[str, int]
    threshold: float | None
    reason: str = ""
    settings: tuple[Mapping[str, object], ...] = ()

    @classmethod
    def of(cls, optimizers: Sequence[Optimizer], names: Mapping[int, str]) -> UpdateRule:
        """Read the rule off the optimizers, now.

        Args:
            optimizers: in the trainer's order.
            names: ``id(parameter)`` → name, of the module whose kernel is measured.
        """
        rates: list[float] = []
        groups: dict[str, int] = {}
        thresholds: list[tuple[float | None, str]] = []
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                index = len(rates)
                rates.append(float(group["lr"]))
                groups.update({names[id(p)]: index for p in group["params"] if id(p) in names})
                thresholds.append(_threshold(optimizer, group))
        threshold, reason = _common(thresholds, len(optimizers))
        settings = tuple(_settings(optimizer) for optimizer in optimizers)
        return cls(tuple(rates), groups, threshold, reason, settings)

    def with_rates(self, learning_rates: Sequence[float]) -> UpdateRule:
        """The same rule at other learning rates."""
        return replace(self, learning_rates=tuple(learning_rates))

    def metric(self, parameters: Sequence[str]) -> float | dict[str, float] | None:
        """P over ``parameters``: one number, or one per name (0 where no optimizer moves it); None where unknown."""
        if not self.learning_rates or self.reason:
            return None
        rates = {n: self.learning_rates[self.groups[n]] if n in self.groups else 0.0 for n in parameters}
        distinct = set(rates.values())
        return distinct.pop() if len(distinct) == 1 else rates


def _threshold(optimizer: Optimizer, group: Mapping[str, object]) -> tuple[float | None, str]:
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.SGD):
        return None, f"the stability threshold of {name} is not known to kerneltrack"
    if group.get("weight_decay"):
        return None, "weight decay shifts the stability threshold"
    if group.get("nesterov") or group.get("dampening"):
        return None, "Nesterov momentum and dampening have another stability threshold"
    if group.get("maximize"):
        return None, "the optimizer maximises"
    momentum = group.get("momentum", 0.0)
    assert isinstance(momentum, (int, float))
    return GRADIENT_DESCENT_THRESHOLD * (1 + float(momentum)), ""


def _common(thresholds: Sequence[tuple[float | None, str]], optimizers: int) -> tuple[float | None, str]:
    if not thresholds:
        return None, "there is no optimizer"
    if optimizers > 1:
        return None, "several optimizers take turns"
    for _, reason in thresholds:
        if reason:
            return None, reason
    values = {value for value, _ in thresholds}
    return (values.pop(), "") if len(values) == 1 else (None, "the parameter groups have different momenta")


def _settings(optimizer: Optimizer) -> dict[str, object]:
    groups = [
        {key: _plain(value) for key, value in group.items() if key != "params" and _is_plain(_plain(value))}
        for group in optimizer.param_groups
    ]
    return {"class": type(optimizer).__qualname__, "groups": groups}


def _plain(value: object) -> object:
    """A learning rate may be a tensor of one element, Adam's β are a tuple; both are settings."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
