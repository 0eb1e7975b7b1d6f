"""Products with the kernel, and the factors that make them cheap; no kernel is formed."""

from __future__ import annotations

from kerneltrack.ntk.matrix_free.factored_jacobian import FactoredJacobian
from kerneltrack.ntk.matrix_free.operator import NTKOperator

__all__ = ["FactoredJacobian", "NTKOperator"]
