"""UpdateRule: what an optimizer's next update multiplies the gradient with, and the edge of its stability.

For a loss whose curvature in the outputs is S = ∇²_f L, an update θ ← θ − P·(gradients, averaged somehow) is stable
along a direction of curvature λ(S^½ J P Jᵀ S^½) as long as that stays below a threshold c. At the edge the iteration
flips its sign at every update, so c = 2/g with g the optimizer's *gain*: what it makes of a gradient g_t = (−1)^t.

    gradient descent       g = 1                   c = 2
    heavy ball             g = (1 − d)/(1 + β)     c = 2(1 + β) without dampening d
    Nesterov               g = (1 + 2β)/(1 + β)    c = 2(1 + β)/(1 + 2β)
    Adam, moments held     g = (1 − β₁)/(1 + β₁)   c = (2 + 2β₁)/(1 − β₁)

Weight decay w of SGD adds ηw to the curvature, c = 2/g − ηw; the decoupled one of AdamW shrinks θ first, c = (2 − ηw)/g.
Cohen et al. 2021 (arXiv 2103.00065) have the first three, Cohen et al. 2022 (arXiv 2207.14484) Adam's; the tests find
every one of them by running torch's own optimizers on a quadratic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kerneltrack.conventions import Momentum, alternating_gain
from kerneltrack.distributed import whole
from kerneltrack.training.clipping import Clipping

GRADIENT_DESCENT_THRESHOLD = 2.0
#: Updates over 1/(1 − β₁) after which an average of gradients has forgotten that it began at zero: e⁻³ of it is left.
WARM_UP = 3


@dataclass(frozen=True)
class UpdateRule:
    """The diagonal preconditioner P and the stability threshold of the next update.

    Attributes:
        learning_rates: one per parameter group, over all optimizers, in their order.
        groups: parameter name → index of its group; parameters that no optimizer holds are missing.
        threshold: c, or None where it is not known; then ``reason`` says why.
        reason: "" or why the stability ratio cannot be given.
        settings: the optimizers' class names and hyper-parameters, plain values for the archive.
        scales: parameter name → 1/(√v̂ + ε) of Adam's second moments; empty where P holds learning rates only.
        unknown: "" or why P itself is not known.
        warm_up: parameter name → 1/(1 − β₁^t) of Adam's first moments: what averaging gradients from zero on makes of them.
        momenta: one per parameter group; None of an optimizer that is not known.
        clipping: what the update does to its gradients first; None: nothing.
    """

    learning_rates: tuple[float, ...]
    groups: Mapping[str, int]
    threshold: float | None
    reason: str = ""
    settings: tuple[Mapping[str, object], ...] = ()
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    unknown: str = ""
    warm_up: Mapping[str, float] = field(default_factory=dict)
    momenta: tuple[Momentum | None, ...] = ()
    clipping: Clipping | None = None

    @classmethod
    def of(cls, optimizers: Sequence[Optimizer], names: Mapping[int, str]) -> UpdateRule:
        """Read the rule off the optimizers, now; second moments are copied, because the update overwrites them.

        Args:
            optimizers: in the trainer's order.
            names: ``id(parameter)`` → name, of the module whose kernel is measured.
        """
        rates: list[float] = []
        groups: dict[str, int] = {}
        thresholds: list[tuple[float | None, str]] = []
        momenta: list[Momentum | None] = []
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                index = len(rates)
                rates.append(float(group["lr"]))
                groups.update({names[id(p)]: index for p in group["params"] if id(p) in names})
                thresholds.append(_threshold(optimizer, group))
                momenta.append(Momentum.of(_kind(optimizer), group))
        threshold, reason = _common(thresholds, len(optimizers))
        scales, unknown = _scales(optimizers, names)
        settings = tuple(_settings(optimizer) for optimizer in optimizers)
        warm_up, early = _warm_up(optimizers, names)
        if early:
            threshold, reason = None, reason or early
        return cls(tuple(rates), groups, threshold, reason, settings, scales, unknown, warm_up, tuple(momenta))

    def with_rates(self, learning_rates: Sequence[float]) -> UpdateRule:
        """The same rule at other learning rates."""
        return replace(self, learning_rates=tuple(learning_rates))

    def metric(self, parameters: Sequence[str]) -> float | dict[str, float | Tensor] | None:
        """P over ``parameters``: one number, or one number or tensor per name (0 where no optimizer moves it).

        With the clipping of the gradients, where it is known.
        None where P is not known; ``unknown`` says why.
        """
        if not self.learning_rates or self.unknown:
            return None
        shrunk = 1.0 if self.clipping is None or self.clipping.factor is None else self.clipping.factor
        rates = {n: shrunk * self.learning_rates[self.groups[n]] if n in self.groups else 0.0 for n in parameters}
        if self.scales:
            return {name: rate * self.scales.get(name, 0.0) for name, rate in rates.items()}
        distinct = set(rates.values())
        return distinct.pop() if len(distinct) == 1 else dict(rates)

    def flow_metric(self, parameters: Sequence[str], updates: float) -> float | dict[str, float | Tensor] | None:
        """g P: what the update of that number, from 1, multiplies a gradient with that has not changed since the first.

        None where P is not known, or an optimizer's momentum is not.
        """
        metric, gains = self.metric(parameters), [None if m is None else m.gain(updates) for m in self.momenta]
        known = [gain for gain in gains if gain is not None]
        if metric is None or len(known) < len(gains):
            return None
        if len(set(known)) <= 1:
            gain = known[0] if known else 1.0
            return gain * metric if isinstance(metric, float) else {name: gain * p for name, p in metric.items()}
        each = metric if isinstance(metric, dict) else dict.fromkeys(parameters, metric)
        return {name: (known[self.groups[name]] if name in self.groups else 0.0) * p for name, p in each.items()}

    def stability_metric(self, parameters: Sequence[str]) -> float | dict[str, float | Tensor] | None:
        """P as the threshold means it: Adam's is η/((1 − β₁^t)(√v̂ + ε)). Cohen et al. 2022."""
        metric = self.metric(parameters)
        if not self.warm_up or not isinstance(metric, dict):
            return metric
        return {name: self.warm_up.get(name, 1.0) * entry for name, entry in metric.items()}


