"""Per-sample gradients by whole weights, where no structure of the weight can be kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kerneltrack.ntk.contraction.block import SampleBlock
from kerneltrack.ntk.contraction.terms import Term


def dense_features(block: SampleBlock, term: Term, plane: int, room: int) -> dict[str, Tensor]:
    """Per-sample gradients by each parameter of a term, √P-scaled, name → (n·Q, p); about ``room`` entries are held beside."""
    uses, leaves, metric = block.factors.uses, block.leaves, block.metric
    weights = {id(use.weight): use.weight for use in block.uses(term)}
    outputs = block.outputs(plane, term)
    entries = sum(leaves[name].numel() for name in term.names) + sum(w.numel() for w in weights.values())
    chunk = max(1, room // max(1, outputs * entries))
    result = {name: leaves[name].new_empty(block.count, outputs, leaves[name].numel()).detach() for name in term.names}
    for start in range(0, block.count, chunk):
        stop = min(start + chunk, block.count)
        rows: dict[int, Tensor] = {}
        for index in term.uses:
            gradients = torch.stack([part[start:stop] for part in block.planes(index)[plane]], 1)
            part = uses[index].weight_gradient(gradients, start, stop).flatten(0, 1)
            key = id(uses[index].weight)
            rows[key] = part if key not in rows else rows[key] + part
        pulled = _pull_back(weights, rows, [leaves[name] for name in term.names])
        for name, value in zip(term.names, pulled, strict=True):
            weight = 1.0 if metric is None else metric[name]
            if term.form == "pulled back" or isinstance(weight, Tensor):  # elsewhere a number is in the term's scale
                value = _times_root(value, weight)
            result[name][start:stop] = value.view(stop - start, outputs, -1)
    return {name: value.view(block.rows(plane, term), -1) for name, value in result.items()}


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
