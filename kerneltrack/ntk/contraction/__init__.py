"""Records of uses become the kernel, in the cheapest order for each weight."""

from __future__ import annotations

from kerneltrack.ntk.contraction.block import SampleBlock, shift_features
from kerneltrack.ntk.contraction.choice import ORDERS, cheapest
from kerneltrack.ntk.contraction.gram import add_gram, mirror
from kerneltrack.ntk.contraction.order import ContractionSize, Order, OrderCost
from kerneltrack.ntk.contraction.output_gradients import KroneckerFactors, collect
from kerneltrack.ntk.contraction.terms import Coverage, Term, cover

__all__ = [
    "ORDERS",
    "ContractionSize",
    "Coverage",
    "KroneckerFactors",
    "Order",
    "OrderCost",
    "SampleBlock",
    "Term",
    "add_gram",
    "cheapest",
    "collect",
    "cover",
    "mirror",
    "shift_features",
]
