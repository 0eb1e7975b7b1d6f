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
    padded: bool = False  # ids end in 0 behind a length of each sample's own
    needs: str = ""  # a distribution without which the network cannot be built

    def inputs(self, seed: int = 7) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = (self.samples, *self.shape)
        if self.padded:
            lengths = torch.randint(self.shape[0] // 2, self.shape[0] + 1, (self.samples, 1), generator=generator)
            ids = torch.randint(1, self.vocabulary, size, generator=generator)
            return ids * (torch.arange(self.shape[0]) < lengths)
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


class Pretrained(nn.Module):
    """A network of transformers from its config, random weights: token ids and the mask of what is not 0, and its logits.

    Its own forward pass asks for values, which ``torch.func.vmap`` refuses. ``mapped`` is what a careful user writes
    instead: the same function, with a mask of four axes, and the last token picked by a product.
    """

    def __init__(self, kind: str, outputs: int, causal: bool, **config: int) -> None:
        super().__init__()
        import transformers

        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
        own = getattr(transformers, f"{kind}Config")(num_labels=outputs, use_cache=False, **ends, **config)
        self.net, self.causal = getattr(transformers, f"{kind}ForSequenceClassification")(own), causal

    def forward(self, ids: Tensor, mapped: bool = False) -> Tensor:
        mask = ids != 0
        if not mapped:
            return self.net(input_ids=ids, attention_mask=mask.long()).logits
        if not self.causal:
            return self.net(input_ids=ids, attention_mask=mask[:, None, None, :]).logits
        places = torch.arange(ids.shape[1], device=ids.device)
        seen = mask[:, None, None, :] & (places <= places[:, None])
        hidden = self.net.base_model(input_ids=ids, attention_mask=seen, position_ids=places[None]).last_hidden_state
        return (self.net.score(hidden) * (places == mask.sum(1, keepdim=True) - 1).unsqueeze(-1)).sum(1)


def bert() -> Pretrained:
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
    return Pretrained("Bert", 2, causal=False, vocab_size=1024, max_position_embeddings=64, **sizes)


def gpt2() -> Pretrained:
    sizes = {"n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 64}
    return Pretrained("GPT2", 10, causal=True, vocab_size=1024, **sizes)


def llama() -> Pretrained:
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384}
    return Pretrained(
        "Llama", 1, causal=True, vocab_size=1024, max_position_embeddings=64, num_key_value_heads=2, **sizes
    )


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
    "H1": Workload(bert, 32, (64,), 2, "full", "tiny BERT with padding, 64 tokens, width 128", 1024, True, "transformers"),
    "H2": Workload(gpt2, 32, (64,), 10, "trace", "tiny GPT-2 with padding, trace over outputs", 1024, True, "transformers"),
    "H3": Workload(llama, 64, (64,), 1, "full", "tiny Llama with padding, one output", 1024, True, "transformers"),
    # Seconds, to try the harness itself.
    "tiny-mlp": Workload(lambda: mlp(20, 16, 16, 5), 9, (20,), 5, "full", "tiny MLP"),
    "tiny-trace": Workload(lenet, 8, IMAGE, 10, "trace", "LeNet-5 on 8 samples"),
    "tiny-product": Workload(lambda: mlp(20, 16, 16, 5), 9, (20,), 5, "product", "tiny MLP, one product"),
}  # fmt: skip
STANDARD = tuple(name for name in WORKLOADS if not name.startswith("tiny"))
