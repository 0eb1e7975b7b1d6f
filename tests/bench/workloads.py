"""What is computed: networks, sizes and reductions. Weights travel to every peer as NumPy arrays.

A workload is *full* (every pair of outputs), *trace* (summed over outputs) or *product* (one Θv).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Workload:
    """A network on N samples of one shape, and which kernel of it."""

    build: Callable[[], nn.Module]
    samples: int
    shape: tuple[int, ...]
    outputs: int
    kind: str
    about: str
    vocabulary: int = 0  # inputs are token ids below this; 0 for real inputs

    def inputs(self, seed: int = 7) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = (self.samples, *self.shape)
        if self.vocabulary:
            return torch.randint(self.vocabulary, size, generator=generator)
        return torch.randn(size, generator=generator)

    def vector(self) -> Tensor:
        return torch.randn(self.samples, self.outputs, generator=torch.Generator().manual_seed(8))

    def model(self) -> nn.Module:
        """Seeded, in eval mode, with norms and running statistics off their initial ones and zeros."""
        torch.manual_seed(20_240_601)
        model = self.build().eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                    module.weight.add_(0.1 * torch.randn_like(module.weight))
                    module.bias.add_(0.1 * torch.randn_like(module.bias))
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.add_(0.1 * torch.randn_like(module.running_mean))
                    module.running_var.add_(0.2 * torch.rand_like(module.running_var))
        return model


def mlp(*widths: int, leak: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(leak) if leak else nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm around a shortcut."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()  # one each: hook-based peers refuse a module used twice
        self.short = nn.Identity()
        if stride != 1 or fan_in != width:
            self.short = nn.Sequential(nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(y + self.short(x))


#: (width, stride) of ResNet-18's blocks
STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


def resnet18() -> nn.Sequential:
    """For 32×32 images: a 3×3 stem without pooling."""
    blocks, fan_in = [], 64
    for width, stride in STAGES:
        blocks.append(Block(fan_in, width, stride))
        fan_in = width
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10))


def depthwise_cnn() -> nn.Sequential:
    """Depthwise 3×3 and pointwise 1×1 convolutions in turn, as in mobile networks."""

    def separable(fan_in: int, width: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(fan_in, fan_in, 3, stride, 1, groups=fan_in, bias=False),
            nn.BatchNorm2d(fan_in),
            nn.ReLU(),
            nn.Conv2d(fan_in, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]

    body = [*separable(32, 64, 1), *separable(64, 128, 2), *separable(128, 128, 1), *separable(128, 256, 2)]
    stem = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*stem, *body, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))


class Layer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = self.split(self.query(h)), self.split(self.key(h)), self.split(self.value(h))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(h.transpose(-3, -2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """64 tokens of 32 numbers, four layers of width 128, mean over tokens, 10 outputs."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(32, width)
        self.register_buffer("position", 0.3 * torch.randn(64, width))
        self.layers = nn.Sequential(*(Layer(width, 4, 4 * width, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embed(x) + self.position)).mean(-2))


class Language(nn.Module):
    """A small causal language model with one output: the last token's score on a linear head."""

    def __init__(self, vocabulary: int = 4096, width: int = 128, length: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, 4, 4 * width, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.position(torch.arange(ids.shape[-1], device=ids.device))
        return self.head(self.norm(self.layers(x))[..., -1, :])


def wide() -> nn.Sequential:
    return mlp(784, 1024, 1024, 1024, 10)


def deep() -> nn.Sequential:
    return mlp(2, 256, 256, 256, 256, 256, 256, 1, leak=0.01)


IMAGE, PICTURE = (1, 28, 28), (3, 32, 32)
WORKLOADS = {
    "M1": Workload(wide, 256, (784,), 10, "full", "MLP 784-1024×3-10, ReLU"),
    "M2": Workload(deep, 4000, (2,), 1, "full", "MLP 2-256×6-1, LeakyReLU"),
    "C1": Workload(lenet, 256, IMAGE, 10, "full", "LeNet-5"),
    "C2": Workload(resnet18, 32, PICTURE, 10, "full", "ResNet-18 for 32×32 images, eval-mode batch norm"),
    "C1t": Workload(lenet, 512, IMAGE, 10, "trace", "LeNet-5, trace over outputs"),
    "T1": Workload(Transformer, 64, (64, 32), 10, "full", "transformer, 64 tokens, width 128, 4 layers"),
    "V0": Workload(lenet, 512, IMAGE, 10, "product", "LeNet-5, one product Θv"),
    "L1": Workload(Language, 96, (128,), 1, "full", "causal language model, 128 tokens, one output", 4096),
    "D1": Workload(depthwise_cnn, 64, PICTURE, 10, "full", "depthwise-separable CNN, eval-mode batch norm"),
    # Seconds, to try the harness itself.
    "tiny-mlp": Workload(lambda: mlp(20, 16, 16, 5), 9, (20,), 5, "full", "tiny MLP"),
    "tiny-trace": Workload(lenet, 8, IMAGE, 10, "trace", "LeNet-5 on 8 samples"),
    "tiny-product": Workload(lambda: mlp(20, 16, 16, 5), 9, (20,), 5, "product", "tiny MLP, one product"),
}  # fmt: skip
STANDARD = tuple(name for name in WORKLOADS if not name.startswith("tiny"))
