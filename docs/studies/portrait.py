"""The task and the network of *Neural Spectrum Alignment* (arXiv 1910.08720): grey values of a portrait, by a leaky MLP."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

#: Slope of the leaky ReLU; the paper does not say, 0.2 was its framework's default.
SLOPE = 0.2


def mirrored(x: Tensor, y: Tensor) -> Tensor:
    """Grey values of the mirrored picture at the same points: those of the sample nearest to (−x_1, x_2)."""
    nearest = torch.cdist(x * torch.tensor([-1.0, 1.0]), x).argmin(dim=1)
    values = y[nearest]
    return (values - values.mean()) / values.std(correction=0)


def mlp(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """inputs → width → … → outputs, ``depth`` weight layers, leaky ReLU, Xavier-uniform weights, zero biases."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([inputs, *[width] * (depth - 1), outputs]):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])
