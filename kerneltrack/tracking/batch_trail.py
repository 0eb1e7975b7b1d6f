"""BatchTrail: which batches a run was trained on, as digests, so that another run can tell whether it is given the same."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

#: Bytes of one tensor that are looked at; of a larger one evenly spread elements.
_LOOKED_AT = 1 << 16
#: Updates that are remembered, 8 bytes each.
_ROOM = 1 << 20


@dataclass
class BatchTrail:
    """Digests of the batches of each update, by its step, and the loss of some.

    Attributes:
        digests: of all batches of an update; of one that told no batch there is none.
        losses: of updates whose loss the loop told, where somebody asked.
    """

    digests: dict[int, bytes] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    def note(self, step: int, batch: Any) -> None:
        """A batch of the update that leaves ``step``."""
        if batch is not None and len(self.digests) < _ROOM:
            known = self.digests.get(step, b"")
            self.digests[step] = hashlib.blake2b(known + digest(batch), digest_size=8).digest()

    def forget(self, step: int) -> None:
        """The update that leaves ``step`` begins, whatever was told of it before."""
        self.digests.pop(step, None)

    def differs(self, other: BatchTrail, step: int) -> bool:
        """Whether both know the update's batches, or its loss, and they are not the same."""
        pairs = [(a.get(step), b.get(step)) for a, b in ((self.digests, other.digests), (self.losses, other.losses))]
        return any(ours is not None and theirs is not None and not _equal(ours, theirs) for ours, theirs in pairs)

    def tells(self, other: BatchTrail, step: int) -> bool:
        """Whether both know the update's batches or its loss."""
        return (step in self.digests and step in other.digests) or (step in self.losses and step in other.losses)


def digest(batch: Any) -> bytes:
    """What a batch is told by: the tensors, arrays and plain values in it; of large ones evenly spread elements."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in pytree.tree_leaves(batch):
        value = _tensor(leaf)
        if value is None:
            if isinstance(leaf, (bool, int, float, str, bytes, type(None))):
                found.update(repr(leaf).encode())
            continue
        flat = value.detach().reshape(-1)
        most = max(_LOOKED_AT // max(value.element_size(), 1), 1)
        if len(flat) > most:
            flat = flat[torch.linspace(0, len(flat) - 1, most, dtype=torch.float64).long().to(flat.device)]
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes() if len(flat) else b"")
    return found.digest()


def _tensor(leaf: Any) -> torch.Tensor | None:
    if isinstance(leaf, torch.Tensor):
        return leaf if leaf.layout == torch.strided else leaf.to_dense()
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(leaf))
    return None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float):  # losses: where a device sums in varying orders the same batch has another rounding
        return math.isclose(a, b, rel_tol=1e-5) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)
