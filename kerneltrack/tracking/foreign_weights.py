"""Whether the weights that are measured are those that the last update left, or something else was put in their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: What a row of other weights says.
FOREIGN = "the weights are not those that the last update left: something else has changed them since"
#: So many parameters are looked at after each update, the smallest ones: an average that is swapped in changes them all.
_LOOKED_AT = 3


class LeftWeights:
    """What the last update left in a few small parameters, by their norms, which cost next to nothing."""

    def __init__(self) -> None:
        self._few: list[nn.Parameter] | None = None
        self._left: list[Tensor] = []

    def after_update(self, model: nn.Module) -> None:
        """An update has ended."""
        self._left = self._norms(model)

    def remark(self, model: nn.Module) -> str:
        """What a row of the state now must say; "" where nothing has changed, or no update is known."""
        if not self._left:
            return ""
        pairs = zip(self._left, self._norms(model), strict=True)
        return "" if all(torch.equal(then, now.to(then.device)) for then, now in pairs) else FOREIGN

    @torch.no_grad()
    def _norms(self, model: nn.Module) -> list[Tensor]:
        """Norms, not sums: the sum of a bias in front of a softmax is what it was, whatever is averaged."""
        if self._few is None:
            trained = [p for p in model.parameters() if p.requires_grad and p.is_floating_point() and p.numel()]
            self._few = sorted(trained, key=torch.numel)[:_LOOKED_AT]
        local = [getattr(p, "to_local", lambda p=p: p)() for p in self._few]
        return [torch.linalg.vector_norm(p, dtype=torch.float64) for p in local]
