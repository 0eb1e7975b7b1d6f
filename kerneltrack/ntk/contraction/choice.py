"""The orders of contraction, and the cheapest for each term.

gradient   F_no = Σ_t g_not ⊗ a_nt, then F Fᵀ: per-sample gradients in slices, one matrix product each
token      T = 1:  Θ[no, mp] = (a_n · a_m)(g_no · g_mp), tile by tile, all layers while the tile is in cache
hybrid     T > 1:  Θ[no, mp] = Σ_t g_not · (Σ_s K[nt, ms] g_mps),  K = A Aᵀ
lookup     an embedding: rows of one index meet, no V × e gradient is formed
ranked     an embedding: per-sample gradients by the rows that are looked up at all; no index is read by the host
tied       cross terms of an embedding with the head that shares its table
"""

from __future__ import annotations

from kerneltrack.ntk.contraction.gradient import Gradient
from kerneltrack.ntk.contraction.hybrid import Hybrid
from kerneltrack.ntk.contraction.lookup import Lookup
from kerneltrack.ntk.contraction.order import ContractionSize, Order
from kerneltrack.ntk.contraction.ranked import Ranked
from kerneltrack.ntk.contraction.terms import Term
from kerneltrack.ntk.contraction.tied import Tied
from kerneltrack.ntk.contraction.token import Token
from kerneltrack.ntk.machine import Machine

#: In the sequence in which they add to Θ.
ORDERS: tuple[type[Order], ...] = (Token, Hybrid, Lookup, Ranked, Tied, Gradient)


def cheapest(term: Term, size: ContractionSize, machine: Machine) -> Order:
    """The order that takes the least time of those that apply to the term."""
    orders = (kind(machine) for kind in ORDERS)
    return min((order for order in orders if order.applies(term, size)), key=lambda order: order.cost(size).time)
