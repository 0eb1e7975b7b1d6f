"""What ``output=`` means: which pairs of outputs a kernel keeps.

``"sum"`` and a callable are the *full* kernel of another network, g(f); so they are a head put on the
network, and only ``"full"``, ``"diagonal"`` and ``"trace"`` remain for the contraction. All of them are
decided before anything is expanded.

So is ``gauge="softmax"``: the same kernels of the outputs less what softmax does not see, which is a head too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap

from kerneltrack.conventions import Gauge, GaugeChoice, helmert
from kerneltrack.errors import KernelError

Output = Literal["full", "diagonal", "trace", "sum"] | Callable[[Tensor], Tensor]
Kind = Literal["full", "diagonal", "trace"]
Head = Callable[[Tensor], Tensor]
#: Outputs from which Σ_o (CΘC)_oo is computed as Σ_o Θ_oo − (1/O) 1ᵀΘ1. A row of C has O − 1 entries of 1/O, whose squares
#: vanish beside the partial sums of float32: 2·10⁻⁴ of the kernel at 1,000 outputs, 6·10⁻⁶ at 200.
MANY = 64


@dataclass(frozen=True)
class Reduction:
    """``kind`` of pairs kept, ``head`` g: (n, O) → (n, K) in front of it, the name to print, and the gauge."""

    kind: Kind
    head: Head | None
    name: str
    gauge: Gauge = "raw"

    def shape(self, n1: int, n2: int, outputs: int) -> tuple[int, ...]:
        """Shape of the kernel of N1 × N2 samples with ``outputs`` outputs (behind the head)."""
        if self.name == "sum" or self.kind == "trace":
            return (n1, n2)
        return (n1, n2, outputs) if self.kind == "diagonal" else (n1, n2, outputs, outputs)


def parse_output(output: Output, gauge: GaugeChoice = "raw") -> Reduction:
    """The reduction that ``output=`` and ``gauge=`` ask for; "auto" is "raw" here, where no loss is known.

    Raises:
        KernelError: neither a known name nor a callable, an unknown gauge, or a reduction that has none.
    """
    if gauge not in ("auto", "raw", "softmax"):
        raise KernelError(
            "unknown gauge=",
            expected='"auto", "raw" or "softmax"',
            got=repr(gauge),
            remedy='Leave gauge= away: "auto" is "raw" here.',
        )
    if gauge == "softmax":
        return _without_gauge(output)
    if output in ("full", "diagonal", "trace"):
        return Reduction(output, None, output)
    if output == "sum":
        return Reduction("full", _sum, "sum")
    if callable(output):
        return Reduction("full", Rowwise(output), "callable")
    raise KernelError(
        "unknown output=", expected='"full", "diagonal", "trace", "sum" or a callable (O,) -> (K,)', got=repr(output)
    )


def _without_gauge(output: Output) -> Reduction:
    """The reduction of the outputs less their part along 1."""
    if output == "full":
        return Reduction(output, _in_basis, output, "softmax")
    if output in ("diagonal", "trace"):
        # The trace of CΘC is that of BᵀΘB, and C costs O where B costs O² for each of the outputs that pass through it.
        return Reduction(output, _centred, output, "softmax")
    if output == "sum":
        raise KernelError(
            'output="sum" is nothing but the gauge of softmax',
            expected="outputs in which softmax sees a difference",
            got="Σ_o f_o, which any function added to all outputs changes and softmax does not see",
            remedy='Ask for output="trace", "diagonal" or "full", or for gauge="raw".',
        )
    if callable(output):
        raise KernelError(
            'gauge="softmax" with a callable output=',
            expected="a reduction by name; a callable is of the outputs as they are",
            got=repr(output),
            remedy='Take the gauge off in the callable, as in lambda f: g(f - f.mean()), and ask for gauge="raw".',
        )
    return parse_output(output)  # refuses it


def _in_basis(outputs: Tensor) -> Tensor:
    """fB (n, O − 1)."""
    _refuse_one(outputs)
    wide = torch.promote_types(outputs.dtype, torch.float32)  # half precision has no room for B's entries
    return (outputs.to(wide) @ _basis(outputs.shape[-1], outputs.device, wide)).to(outputs.dtype)


@lru_cache(maxsize=16)
def _basis(outputs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """B, which stays on the device: every copy from the host would make it wait."""
    return torch.from_numpy(helmert(outputs).copy()).to(device, dtype)


def _centred(outputs: Tensor) -> Tensor:
    """fC (n, O)."""
    _refuse_one(outputs)
    return outputs - outputs.mean(-1, keepdim=True)


def _refuse_one(outputs: Tensor) -> None:
    if outputs.shape[-1] < 2:
        raise KernelError(
            'gauge="softmax" of one output',
            expected="at least two outputs; a single logit has no gauge",
            got=outputs.shape[-1],
            remedy='Ask for gauge="raw".',
        )


def _sum(outputs: Tensor) -> Tensor:
    return outputs.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Rowwise:
    """g: (O,) → (K,), applied to every row.

    Equal where g is, so that what was learned about a model is found again.
    """

    g: Callable[[Tensor], Tensor]

    def __call__(self, outputs: Tensor) -> Tensor:
        """(n, O) → (n, K)."""
        values = self.g(outputs[0])[None] if outputs.shape[0] == 1 else vmap(self.g)(outputs)
        if not isinstance(values, Tensor) or values.dim() not in (1, 2):
            raise KernelError(
                "output= returned the wrong shape",
                expected="(K,) or a scalar for one sample's (O,)",
                got=tuple(values.shape[1:]) if isinstance(values, Tensor) else type(values).__name__,
            )
        if not values.is_floating_point():
            raise KernelError(
                "output= returned integers", expected="a differentiable function of the outputs", got=values.dtype
            )
        return values if values.dim() == 2 else values.unsqueeze(-1)


def gram(left: Tensor, right: Tensor, kind: Kind) -> Tensor:
    """Σ_p left[n, o, p] right[m, q, p] for the pairs that ``kind`` keeps.

    Args:
        left: (N1, O, P) rows of a Jacobian.
        right: (N2, O, P).
        kind: which outputs to pair.

    Returns:
        (N1, N2, O, O), (N1, N2, O) or (N1, N2).
    """
    if kind == "trace":
        return left.flatten(1) @ right.flatten(1).T
    if kind == "diagonal":
        return torch.matmul(left.transpose(0, 1), right.permute(1, 2, 0)).permute(1, 2, 0)
    n1, o, _ = left.shape
    product = left.flatten(0, 1) @ right.flatten(0, 1).T
    return product.view(n1, o, right.shape[0], right.shape[1]).transpose(1, 2)


def trace(kernel: Tensor) -> float:
    """The trace of the kernel matrix that a kernel (N, N), (N, N, O) or (N, N, O, O) flattens to."""
    over_samples = torch.diagonal(kernel, dim1=0, dim2=1)
    if kernel.ndim == 4:
        over_samples = torch.diagonal(over_samples, dim1=0, dim2=1)
    return float(over_samples.to(torch.float64).sum())
