"""How far the Jacobian is from where it was, by products with J_t − J_0 and never by the kernels of both.

‖J_t − J_0‖₂² = λ_1(Θ_t + Θ_0 − J_tJ_0ᵀ − J_0J_tᵀ) is what is left of four matrices of the size of Θ, so changes below √ε ‖J‖
drown in their rounding. A product (J_t − J_0)(J_t − J_0)ᵀu subtracts vectors instead, each rounded at ε ‖J‖.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kerneltrack.measurement.arrays import to_float64
from kerneltrack.ntk import Network
from kerneltrack.snapshot import Array
from kerneltrack.spectrum import largest_eigenvalue

#: Residual relative to λ_1, of which the change is the root.
TOLERANCE = 1e-3


def jacobian_difference(now: Network, then: Network, inputs: Any, outputs: Tensor, *, by_output: bool) -> float:
    """‖J_t − J_0‖₂ by Lanczos; 0 where not even a product tells them apart.

    Args:
        now: the network at θ_t, over the parameters of the kernel.
        then: the same at θ_0.
        inputs: N samples.
        outputs: (N, O) of either, for their shape and dtype.
        by_output: J as a matrix (N, OP), whose Gram matrix is the trace kernel, instead of (NO, P).
    """
    count, width = outputs.shape

    def moved(u: Tensor) -> Tensor:
        """(J_t − J_0)(J_t − J_0)ᵀ u for u (N, O)."""
        pulled = [network.vjp(inputs, u) for network in (now, then)]
        direction = {name: gradient - pulled[1][name] for name, gradient in pulled[0].items()}
        return now.jvp(inputs, direction) - then.jvp(inputs, direction)

    def product(v: Array) -> Array:
        u = torch.from_numpy(v).to(outputs)
        if not by_output:
            return to_float64(moved(u.reshape(count, width))).reshape(-1)
        single = torch.eye(width, dtype=outputs.dtype, device=outputs.device)
        parts = [moved(u[:, None] * single[o])[:, o] for o in range(width)]
        return to_float64(torch.stack(parts).sum(0))

    start = np.random.default_rng(0).standard_normal(count if by_output else count * width)
    return float(np.sqrt(max(0.0, largest_eigenvalue(product, start, TOLERANCE))))
