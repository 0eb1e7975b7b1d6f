"""Arrays: what was measured with torch, as NumPy float64."""

from __future__ import annotations

import torch
from torch import Tensor

from kerneltrack.snapshot import Array


def to_float64(tensor: Tensor) -> Array:
    """A tensor as NumPy float64."""
    array: Array = tensor.detach().to("cpu", torch.float64).numpy()
    return array
