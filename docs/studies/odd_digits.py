"""The task of the studies over width: is a digit odd?"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor


def odd_digits(count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` shuffled digits as vectors of norm √64 (a sphere), and +1 for odd, −1 for even, (N, 1)."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32)
    order = np.random.default_rng(0).permutation(len(images))[:count]
    centred = (images - images.mean())[order]
    odd = torch.tensor(digits.target[order] % 2, dtype=torch.float32)
    return centred / centred.norm(dim=1, keepdim=True) * 8, 2 * odd[:, None] - 1
