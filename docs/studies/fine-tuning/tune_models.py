"""Networks that are trained before they are tuned, and the ways to tune them. All have one output, and targets are ±1.

- **images**: an MLP that knows whether a digit from 0 to 4 is odd, and is to say it of 5 to 9;
- **words**: a GPT-2 of a made-up language. Its texts have a mood, good or bad, that weights their words. Texts of the first
  domain end with a verdict, those of the second do not; of these it is to give one. The output is the difference of two
  words' logits after the last word: the two verdicts that it knows, or two words that mean nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digit_images import Images
from torch import Tensor, nn

#: tokens of the made-up language: two domains of ten words, then these
SO, GOOD, BAD, STOP, LEFT, RIGHT = 20, 21, 22, 23, 24, 25
VOCABULARY, LENGTH = 26, 8
#: how often a word fits the mood of its text
FITTING = 0.75


@dataclass(frozen=True)
class Data:
    """Points to tune on, and others.

    Attributes:
        x: (N, …).
        y: (N, 1) ±1.
        unseen: (M, …).
        truth: (M, 1) ±1.
    """

    x: Tensor
    y: Tensor
    unseen: Tensor
    truth: Tensor


class WordDifference(nn.Module):
    """The logit of one word less that of another after the last token of (N, T) token numbers; (N, 1).

    Args:
        model: a causal language model of transformers.
        first: the word whose logit counts up.
        second: the one whose logit counts down.
    """

    def __init__(self, model: nn.Module, first: int, second: int) -> None:
        super().__init__()
        self.model, self.words = model, (first, second)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(input_ids=x, use_cache=False).logits[:, -1]
        first, second = self.words
        return (logits[:, first] - logits[:, second])[:, None]


class Adapted(nn.Module):
    """base(x) + BAx, B = 0 at the start and A ~ N(0, 1/rank); the base is frozen (Hu et al. 2021, arXiv 2106.09685).

    The kernel of B at the start, ⟨δ, δ'⟩⟨Ax, Ax'⟩, is in the mean over A that of the whole matrix, ⟨δ, δ'⟩⟨x, x'⟩.
    """

    def __init__(self, base: nn.Module, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        like = next(base.parameters())
        self.down = nn.Parameter(torch.randn(rank, inputs, dtype=like.dtype) / rank**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank, dtype=like.dtype))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return added


def matrices(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, tuple[int, int]]]:
    """Every matrix inside a network but its head: parent, name, layer, (inputs, outputs). GPT-2's layers keep Wᵀ."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if layer is head(network):
                continue
            if isinstance(layer, nn.Linear):
                yield parent, name, layer, (layer.in_features, layer.out_features)
            elif type(layer).__name__ == "Conv1D":
                inputs, outputs = layer.weight.shape
                yield parent, name, layer, (inputs, outputs)


def head(network: nn.Module) -> nn.Module:
    """The last linear layer."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]


def tuned(network: nn.Module, way: str) -> nn.Module:
    """The network, with what a way of tuning trains set free and all else frozen; changed in place.

    Args:
        network: at the start of tuning.
        way: "full", "head", "rank R" (adapters beside all matrices but the head), "matrices" (those matrices themselves).

    Raises:
        ValueError: another way.
    """
    network.requires_grad_(way == "full")
    if way == "head":
        head(network).requires_grad_(True)
    elif way.startswith("rank "):
        for parent, name, layer, shape in list(matrices(network)):
            setattr(parent, name, Adapted(layer, *shape, int(way.removeprefix("rank "))))
    elif way == "matrices":
        for _, _, layer, _ in matrices(network):
            layer.weight.requires_grad_(True)
    elif way != "full":
        raise ValueError(f"a way to tune is full, head, matrices or rank R, not {way!r}")
    return network


def perceptron(seed: int, width: int) -> nn.Sequential:
    """64 → m → m → 1, ReLU, torch's own initialisation."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def digits(new: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Images of 5 to 9, or of 0 to 4, in the order of a seed; is the digit odd?"""
    images = Images.load("digits", seed)
    chosen = (images.labels > 4) == new
    x = torch.tensor(images.pixels[chosen].reshape(-1, 64), dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(2.0 * (images.labels[chosen] % 2) - 1)[:, None].float()


def language_model(seed: int, width: int) -> nn.Module:
    """A GPT-2 of two blocks at its start; the head has weights of its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_embd": width, "n_layer": 2, "n_head": 2, "n_positions": LENGTH + 2}
    still: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    still |= {"bos_token_id": None, "eos_token_id": None}
    config = GPT2Config(vocab_size=VOCABULARY, tie_word_embeddings=False, attn_implementation="eager", **sizes, **still)
    return GPT2LMHeadModel(config).eval()


def texts(count: int, domain: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(N, LENGTH + 1) words of a domain, then "so"; and (N,) moods, 1 is good. Even words are good ones."""
    moods = torch.randint(2, (count,), generator=generator)
    fits = torch.rand((count, LENGTH), generator=generator) < FITTING
    good = fits == moods.bool()[:, None]
    words = 2 * torch.randint(5, (count, LENGTH), generator=generator) + (~good).long() + 10 * domain
    return torch.cat([words, torch.full((count, 1), SO)], dim=1), moods


def pretrain_words(model: nn.Module, updates: int, batch: int, seed: int) -> None:
    """Next words of texts of both domains; a verdict follows those of the first, a stop those of the second. Adam."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(updates):
        both = []
        for domain in (0, 1):
            words, moods = texts(batch // 2, domain, generator)
            verdict = torch.where(moods.bool(), GOOD, BAD) if domain == 0 else torch.full_like(moods, STOP)
            both.append(torch.cat([words, verdict[:, None]], dim=1))
        words = torch.cat(both)
        logits = model(input_ids=words[:, :-1], use_cache=False).logits
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten()).backward()
        optimizer.step()


def pretrain_images(model: nn.Module, updates: int, seed: int) -> None:
    """Full-batch Adam on the mean of ½(f − y)²."""
    x, y = digits(new=False, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        (0.5 * (model(x) - y).square().mean()).backward()
        optimizer.step()


def own_data(path: Path) -> tuple[Data, tuple[int, int]]:
    """A user's: an .npz of ``tokens`` (N, T), ``labels`` (N,) 0 or 1, ``unseen`` (M, T), ``truth`` (M,), ``words`` (2,).

    ``words`` are the token numbers whose logits stand for the labels 1 and 0. All texts have T tokens: no padding.
    """
    with np.load(path) as file:
        x, unseen = (torch.tensor(file[name]).long() for name in ("tokens", "unseen"))
        y, truth = (torch.tensor(2.0 * file[name] - 1)[:, None].float() for name in ("labels", "truth"))
        first, second = (int(word) for word in file["words"])
    return Data(x, y, unseen, truth), (first, second)
