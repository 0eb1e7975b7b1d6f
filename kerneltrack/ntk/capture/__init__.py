"""What each use of a weight saw in one forward pass."""

from __future__ import annotations

from kerneltrack.ntk.capture.attention import CPU_ATTENTION
from kerneltrack.ntk.capture.batch import BatchCapture, find_sites, spread
from kerneltrack.ntk.capture.batch_axis import Site
from kerneltrack.ntk.capture.capture import Capture
from kerneltrack.ntk.capture.embedding import EmbeddingUse
from kerneltrack.ntk.capture.jacobian_block import FormedBlock, JacobianBlock, side_by_side
from kerneltrack.ntk.capture.record import REFUSALS, NotCapturable, Record, first_line
from kerneltrack.ntk.capture.rules import BATCH_RULES, RULES, plain_rules
from kerneltrack.ntk.capture.use import Extent, Form, Use, row_overlaps

__all__ = [
    "BATCH_RULES",
    "CPU_ATTENTION",
    "REFUSALS",
    "RULES",
    "BatchCapture",
    "Capture",
    "EmbeddingUse",
    "Extent",
    "Form",
    "FormedBlock",
    "JacobianBlock",
    "NotCapturable",
    "Record",
    "Site",
    "Use",
    "find_sites",
    "first_line",
    "plain_rules",
    "row_overlaps",
    "side_by_side",
    "spread",
]
