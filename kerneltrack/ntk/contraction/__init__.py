"""Records of uses become the kernel, in the cheapest order for each weight."""

from __future__ import annotations

from kerneltrack.ntk.contraction.block import SampleBlock, shift_features
from kerneltrack.ntk.contraction.dense_gradients import dense_features
from kerneltrack.ntk.contraction.gram import add_gram, mirror
from kerneltrack.ntk.contraction.hybrid import add_hybrid
from kerneltrack.ntk.contraction.lookup import add_lookup
from kerneltrack.ntk.contraction.order_costs import ContractionSize, OrderCost, choose, cost
from kerneltrack.ntk.contraction.output_gradients import collect
from kerneltrack.ntk.contraction.per_sample_gradients import CACHED_BYTES, NARROW, NARROW_BYTES, token_features
from kerneltrack.ntk.contraction.terms import Coverage, Term, cover
from kerneltrack.ntk.contraction.tied import add_tied
from kerneltrack.ntk.contraction.token import add_tokens, token_layer

__all__ = [
    "CACHED_BYTES",
    "NARROW",
    "NARROW_BYTES",
    "ContractionSize",
    "Coverage",
    "OrderCost",
    "SampleBlock",
    "Term",
    "add_gram",
    "add_hybrid",
    "add_lookup",
    "add_tied",
    "add_tokens",
    "choose",
    "collect",
    "cost",
    "cover",
    "dense_features",
    "mirror",
    "shift_features",
    "token_features",
    "token_layer",
]