def _kind(optimizer: Optimizer) -> str:
    """The name of torch's class that an optimizer is or descends from."""
    known = (kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim"))
    return next(known, type(optimizer).__name__)


def learning_rates(optimizers: Sequence[Optimizer]) -> tuple[float, ...]:
    """One per parameter group, over all optimizers, in their order."""
    return tuple(float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups)


def _threshold(optimizer: Optimizer, group: Mapping[str, Any]) -> tuple[float | None, str]:
    """The group's c, or None and the reason."""
    name, decay = type(optimizer).__name__, float(group["lr"]) * float(group.get("weight_decay") or 0.0)
    if group.get("maximize"):
        return None, "the optimizer maximises"
    if isinstance(optimizer, torch.optim.SGD):
        return _positive(2.0 / alternating_gain(group) - decay)
    if isinstance(optimizer, torch.optim.Adam):
        beta = float(group["betas"][0])
        gain = (1 - beta) / (1 + beta)
        if decay and not (group.get("decoupled_weight_decay") or isinstance(optimizer, torch.optim.AdamW)):
            return None, "Adam's L2 weight decay is preconditioned, so the threshold is not one number (use AdamW)"
        return _positive((2.0 - decay) / gain)
    return None, f"the stability threshold of {name} is not known to kerneltrack"


def _positive(threshold: float) -> tuple[float | None, str]:
    return (threshold, "") if threshold > 0 else (None, "weight decay alone is beyond the edge of stability")


def _scales(optimizers: Sequence[Optimizer], names: Mapping[int, str]) -> tuple[dict[str, Tensor], str]:
    """1/(√v̂ + ε) by name, and "" or why P is not known."""
    if not optimizers:
        return {}, "there is no optimizer"
    if len(optimizers) > 1:
        return {}, "several optimizers take turns"
    (optimizer,) = optimizers
    if isinstance(optimizer, torch.optim.SGD):
        return {}, ""
    if not isinstance(optimizer, torch.optim.Adam):
        return {}, f"the preconditioner of {type(optimizer).__name__} is not known to kerneltrack"
    held = {
        names[id(p)]: _adam_scale(optimizer.state[p], group)
        for group in optimizer.param_groups
        for p in group["params"]
        if id(p) in names and optimizer.state.get(p)
    }
    return (held, "") if held else ({}, "Adam has no second moments before its first update")


def _adam_scale(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    squares: Tensor = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    # FSDP2 shards the moments with their parameters; the kernel is of the whole ones.
    unbiased = whole(squares.detach()) / (1 - float(group["betas"][1]) ** float(state["step"]))
    scale: Tensor = 1 / (unbiased.sqrt() + float(group["eps"]))
    return scale


def _warm_up(optimizers: Sequence[Optimizer], names: Mapping[int, str]) -> tuple[dict[str, float], str]:
    """1/(1 − β₁^t) by name, and why the threshold does not hold yet, or ""."""
    found: dict[str, float] = {}
    early = ""
    for optimizer in (o for o in optimizers if isinstance(o, torch.optim.Adam)):
        for group in optimizer.param_groups:
            beta = float(group["betas"][0])
            for p in (p for p in group["params"] if id(p) in names and optimizer.state.get(p)):
                steps = float(optimizer.state[p]["step"])
                found[names[id(p)]] = 1 / (1 - beta**steps)
                if steps < WARM_UP / (1 - beta) - 1e-6:  # 1 − 0.9 is not a tenth
                    early = f"Adam has made fewer than {WARM_UP}/(1 − β₁) updates, and its threshold is of the long run"
    return found, early


def _common(thresholds: Sequence[tuple[float | None, str]], optimizers: int) -> tuple[float | None, str]:
    if not thresholds:
        return None, "there is no optimizer"
    if optimizers > 1:
        return None, "several optimizers take turns"
    for _, reason in thresholds:
        if reason:
            return None, reason
    values = {value for value, _ in thresholds}
    return (values.pop(), "") if len(values) == 1 else (None, "the parameter groups have different thresholds")


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
