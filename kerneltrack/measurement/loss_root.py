"""Root: R with R Rᵀ = S, the curvature of a loss in the outputs, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kerneltrack.measurement.not_measured import NotMeasured


class Root(Protocol):
    """R, blocks (O, O) along the diagonal of (NO, NO)."""

    def times(self, u: Tensor) -> Tensor:
        """R u, (N, O)."""
        ...

    def transposed(self, u: Tensor) -> Tensor:
        """Rᵀ u, (N, O)."""
        ...


@dataclass(frozen=True)
class SymmetricRoot:
    """S^½ of blocks (N, O, O), which memory must hold."""

    blocks: Tensor

    @classmethod
    def of(cls, blocks: Tensor) -> SymmetricRoot:
        """The root of S.

        Raises:
            NotMeasured: a block is not positive semi-definite beyond rounding.
        """
        values, vectors = torch.linalg.eigh(blocks.to(torch.float64))
        rounding = blocks.shape[1] * torch.finfo(blocks.dtype).eps * values.abs().max()
        if values.min() < -rounding:
            raise NotMeasured("the loss is not convex in the outputs")
        root: Tensor = vectors @ torch.diag_embed(values.clamp_min(0).sqrt()) @ vectors.transpose(-1, -2)
        return cls(root.to(blocks.dtype))

    def times(self, u: Tensor) -> Tensor:
        """S^½ u."""
        return (self.blocks @ u[..., None])[..., 0]

    transposed = times


@dataclass(frozen=True)
class SoftmaxRoot:
    """R = √w (diag √p − p √pᵀ) of S = w (diag p − p pᵀ), p = softmax(f): numbers (N, O), and never (N, O, O).

    Attributes:
        p: (N, O).
        weight: √w (N, 1).
    """

    p: Tensor
    weight: Tensor

    @classmethod
    def of(cls, outputs: Tensor, targets: Tensor) -> SoftmaxRoot:
        """The root of the mean cross-entropy's curvature at outputs (N, O); w = Σ_o y_o/N.

        Raises:
            NotMeasured: targets of negative sum.
        """
        weight = targets.sum(1, keepdim=True) / len(outputs)
        if weight.min() < 0:
            raise NotMeasured("the loss is not convex in the outputs")
        return cls(torch.softmax(outputs, 1), weight.sqrt())

    def times(self, u: Tensor) -> Tensor:
        """R u."""
        root = self.p.sqrt()
        return self.weight * (root * u - self.p * (root * u).sum(1, keepdim=True))

    def transposed(self, u: Tensor) -> Tensor:
        """Rᵀ u."""
        root = self.p.sqrt()
        return self.weight * (root * u - root * (self.p * u).sum(1, keepdim=True))
