"""Points as all closed forms take them."""

from __future__ import annotations

from torch import Tensor

from kerneltrack.errors import KernelError


def paired(x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N1, d) and (N2, d); None is ``x1``.

    Raises:
        KernelError: they are no points of one dimension.
    """
    x2 = x1 if x2 is None else x2
    if x1.dim() != 2 or x2.dim() != 2 or x1.shape[1] != x2.shape[1] or x1.shape[1] == 0:
        raise KernelError(
            "the analytic kernel needs points of one dimension",
            expected="(N1, d), (N2, d)",
            got=(tuple(x1.shape), tuple(x2.shape)),
            remedy="Flatten images first: x.flatten(1).",
        )
    return x1, x2
