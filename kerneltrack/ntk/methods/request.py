"""A job: one call's network, samples, reduction, metric and budget.

It also knows the shape of the matrix in which its kernel is accumulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kerneltrack.ntk.network import Inputs, Network, Preconditioner, common_dtype, layer_of
from kerneltrack.ntk.reduction import Reduction

Method = Literal["auto", "structured", "jacobian", "products"]


@dataclass
class KernelRequest:
    """Everything a method needs. ``outputs`` is O behind the head.

    ``x2`` None means x1, a symmetric kernel.
    """

    network: Network
    x1: Inputs
    x2: Inputs | None
    outputs: int
    dtype: torch.dtype
    reduction: Reduction
    metric: Preconditioner | None
    method: Method
    by_layer: bool
    budget: int

    @property
    def columns(self) -> int:
        """N2."""
        return len(self.x1 if self.x2 is None else self.x2)

    @property
    def paired(self) -> int:
        """Q: outputs on each side of a pair."""
        return self.outputs if self.reduction.kind == "full" else 1

    @property
    def planes(self) -> int:
        """B: kernels of the same samples that are kept apart."""
        return self.outputs if self.reduction.kind == "diagonal" else 1

    @property
    def network_dtype(self) -> torch.dtype:
        """In which the network is evaluated; sums over parameters are at least float32."""
        return common_dtype(self.network.parameters)

    @property
    def layers(self) -> list[str]:
        """Keys under which the kernel is accumulated: one for each layer, or "" alone."""
        return list(dict.fromkeys(map(layer_of, self.network.parameters))) if self.by_layer else [""]

    def key(self, name: str) -> str:
        """Where the contribution of a parameter goes."""
        return layer_of(name) if self.by_layer else ""

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(B, N1·Q, N2·Q)."""
        return self.planes, len(self.x1) * self.paired, self.columns * self.paired

    @property
    def result_bytes(self) -> int:
        """Bytes of everything that is returned."""
        return math.prod(self.matrix_shape) * self.dtype.itemsize * len(self.layers)

    @property
    def sample_pairs(self) -> int:
        """Pairs of samples to compute."""
        n = len(self.x1)
        return n * (n + 1) // 2 if self.x2 is None else n * self.columns

    def zeros(self) -> dict[str, Tensor]:
        """One zero matrix for each layer."""
        return {
            layer: torch.zeros(self.matrix_shape, dtype=self.dtype, device=self.network.device) for layer in self.layers
        }

    def as_kernel(self, matrix: Tensor) -> Tensor:
        """(B, N1·Q, N2·Q) seen as (N1, N2, O, O), (N1, N2, O) or (N1, N2), whatever the reduction keeps."""
        if self.reduction.kind == "diagonal":
            return matrix.permute(1, 2, 0)
        if self.reduction.kind == "trace":
            return matrix[0]
        return matrix[0].view(len(self.x1), self.outputs, self.columns, self.outputs).transpose(1, 2)
