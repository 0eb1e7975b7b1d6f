"""A bias: what is added to the channels of a layer's output, the same for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from kerneltrack.ntk.capture.use import Extent, FormedUse


@dataclass(eq=False)
class BiasUse(FormedUse):
    """∂f/∂b = Σ_t g_t.

    Attributes:
        channels: the axes of one sample's y along which the bias differs.
    """

    channels: tuple[int, ...]

    rule = "shift"

    def extent(self) -> Extent:
        shape = self.record.shape[1:]
        outer = prod(shape[axis] for axis in self.channels)
        return Extent(1, outer, 1, prod(n for axis, n in enumerate(shape) if axis not in self.channels))

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        size, rows = self.extent(), [axis for axis in range(gradient.dim() - 1) if axis not in self.channels]
        ordered = gradient.permute(0, *(axis + 1 for axis in (*self.channels, *rows)))
        return ordered.reshape(gradient.shape[0], 1, size.outer, size.tokens)

    def shared_rows(self, rows: Tensor) -> Tensor:
        """The channels of all groups of the layer's weight are one group."""
        return rows if rows.shape[1] == 1 else rows.flatten(1, 2).unsqueeze(1)
