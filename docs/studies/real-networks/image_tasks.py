"""Real images that ship inside packages: two digits, ten, ten without neighbourhoods, ten without a rule; photographs."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from digit_images import CLASSES, Images, Source
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image
from squares_by_sgd import Task
from torch import Tensor

#: the two digits that are told apart
PAIR = (3, 8)
#: side of a patch
PATCH = 32


def task(name: str, source: Source, train: int, test: int, seed: int) -> Task:
    """Images of a seed's order, or patches of a seed's places.

    Args:
        name: "pair" (3 against 8), "ten" (ten digits), "permuted" (ten, the pixels in another order), "random" (ten, labels
            drawn), "patches" (of which photograph?).
        source: of the digits.
        train: images to learn from.
        test: unseen ones.
        seed: of the order of images, pixels, labels, places.

    Raises:
        ValueError: fewer images than asked for.
    """
    if name == "patches":
        return _patches(train, test, seed)
    images, rng = Images.load(source, seed), np.random.default_rng(seed)
    if name == "pair":
        images = Images(*(part[np.isin(images.labels, PAIR)] for part in (images.pixels, images.labels)))
        images = Images(images.pixels, (images.labels == PAIR[1]).astype(int))
    if name == "random":
        images = Images(images.pixels, rng.integers(0, CLASSES, len(images)))
    if len(images) < train + test:
        raise ValueError(f"{train} images and {test} unseen ones are more than {len(images)}")
    pixels = images.pixels if source == "mnist" else np.kron(images.pixels, np.ones((2, 2)))
    if name == "permuted":
        order = rng.permutation(pixels[0].size)
        pixels = pixels.reshape(len(pixels), -1)[:, order].reshape(pixels.shape)
    x = Images(pixels, images.labels).on_sphere(pixels[:train].mean(axis=0))[:, None]
    return _task(x, images.labels, len(PAIR) if name == "pair" else CLASSES, train, test)


def _task(x: Tensor, labels: np.ndarray, classes: int, train: int, test: int) -> Task:
    kinds = torch.tensor(labels)
    y = torch.nn.functional.one_hot(kinds[:train], classes).float() - 1 / classes
    return Task(x[:train], y, x[train : train + test], kinds[train : train + test])


def _patches(train: int, test: int, seed: int) -> Task:
    """32 × 32 × 3; to learn from the left halves of the photographs, unseen from the right ones. Standardised by colour."""
    rng = np.random.default_rng(seed)
    pixels, labels = [], []
    for side, count in ((0, train), (1, test)):
        for label in range(count):
            photograph = photographs()[label % len(photographs())]
            half = np.array_split(photograph, 2, axis=1)[side]
            row, column = (rng.integers(0, length - PATCH + 1) for length in half.shape[:2])
            pixels.append(half[row : row + PATCH, column : column + PATCH])
            labels.append(label % len(photographs()))
    x = torch.tensor(np.stack(pixels).transpose(0, 3, 1, 2), dtype=torch.float32)
    deviation, mean = torch.std_mean(x[:train], dim=(0, 2, 3), keepdim=True)
    return _task((x - mean) / deviation, np.array(labels), len(photographs()), train, test)


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """(H, W, 3) in [0, 1]: a temple and a flower of scikit-learn, and the portrait that comes with matplotlib."""
    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as portrait:
        pictures = load_sample_image("china.jpg"), load_sample_image("flower.jpg"), np.asarray(portrait.convert("RGB"))
    return tuple(picture / 255 for picture in pictures)
