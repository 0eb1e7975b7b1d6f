"""The network as a function of its parameters: what the kernel is of, and its products J v and Jᵀ u."""

from __future__ import annotations

from kerneltrack.ntk.network.anchor import AnchoredNetwork, NetworkState, listed
from kerneltrack.ntk.network.arithmetic import DRAWS, UNITS
from kerneltrack.ntk.network.autograd_graph import is_of_torch, reachable_leaves
from kerneltrack.ntk.network.configuration import Configuration
from kerneltrack.ntk.network.fineness import fineness
from kerneltrack.ntk.network.first_look import Captured, FirstLook
from kerneltrack.ntk.network.flops import forward_flops
from kerneltrack.ntk.network.forward import Forward, as_rows, default_forward
from kerneltrack.ntk.network.generators import still
from kerneltrack.ntk.network.independence import FEW, PULLED, explained_derivatives, explained_outputs
from kerneltrack.ntk.network.known import Known, Rounding, known
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.parameters import (
    Metric,
    Preconditioner,
    Selection,
    common_dtype,
    layer_of,
    preconditioner,
    reported_name,
    selected,
    summed_dtype,
    trainable,
    unwrap,
)
from kerneltrack.ntk.network.plain_pass import PlainPass, direction, is_plain, squares
from kerneltrack.ntk.network.pullback import gradients, gradients_behind
from kerneltrack.ntk.network.refusals import explained, refuse_not_finite
from kerneltrack.ntk.network.samples import Inputs
from kerneltrack.ntk.network.state import State
from kerneltrack.ntk.network.survey import Survey
from kerneltrack.ntk.network.validation import contents, look_closely, refuse_random, validate, validated

__all__ = [
    "DRAWS",
    "FEW",
    "PULLED",
    "UNITS",
    "AnchoredNetwork",
    "Captured",
    "Configuration",
    "FirstLook",
    "Forward",
    "Inputs",
    "Known",
    "Metric",
    "Network",
    "NetworkState",
    "PlainPass",
    "Preconditioner",
    "Rounding",
    "Selection",
    "State",
    "Survey",
    "as_rows",
    "common_dtype",
    "contents",
    "default_forward",
    "direction",
    "explained",
    "explained_derivatives",
    "explained_outputs",
    "fineness",
    "forward_flops",
    "gradients",
    "gradients_behind",
    "is_of_torch",
    "is_plain",
    "known",
    "layer_of",
    "listed",
    "look_closely",
    "preconditioner",
    "reachable_leaves",
    "refuse_not_finite",
    "refuse_random",
    "reported_name",
    "selected",
    "squares",
    "still",
    "summed_dtype",
    "trainable",
    "unwrap",
    "validate",
    "validated",
]
