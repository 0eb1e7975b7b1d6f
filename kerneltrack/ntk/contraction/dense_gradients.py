"""Per-sample gradients by whole weights, where no structure of the weight can be kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import Metric, SampleBlock
from kerneltrack.ntk.contraction.layout import input_rows, weight_layout
from kerneltrack.ntk.contraction.terms import Term


def dense_features(
    side: SampleBlock, unit: Term, plane: int, leaves: Mapping[str, Tensor], metric: Metric, workspace: int
) -> dict[str, Tensor]:
    """Per-sample gradients by each parameter of a unit, √P-scaled, name → (n·Q, p)."""
    sites = side.factors.sites
    weights = {id(sites[i].weight): sites[i].weight for i in unit.sites}
    outputs = side.outputs(plane, unit)
    entries = sum(leaves[name].numel() for name in unit.names) + sum(w.numel() for w in weights.values())
    chunk = max(1, workspace // max(1, outputs * entries))
    result = {name: leaves[name].new_empty(side.count, outputs, leaves[name].numel()).detach() for name in unit.names}
    for start in range(0, side.count, chunk):
        stop = min(start + chunk, side.count)
        rows: dict[int, Tensor] = {}
        for index in unit.sites:
            part = _dense_gradient(side, unit, index, plane, start, stop).flatten(0, 1)
            key = id(sites[index].weight)
            rows[key] = part if key not in rows else rows[key] + part
        pulled = _pull_back(weights, rows, [leaves[name] for name in unit.names])
        for name, value in zip(unit.names, pulled, strict=True):
            weight = 1.0 if metric is None else metric[name]
            if unit.form == "pulled back" or isinstance(weight, Tensor):  # elsewhere a number is in the unit's scale
                value = _times_root(value, weight)
            result[name][start:stop] = value.view(stop - start, outputs, -1)
    return {name: value.view(side.rows(plane, unit), -1) for name, value in result.items()}


def _dense_gradient(side: SampleBlock, unit: Term, index: int, plane: int, start: int, stop: int) -> Tensor:
    """Gradients by the weight of one site in the weight's own layout, (n, O, |W|), whatever the rule."""
    site = side.factors.sites[index]
    gradients = torch.stack([part[start:stop] for part in side.planes(index)[plane]], 1)
    n, o, g, e, t = gradients.shape
    if site.rule in ("shift", "expanded"):
        return gradients.sum(-1).flatten(2)
    inputs = input_rows(site, start, stop)
    if site.rule == "embedding":
        return _scatter(gradients, inputs, site.weight.shape[0], site.geometry).flatten(2)
    rows = gradients.transpose(1, 2).reshape(n, g, o * e, t) @ inputs
    return weight_layout(site, rows.view(n, g, o, e, -1).transpose(1, 2))


def _scatter(gradients: Tensor, indices: Tensor, entries: int, padding: int | None) -> Tensor:
    """Σ_{t: id_t = v} g_t for every v, as (n, O, V, e)."""
    n, o, _, e, t = gradients.shape
    source = gradients.squeeze(2).transpose(2, 3)
    if padding is not None:
        source = source * (indices != padding).view(n, 1, t, 1)
    rows = gradients.new_zeros(n, o, entries, e)
    return rows.scatter_add_(2, indices.view(n, 1, t, 1).expand(n, o, t, e), source)


def _pull_back(weights: Mapping[int, Tensor], rows: Mapping[int, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Rows of gradients by weights, each (r, |v|), as rows of gradients by the parameters behind them."""
    if all(weight.grad_fn is None for weight in weights.values()):
        return [rows[id(leaf)] for leaf in leaves]
    keys = list(weights)
    count = rows[keys[0]].shape[0]
    shaped = [rows[key].reshape(count, *weights[key].shape) for key in keys]
    parts = torch.autograd.grad(
        [weights[key] for key in keys], leaves, shaped, retain_graph=True, allow_unused=True, is_grads_batched=True
    )
    return [
        torch.zeros(count, leaf.numel(), dtype=leaf.dtype, device=leaf.device)
        if part is None
        else part.reshape(count, -1)
        for leaf, part in zip(leaves, parts, strict=True)
    ]


def _times_root(rows: Tensor, weight: float | Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        return rows * weight.flatten().sqrt()
    return rows if weight == 1.0 else rows * weight**0.5
