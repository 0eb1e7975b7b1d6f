"""Network to kernel: the exact empirical NTK, its plan and its matrix-free operator.

From the bottom: ``network`` says what the kernel is of, ``capture`` what each use of a weight saw, ``contraction`` how uses
become the kernel, ``methods`` how a request is planned and carried out; ``empirical`` and ``cross_time`` are the doors, and
``matrix_free`` forms no kernel. ``machine`` knows the sizes of caches, and nothing else does.
"""

from __future__ import annotations

# ruff: noqa: E402 — what is missing is said before an import fails
from kerneltrack.errors import require_torch

require_torch()

from kerneltrack.ntk.cross_time import cross_time_ntk
from kerneltrack.ntk.empirical import empirical_ntk, kernel_and_jacobian, kernel_and_traces, ntk_plan
from kerneltrack.ntk.forming import Keeps
from kerneltrack.ntk.linearize import linearize
from kerneltrack.ntk.matrix_free import FactoredJacobian, NTKOperator
from kerneltrack.ntk.methods import KernelOptions, Method
from kerneltrack.ntk.network import (
    AnchoredNetwork,
    Forward,
    Inputs,
    Metric,
    Network,
    NetworkState,
    Selection,
    as_rows,
    default_forward,
    fineness,
    forward_flops,
    layer_of,
    listed,
    reported_name,
    selected,
    trainable,
    unwrap,
    validate,
)
from kerneltrack.ntk.plan import Plan
from kerneltrack.ntk.reduction import Output, parse_output, trace

__all__ = [
    "AnchoredNetwork",
    "FactoredJacobian",
    "Forward",
    "Inputs",
    "Keeps",
    "KernelOptions",
    "Method",
    "Metric",
    "NTKOperator",
    "Network",
    "NetworkState",
    "Output",
    "Plan",
    "Selection",
    "as_rows",
    "cross_time_ntk",
    "default_forward",
    "empirical_ntk",
    "fineness",
    "forward_flops",
    "kernel_and_jacobian",
    "kernel_and_traces",
    "layer_of",
    "linearize",
    "listed",
    "ntk_plan",
    "parse_output",
    "reported_name",
    "selected",
    "trace",
    "trainable",
    "unwrap",
    "validate",
]
