"""Network to kernel: the exact empirical NTK, its plan and its matrix-free operator.

``empirical.py`` is the door, ``network.py`` says what the kernel is of, ``dense.py`` is the reference.
"""

from __future__ import annotations

from kerneltrack.ntk.cross_time import cross_time_ntk
from kerneltrack.ntk.empirical import empirical_ntk, ntk_plan
from kerneltrack.ntk.linearize import linearize
from kerneltrack.ntk.matrix_free import NTKOperator
from kerneltrack.ntk.network import (
    AnchoredNetwork,
    Inputs,
    Network,
    NetworkState,
    as_rows,
    default_forward,
    forward_flops,
    layer_of,
    listed,
    reported_name,
    trainable,
    unwrap,
)
from kerneltrack.ntk.plan import Plan
from kerneltrack.ntk.reduction import parse_output

__all__ = [
    "AnchoredNetwork",
    "Inputs",
    "NTKOperator",
    "Network",
    "NetworkState",
    "Plan",
    "as_rows",
    "cross_time_ntk",
    "default_forward",
    "empirical_ntk",
    "forward_flops",
    "layer_of",
    "linearize",
    "listed",
    "ntk_plan",
    "parse_output",
    "reported_name",
    "trainable",
    "unwrap",
]
