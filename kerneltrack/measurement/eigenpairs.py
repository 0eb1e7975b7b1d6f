"""Pairs: which eigenpairs of a probe's kernel a measurement gets, and what they are computed from.

All of them come from the kernel matrix, by LAPACK. The leading ones come from Lanczos: its products are with the kernel
matrix where that fits into the memory budget and saves more than forming it costs, else with J and Jᵀ, pass by pass, and
no kernel is formed. The choice is made by counting operations, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from kerneltrack.ntk import Plan
from kerneltrack.observables import NEEDS
from kerneltrack.spectrum import EigenSystem

Eigenpairs = Literal["all", "leading"]

#: Products that Lanczos makes for a pair (two to three, measured), and forward passes whose time one product J(Jᵀv) takes: a
#: forward and a backward pass are three, and a tangent pass two.
LANCZOS_PRODUCTS_PER_PAIR, FORWARD_PASSES_PER_PRODUCT = 3, 5


def fits(plan: Plan) -> bool:
    """Whether the kernel and what it takes to compute it stay within the memory budget."""
    return max(plan.result_bytes, plan.peak_bytes) <= plan.budget_bytes


def forms_kernel(plan: Plan, needs: Collection[str], *, pairs: int, rows: int, forward_flops: int) -> bool:
    """Whether the leading pairs are to come from the kernel matrix, and not from products with J and Jᵀ.

    Args:
        plan: of the kernel.
        needs: what the chosen observables need; some need the kernel in any case.
        pairs: k.
        rows: M.
        forward_flops: of a forward pass of the whole probe, times the outputs that each product runs over.
    """
    if not fits(plan):
        return False
    by_matrix = plan.flops + LANCZOS_PRODUCTS_PER_PAIR * pairs * 2 * rows**2
    by_passes = LANCZOS_PRODUCTS_PER_PAIR * pairs * FORWARD_PASSES_PER_PRODUCT * forward_flops
    return by_matrix <= by_passes or any(NEEDS[name].of_the_kernel for name in needs)


def describe(pairs: EigenSystem, *, formed: bool) -> str:
    """What a row says of pairs that are not all: how many, by which solver, from what; "" of all."""
    source = "the kernel" if formed else "products with J"
    return "" if pairs.complete else f"{len(pairs.values)} of {pairs.size} eigenpairs, {pairs.solver} from {source}"
