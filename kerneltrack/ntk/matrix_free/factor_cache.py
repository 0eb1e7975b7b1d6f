"""When an operator holds the factors of J: from its second product in one state of the network on.

The first product is done by passes. A user who wants one product pays for no more, and whoever wants many has
its result as the factors' audit: an independent computation of the same product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from kerneltrack.errors import AuditError, KernelError
from kerneltrack.memory_budget import available_bytes
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.matrix_free.factored_jacobian import FactoredJacobian
from kerneltrack.ntk.methods import KernelRequest, agree, refuse_causes, rounding

#: The share of free memory that factors may take.
SHARE = 4


class FactorCache:
    """The factors of one network's Jacobian in one state, if they are worth holding.

    Args:
        request: what the operator is of.
        passes: Θ V by passes, for V (n, O, k) or (n, 1, k).
        room: bytes that they may take; None is a quarter of what is free, and never more than the machine sets aside.
    """

    def __init__(self, request: KernelRequest, passes: Callable[[Tensor], Tensor], room: int | None = None) -> None:
        self._request, self._passes, self._room = request, passes, room
        self._first: tuple[Tensor, Tensor] | None = None
        self._factors: FactoredJacobian | None = None
        self._asked = False

    def note(self, v: Tensor, product: Tensor) -> None:
        """Remembers the first product that passes made: V and Θ V, (n, O, k).

        A product that is zero could audit nothing.
        """
        if not self._asked and self._first is None and bool(product.any()):
            self._first = v.clone(), product

    def factors(self) -> FactoredJacobian | None:
        """The factors, from the second product on; None where passes are to be used.

        Raises:
            AuditError: the factors disagree with the product that passes made.
        """
        if self._first is not None:
            self._factors = self._build(*self._first)
            self._first, self._asked = None, True
        return self._factors

    def _build(self, v: Tensor, product: Tensor) -> FactoredJacobian | None:
        network, samples = self._request.network, self._request.x1
        free = self._room or min(available_bytes(network.device) // SHARE, self._request.machine.factor_bytes)
        try:
            factors = FactoredJacobian.of(replace(self._request, budget=free), free)
        except KernelError:
            raise
        except REFUSALS:
            return None  # passes are as exact, and are what this model or this memory admits
        found = factors.product(v)
        same, telling = agree(found, product, _limit(product), [network], samples, v, lambda: self._passes(v))
        if not same:
            refuse_causes(network, samples)
            _audit(found, product)
        return factors if telling else None


def _audit(found: Tensor, expected: Tensor) -> None:
    error, limit = float((found - expected).abs().max()), _limit(expected)
    if not error <= limit:
        raise AuditError(
            "products by factors disagree with products by passes",
            expected=f"a difference below {limit:.3g}",
            got=f"{error:.3g}",
            remedy="Report the model: this is a defect of kerneltrack. A new operator for each product avoids it.",
        )


def _limit(product: Tensor) -> float:
    return rounding(product.dtype, float(product.abs().max()))
