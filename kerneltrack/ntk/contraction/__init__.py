"""Records of uses become the kernel, in the cheapest order for each weight."""

from __future__ import annotations

from kerneltrack.ntk.contraction.backward_passes import UNBATCHED, Ordinary, equal_but_for_rounding
from kerneltrack.ntk.contraction.block import SampleBlock, shift_features
from kerneltrack.ntk.contraction.choice import ORDERS, cheapest
from kerneltrack.ntk.contraction.gram import add_gram, mirror
from kerneltrack.ntk.contraction.mixed_gradients import pulled_back
from kerneltrack.ntk.contraction.order import ContractionSize, Order, OrderCost
from kerneltrack.ntk.contraction.output_gradients import Direction, KroneckerFactors, collect, gradients_by
from kerneltrack.ntk.contraction.terms import Coverage, Term, cover, isometry_gaps
from kerneltrack.ntk.contraction.whole_features import whole_entries

__all__ = [
    "ORDERS",
    "UNBATCHED",
    "ContractionSize",
    "Coverage",
    "Direction",
    "KroneckerFactors",
    "Order",
    "OrderCost",
    "Ordinary",
    "SampleBlock",
    "Term",
    "add_gram",
    "cheapest",
    "collect",
    "cover",
    "equal_but_for_rounding",
    "gradients_by",
    "isometry_gaps",
    "mirror",
    "pulled_back",
    "shift_features",
    "whole_entries",
]
