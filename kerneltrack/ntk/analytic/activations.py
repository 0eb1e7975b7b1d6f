"""Activations by name, and what infinitely wide networks need of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from kerneltrack.errors import KernelError
from kerneltrack.ntk.analytic.covariances import Covariances, Dual, safe_ratio
from kerneltrack.ntk.analytic.duals import Erf, PiecewiseLinear, Wave
from kerneltrack.ntk.analytic.smooth import Smooth

#: A name of :data:`ACTIVATIONS`; a smooth function of each entry of a tensor; or one of the classes.
Activation: TypeAlias = str | Callable[[Tensor], Tensor] | Dual

#: What a name stands for.
ACTIVATIONS: Mapping[str, Dual] = {
    "linear": PiecewiseLinear(1.0),
    "relu": PiecewiseLinear(0.0),
    "leaky_relu": PiecewiseLinear(0.01),
    "abs": PiecewiseLinear(-1.0),
    "erf": Erf(),
    "sin": Wave(odd=True),
    "cos": Wave(odd=False),
    "gelu": Smooth(torch.nn.functional.gelu),
    "sigmoid": Smooth(torch.sigmoid),
    "silu": Smooth(torch.nn.functional.silu),
    "softplus": Smooth(torch.nn.functional.softplus),
    "tanh": Smooth(torch.tanh),
}


def dual_of(activation: Activation) -> Dual:
    """Of an activation as a user gives it.

    Raises:
        KernelError: no such name, or no activation.
    """
    if isinstance(activation, (PiecewiseLinear, Erf, Wave, Smooth)):
        return activation
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if callable(activation):
        return Smooth(activation)
    if hasattr(activation, "moments"):
        return activation
    raise KernelError(
        "no such activation",
        expected=", ".join(ACTIVATIONS) + ", or a smooth function of a tensor",
        got=repr(activation),
        where="activation=",
        remedy="Give one of these names, or the function itself.",
    )


def dual_pair(
    p: Tensor | float, q: Tensor | float, c: Tensor | float, *, activation: Activation
) -> tuple[Tensor, Tensor]:
    """E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of centred normal u and v; the second is ∂/∂c of the first.

    Dual activations (Daniely, Frostig, Singer 2016, arXiv 1602.05897), of any variance. From them follow the phases of a
    network as well: σ_w² E[φ'²] = 1 is the critical line.

    Args:
        p: E[u²] ≥ 0.
        q: E[v²] ≥ 0.
        c: E[uv], |c| ≤ √(pq); shapes that broadcast.
        activation: φ, as :func:`ntk` has it.

    Returns:
        Both in the shape that p, q and c have together; float64 of numbers.

    Raises:
        KernelError: no covariances, no activation, or one that is not smooth enough.
    """
    one, two, both = (
        torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64) for value in (p, q, c)
    )
    scale = (one * two).sqrt()
    if not bool(((one >= 0) & (two >= 0) & (both.abs() <= scale * (1 + 8 * torch.finfo(scale.dtype).eps))).all()):
        raise KernelError(
            "no covariances of two variables",
            expected="p >= 0, q >= 0, |c| <= √(pq)",
            remedy="Of a correlation ρ pass c = ρ√(pq).",
        )
    apart = safe_ratio(scale - both, scale).clamp(0, 2)
    found = dual_of(activation).moments(Covariances(one, two, both, apart))
    return found.both, found.slopes
