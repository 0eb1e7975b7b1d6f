"""When an operator holds the factors of J: from its second product at one value of the parameters on.

The first product is done by passes. A user who wants one product pays for no more, and whoever wants many has
its result as the factors' audit: an independent computation of the same product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kerneltrack.errors import AuditError, KernelError
from kerneltrack.ntk.audit import rounding
from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.factored import Factored
from kerneltrack.ntk.inputs import Inputs
from kerneltrack.ntk.job import Job
from kerneltrack.ntk.memory import available_bytes
from kerneltrack.ntk.network import Network
from kerneltrack.ntk.parameters import summed_dtype
from kerneltrack.ntk.reduction import Reduction

#: The share of free memory that factors may take.
SHARE = 4


class Held:
    """The factors of one network's Jacobian, if they are worth holding.

    Args:
        network: the network.
        samples: N samples.
        outputs: O.
        reduction: which pairs of outputs the kernel keeps.
        metric: P.
    """

    def __init__(
        self,
        network: Network,
        samples: Inputs,
        outputs: int,
        reduction: Reduction,
        metric: Mapping[str, float | Tensor] | None,
    ) -> None:
        self._network, self._samples, self._outputs = network, samples, outputs
        self._reduction, self._metric = reduction, metric
        self._at: tuple[Any, ...] | None = None
        self._first: tuple[Tensor, Tensor] | None = None
        self._factors: Factored | None = None

    def note(self, v: Tensor, product: Tensor) -> None:
        """Remembers a product that passes made at the parameters' current value: V and Θ V, (n, O, k).

        A product that is zero could audit nothing.
        """
        if self._at != self._network.state_key() and bool(product.any()):
            self._at, self._first = self._network.state_key(), (v.clone(), product)

    def factors(self) -> Factored | None:
        """The factors at the parameters' current value; None where passes are to be used.

        Raises:
            AuditError: the factors disagree with the product that passes made.
        """
        if self._at != self._network.state_key():
            self._at = self._factors = self._first = None
        elif self._first is not None:
            self._factors = self._build(*self._first)
            self._first = None
        return self._factors

    def _build(self, v: Tensor, product: Tensor) -> Factored | None:
        free = available_bytes(self._network.device) // SHARE
        try:
            factors = Factored(self._job(free), free)
        except KernelError:
            raise
        except REFUSALS:
            return None  # passes are as exact, and are what this model or this memory admits
        _audit(factors.product(v), product)
        return factors

    def _job(self, budget: int) -> Job:
        return Job(
            network=self._network,
            x1=self._samples,
            x2=None,
            outputs=self._outputs,
            dtype=summed_dtype(self._network.parameters),
            reduction=self._reduction,
            metric=self._metric,
            method="auto",
            by_layer=False,
            budget=budget,
        )


def _audit(found: Tensor, expected: Tensor) -> None:
    error = float((found - expected).abs().max())
    limit = rounding(expected.dtype, float(expected.abs().max()))
    if not error <= limit:
        raise AuditError(
            "products by factors disagree with products by passes",
            expected=f"a difference below {limit:.3g}",
            got=f"{error:.3g}",
            remedy="Report the model: this is a defect of kerneltrack. A new operator for each product avoids it.",
        )
