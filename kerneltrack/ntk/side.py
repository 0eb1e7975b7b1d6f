"""One block of samples as the contraction orders read it: reduced gradients, input rows, per-sample gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kerneltrack.ntk.factors import input_rows, weight_layout
from kerneltrack.ntk.gradients import Factors
from kerneltrack.ntk.reduction import Kind
from kerneltrack.ntk.units import Unit


def planes(gradients: Tensor, kind: Kind) -> list[Tensor]:
    """(N, O, g, e, T) as what the reduction pairs: tensors (N, Q, g, e, T), all against the same inputs."""
    if kind == "full":
        return [gradients]
    if kind == "diagonal":
        return [gradients[:, o : o + 1] for o in range(gradients.shape[1])]
    merged = gradients.transpose(1, 2)
    return [merged.reshape(merged.shape[0], 1, merged.shape[1], -1, merged.shape[4])]


@dataclass
class Side:
    """One block of samples, reduced: how units read it."""

    factors: Factors
    kind: Kind

    @property
    def count(self) -> int:
        """n, the samples of the block."""
        return self.factors.count

    def gradients(self, unit: Unit) -> list[Tensor]:
        """Planes of G with the rows of all uses of the unit's weight side by side."""
        parts = [self.factors.gradients(i) for i in unit.sites]
        return planes(parts[0] if len(parts) == 1 else torch.cat(parts, -1), self.kind)

    def inputs(self, unit: Unit, start: int, stop: int) -> Tensor:
        """A, (n, g, T, i), or indices (n, T) of an embedding."""
        parts = [input_rows(self.factors.sites[i], start, stop) for i in unit.sites]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1 if parts[0].dim() == 2 else 2)


def gradient_features(side: Side, unit: Unit, plane: int, width: int) -> Iterator[Tensor]:
    """Per-sample gradients of a "tokens" unit in slices of channels, (n·Q, ≤ width) each."""
    gradients = side.gradients(unit)[plane]
    n, q, g, e, _ = gradients.shape
    inputs = side.inputs(unit, 0, n)
    step = max(1, min(e, width // (g * inputs.shape[-1])))
    for start in range(0, e, step):
        part = gradients[:, :, :, start : start + step]
        s = part.shape[3]
        rows = part.transpose(1, 2).reshape(n, g, q * s, -1) @ inputs
        yield rows.view(n, g, q, s, -1).transpose(1, 2).reshape(n * q, -1)


def dense_gradient(side: Side, unit: Unit, index: int, plane: int, start: int, stop: int) -> Tensor:
    """Gradients by the weight of one site in the weight's own layout, (n, Q, |W|), whatever the rule."""
    site = side.factors.sites[index]
    own = Unit("tokens", (index,), unit.names)
    gradients = planes(side.factors.gradients(index)[start:stop], side.kind)[plane]
    n, q, g, e, t = gradients.shape
    outputs_as_channels = side.kind == "trace"
    if site.rule in ("shift", "expanded"):
        rows = gradients.sum(-1).unsqueeze(-1)
    elif site.rule == "embedding":
        rows = _scatter(gradients, side.inputs(own, start, stop), site.weight.shape[0], site.geometry)
    else:
        inputs = side.inputs(own, start, stop)
        rows = (gradients.transpose(1, 2).reshape(n, g, q * e, t) @ inputs).view(n, g, q, e, -1).transpose(1, 2)
    if outputs_as_channels:  # (n, 1, g, O·e, i) -> one weight after another
        o = side.factors.gradients(index).shape[1]
        rows = rows.reshape(n, g, o, e // o, rows.shape[-1]).transpose(1, 2)
        return weight_layout(site, rows).reshape(n, 1, -1)
    return weight_layout(site, rows)


def _scatter(gradients: Tensor, indices: Tensor, entries: int, padding: int | None) -> Tensor:
    """Σ_{t: id_t = v} g_t for every v, as (n, Q, 1, V, e)."""
    n, q, _, e, t = gradients.shape
    rows = gradients.new_zeros(n, q, entries, e)
    source = gradients.squeeze(2).transpose(2, 3)
    if padding is not None:
        source = source * (indices != padding).view(n, 1, t, 1)
    return rows.scatter_add_(2, indices.view(n, 1, t, 1).expand(n, q, t, e), source).unsqueeze(2)


def shift_features(side: Side, unit: Unit, plane: int) -> Tensor:
    """Gradients of a "features" unit, (n·Q, p): sums over rows and over all uses."""
    total: Tensor | None = None
    for index in unit.sites:
        rows = planes(side.factors.gradients(index), side.kind)[plane].sum(-1).flatten(2).flatten(0, 1)
        total = rows if total is None else total + rows
    assert total is not None
    return total


def dense_features(side: Side, unit: Unit, plane: int, leaves: Mapping[str, Tensor], metric: Mapping[str, float | Tensor] | None,
                   workspace: int) -> dict[str, Tensor]:
    """Per-sample gradients by each parameter of a unit, √P-scaled, name → (n·Q, p)."""
    sites = side.factors.sites
    weights = {id(sites[i].weight): sites[i].weight for i in unit.sites}
    q = 1 if side.kind != "full" else side.factors.gradients(unit.sites[0]).shape[1]
    outputs = side.factors.gradients(unit.sites[0]).shape[1] if side.kind == "trace" else 1
    entries = sum(leaves[name].numel() for name in unit.names) + sum(w.numel() for w in weights.values())
    chunk = max(1, workspace // max(1, q * outputs * entries))
    result = {name: leaves[name].new_empty(side.count, q, outputs * leaves[name].numel()).detach() for name in unit.names}
    for start in range(0, side.count, chunk):
        stop = min(start + chunk, side.count)
        rows: dict[int, Tensor] = {}
        for index in unit.sites:
            part = dense_gradient(side, unit, index, plane, start, stop).reshape(-1, sites[index].weight.numel())
            key = id(sites[index].weight)
            rows[key] = part if key not in rows else rows[key] + part
        pulled = _pull_back(weights, rows, [leaves[name] for name in unit.names])
        for name, value in zip(unit.names, pulled, strict=True):
            value = _times_root(value, 1.0 if metric is None else metric[name])
            result[name][start:stop] = value.reshape(stop - start, q, -1)
    return {name: value.flatten(0, 1) for name, value in result.items()}


def _pull_back(weights: Mapping[int, Tensor], rows: Mapping[int, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Rows of gradients by weights, each (r, |v|), as rows of gradients by the parameters behind them."""
    if all(weight.grad_fn is None for weight in weights.values()):
        return [rows[id(leaf)] for leaf in leaves]
    keys = list(weights)
    count = rows[keys[0]].shape[0]
    shaped = [rows[key].reshape(count, *weights[key].shape) for key in keys]
    parts = torch.autograd.grad([weights[key] for key in keys], leaves, shaped, retain_graph=True, allow_unused=True, is_grads_batched=True)
    return [torch.zeros(count, leaf.numel(), dtype=leaf.dtype, device=leaf.device) if part is None else part.reshape(count, -1)
            for leaf, part in zip(leaves, parts, strict=True)]


def _times_root(rows: Tensor, weight: float | Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        return rows * weight.flatten().sqrt()
    return rows if weight == 1.0 else rows * weight**0.5
