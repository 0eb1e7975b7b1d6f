"""How far the parameters are from where they were, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kerneltrack.ntk import layer_of

Tensors = Mapping[str, Tensor]


def difference(start: Tensors, end: Tensors) -> dict[str, Tensor]:
    """end − start, for every parameter of the start."""
    return {name: end[name] - value for name, value in start.items()}


def layers_of(names: Iterable[str]) -> list[str]:
    """The layers of parameters, in their order."""
    return list(dict.fromkeys(map(layer_of, names)))


def distances(start: Tensors, end: Tensors) -> dict[str, float]:
    """‖end − start‖₂ over the parameters of each layer, summed in float64."""
    squares: dict[str, float] = {}
    for name, moved in difference(start, end).items():
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + float(moved.to(torch.float64).square().sum())
    return {layer: square**0.5 for layer, square in squares.items()}
