"""Linear maps of one shape, stacked: one operation does for all of them what would take one each.

The query, key, value and output projections of every layer of a transformer have one shape. On an accelerator their
products are too short to keep it busy, and starting them takes longer than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from kerneltrack.ntk.capture import Use


class Stack:
    """L uses of linear maps of one shape.

    Args:
        uses: the uses.
        gradients: for each (O, n, 1, e, T); O counts the row of a direction too.

    Attributes:
        uses: them.
        gradients: (L, n, T, O, e).
        inputs: (L, n, T, i).
    """

    def __init__(self, uses: Sequence[Use], gradients: Sequence[Tensor]) -> None:
        self.uses, count = uses, gradients[0].shape[1]
        self.gradients = torch.stack([part[:, :, 0].permute(1, 3, 0, 2) for part in gradients])
        self.inputs = torch.stack([use.input_rows(0, count)[:, 0] for use in uses])

    def of_use(self, place: int) -> Tensor:
        """G of one use, (O, n, 1, e, T), a view."""
        return self.gradients[place].permute(2, 0, 3, 1).unsqueeze(2)

    @cached_property
    def _sums(self) -> Tensor:
        return self.gradients.sum(2)

    def sums(self, place: int) -> Tensor:
        """Σ_t G of one use, (O, n, 1, e), a view."""
        return self._sums[place].transpose(0, 1).unsqueeze(2)

    def features(self, outputs: slice) -> Tensor:
        """F of every use, (L, n, O·e, i)."""
        length, n, t, _, _ = self.gradients.shape
        rows = self.gradients[:, :, :, outputs].reshape(length * n, t, -1).transpose(1, 2)
        formed = torch.bmm(rows, self.inputs.flatten(0, 1))
        return formed.view(length, n, *formed.shape[1:])

    def mixed(self, rows: slice, u: Tensor, adjoined: bool) -> Tensor:
        """Σ_nt g_nt ⊗ a_nt over the samples ``rows``, (L, e, i): g of the last row, or of all times u (k, O)."""
        gradients, inputs = self.gradients[:, rows], self.inputs[:, rows]
        if adjoined or gradients.shape[3] == 1:
            gradients = gradients[:, :, :, -1]
        if not adjoined:
            u = u.to(gradients.dtype)
            gradients = (
                gradients * u.view(-1, 1, 1) if u.shape[1] == 1 else torch.einsum("lktoe,ko->lkte", gradients, u)
            )
        return gradients.flatten(1, 2).transpose(1, 2) @ inputs.flatten(1, 2)


def _stackable(use: Use, outputs: int) -> bool:
    """Whether its gradients and inputs are rows that lie in memory as they are: a linear map.

    Of one row and several outputs it is left alone: nothing is formed of it, and u has a row of its own.
    """
    extent = use.extent()
    several = extent.tokens > 1 or outputs == 1
    return use.form == "tokens" and extent.groups == 1 and several and not use.copied_inputs()


def alike(uses: Iterable[Use], outputs: int) -> list[list[Use]]:
    """Those that stack with others, by shape."""
    groups: dict[tuple[object, ...], list[Use]] = {}
    for use in uses:
        if _stackable(use, outputs):
            groups.setdefault((use.extent(), type(use)), []).append(use)
    return [group for group in groups.values() if len(group) > 1]
