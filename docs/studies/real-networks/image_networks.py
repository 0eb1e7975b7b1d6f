"""Three convolutional networks of practice, each with a multiplier c of its widths; c = 1 is the network as it is used.

In standard parametrisation, as they are used: weights N(0, 2/fan-in), biases 0. The readout starts at a tenth of N(0, 1/fan-in),
so that outputs start small beside the targets and nobody has to unlearn the noise of the start.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: of the readout's weights at the start, over 1/√fan-in
READOUT = 0.1


def scaled(width: int, multiplier: float) -> int:
    """A width, at least 1."""
    return max(1, round(multiplier * width))


def lenet(multiplier: float, shape: torch.Size, outputs: int) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998) with ReLU: 6c and 16c channels of 5 × 5, mean pooling, 120c and 84c units."""
    first, second, third, fourth = (scaled(width, multiplier) for width in (6, 16, 120, 84))
    side = (shape[-1] // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(first, second, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(side**2 * second, third), nn.ReLU(), nn.Linear(third, fourth), nn.ReLU(), nn.Linear(fourth, outputs),
    )  # fmt: skip


def alexnet(multiplier: float, shape: torch.Size, outputs: int) -> nn.Sequential:
    """AlexNet (Krizhevsky et al. 2012) made small: 16c, 48c, 96c, 64c, 64c channels, maximum pooling, 128c units."""
    a, b, c, d, e, dense = (scaled(width, multiplier) for width in (16, 48, 96, 64, 64, 128))
    side = shape[-1] // 8
    return nn.Sequential(
        nn.Conv2d(shape[0], a, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
        nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(side**2 * e, dense), nn.ReLU(), nn.Linear(dense, outputs),
    )  # fmt: skip


class Residual(nn.Module):
    """a' = short(a) + conv(relu(bn(conv(a)))), a = relu(bn(x)); the short cut is mean pooling and a 1 × 1 convolution.

    Pooling, not a 1 × 1 convolution of stride 2: the latter's backward pass in torch 2.13 overruns its memory on some CPUs
    where channels are few.
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(fan_in), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU(),
            nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False),
        )  # fmt: skip
        self.short = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(fan_in, fan_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        a = self.before(x)
        sum_: Tensor = self.short(a) + self.branch(a)
        return sum_


def wide_resnet(multiplier: float, shape: torch.Size, outputs: int) -> nn.Sequential:
    """WRN-10-k (Zagoruyko and Komodakis 2016), k = c: 16, then three blocks of 16c, 32c, 64c channels, mean over the image."""
    widths = [16, *(scaled(width, multiplier) for width in (16, 32, 64))]
    blocks = [Residual(a, b, stride) for a, b, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)]
    return nn.Sequential(
        nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False), *blocks,
        nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], outputs),
    )  # fmt: skip


Maker = Callable[[float, torch.Size, int], nn.Sequential]
NETWORKS: dict[str, Maker] = {"LeNet-5": lenet, "AlexNet-small": alexnet, "WRN-10": wide_resnet}


def build(name: str, multiplier: float, x: Tensor, outputs: int, seed: int) -> nn.Sequential:
    """One network at its start, in eval mode. BatchNorm has the statistics of x once and for all: samples do not meet."""
    torch.manual_seed(seed)
    network = NETWORKS[name](multiplier, x.shape[1:], outputs)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        gain = READOUT if layer is layers[-1] else 2**0.5
        nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.momentum = None  # the mean of what was seen, which is x alone
    with torch.no_grad():
        network.train()(x)
    return network.eval()
