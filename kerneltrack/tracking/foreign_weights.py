"""Whether the weights that are measured are those that the last update left, or something else was put in their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: What a row of other weights says.
FOREIGN = "the weights are not those that the last update left: something else has changed them since"
#: So many parameters are looked at after each update, the smallest ones: an average that is swapped in changes them all.
_LOOKED_AT = 3


class LeftWeights:
    """What the last update left in a few small parameters, by sums that cost next to nothing."""

    def __init__(self) -> None:
        self._left: Tensor | None = None

    def after_update(self, model: nn.Module) -> None:
        """An update has ended."""
        self._left = _sums(model)

    def remark(self, model: nn.Module) -> str:
        """What a row of the state now must say; "" where nothing has changed, or no update is known."""
        if self._left is None:
            return ""
        now = _sums(model)
        same = now.shape == self._left.shape and torch.equal(now, self._left.to(now.device))
        return "" if same else FOREIGN


@torch.no_grad()
def _sums(model: nn.Module) -> Tensor:
    trained = [p for p in model.parameters() if p.requires_grad and p.is_floating_point() and p.numel()]
    few = sorted(trained, key=torch.numel)[:_LOOKED_AT]
    local = [getattr(p, "to_local", lambda p=p: p)() for p in few]
    found = [total for p in local for total in (p.sum(dtype=torch.float64), p.abs().sum(dtype=torch.float64))]
    return torch.stack([total.to(found[0].device) for total in found]) if found else torch.zeros(0)
