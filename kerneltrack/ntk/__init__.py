"""Network to kernel: the exact empirical NTK, its plan and its matrix-free operator.

``empirical.py`` is the door, ``network.py`` says what the kernel is of, ``dense.py`` is the reference.
"""

from kerneltrack.ntk.anchor import AnchoredNetwork, NetworkState
from kerneltrack.ntk.cost import Plan
from kerneltrack.ntk.crossing import cross_time_ntk
from kerneltrack.ntk.empirical import empirical_ntk, ntk_plan
from kerneltrack.ntk.linearize import linearize
from kerneltrack.ntk.network import Network
from kerneltrack.ntk.operator import NTKOperator

__all__ = [
    "AnchoredNetwork",
    "NTKOperator",
    "Network",
    "NetworkState",
    "Plan",
    "cross_time_ntk",
    "empirical_ntk",
    "linearize",
    "ntk_plan",
]
