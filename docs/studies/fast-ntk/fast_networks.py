"""Four architectures of any width, depth and number of outputs, in eval mode."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class MeanOverTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def fcn(width: int, depth: int, outputs: int) -> nn.Sequential:
    """``depth`` weight layers on 16 inputs."""
    widths = [16, *[width] * (depth - 1)]
    hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))


def cnn(width: int, depth: int, outputs: int) -> nn.Sequential:
    """``depth`` − 1 convolutions 3×3 on 8×8 pictures of 3 channels, mean over pixels, readout."""
    channels = [3, *[width] * (depth - 1)]
    hidden = [layer for a, b in itertools.pairwise(channels) for layer in (nn.Conv2d(a, b, 3, 1, 1), nn.ReLU())]
    return nn.Sequential(*hidden, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


def resnet(width: int, depth: int, outputs: int) -> nn.Sequential:
    """A 3×3 stem and ``depth`` residual blocks on 8×8 pictures."""
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [Residual(width) for _ in range(depth)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


def transformer(width: int, depth: int, outputs: int) -> nn.Sequential:
    """``depth`` encoder layers (torch's own, pre-norm, four heads, MLP of 4 widths) on 16 tokens of 32 numbers."""
    layers = [
        nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    return nn.Sequential(
        nn.Linear(32, width), *layers, nn.LayerNorm(width), MeanOverTokens(), nn.Linear(width, outputs)
    )


@dataclass(frozen=True)
class Architecture:
    """How to build one, and the shape of a sample."""

    build: Callable[[int, int, int], nn.Sequential]
    shape: tuple[int, ...]


ARCHITECTURES = {
    "FCN": Architecture(fcn, (16,)),
    "CNN": Architecture(cnn, (3, 8, 8)),
    "ResNet": Architecture(resnet, (3, 8, 8)),
    "transformer": Architecture(transformer, (16, 32)),
}


@dataclass(frozen=True)
class Point:
    """One kernel: an architecture and the four numbers that its cost depends on."""

    architecture: str
    samples: int
    outputs: int
    width: int
    depth: int

    @property
    def key(self) -> str:
        return f"{self.architecture} N={self.samples} O={self.outputs} W={self.width} L={self.depth}"

    def problem(self) -> tuple[nn.Sequential, Tensor]:
        """The network with its weights and the samples, both from a fixed seed."""
        torch.manual_seed(0)
        kind = ARCHITECTURES[self.architecture]
        return kind.build(self.width, self.depth, self.outputs).eval(), torch.randn(self.samples, *kind.shape)

    def others(self) -> Tensor:
        """As many other samples, from another seed."""
        shape = self.samples, *ARCHITECTURES[self.architecture].shape
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))
