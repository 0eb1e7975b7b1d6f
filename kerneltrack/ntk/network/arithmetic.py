"""How exact the arithmetic of a forward pass is, which the dtype of its parameters does not tell.

Two measures. The lowest precision that takes part: autocast inside forward, or a bfloat16 body behind float32 adapters.
And what rounding of that size does: a quantity is computed once more with parameters and inputs moved by a few units of
it. What moves as much is rounding, also where the quantity is zero and its parts are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Parameters and inputs are moved by at most so many units of rounding, this often.
UNITS, DRAWS = 4, 3


class LowestPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """Watches the operations run inside it; :attr:`eps` is the coarsest resolution of their results.

    Args:
        dtype: at least as coarse as this.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.eps = torch.finfo(dtype).eps

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: else torch loads its whole compiler (a second, 40 MB) to say that this mode is not to be compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
                self.eps = max(self.eps, torch.finfo(leaf.dtype).eps)
        return result


def nudged(tensors: Mapping[str, Tensor], seed: int, size: float) -> dict[str, Tensor]:
    """``tensors`` with every entry of the floating ones moved by at most ``size`` of itself."""
    return {name: nudge(tensor, seed + 7919 * index, size) for index, (name, tensor) in enumerate(tensors.items())}


def nudge(tensor: Tensor, seed: int, size: float) -> Tensor:
    """One of them; the derivative by ``tensor`` is left alone."""
    if not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(tensor.shape, generator=generator, dtype=torch.float32).mul_(2 * size).sub_(size)
    return tensor + tensor.detach() * draw.to(tensor.device, tensor.dtype)
