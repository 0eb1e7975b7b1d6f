"""Infinite width and infinitely small steps, in closed form.

NTK and NNGP of fully connected and convolutional networks of any activation, whole or layer by layer; the NTK of one hidden
layer whose biases start at one constant; gradient flow on a fixed kernel.

Kernels of h^1 = σ_w x Wᵀ/√d + σ_b b, h^{l+1} = σ_w φ(h^l) Wᵀ/√m + σ_b b with every parameter N(0, 1) and trained, as the
width m goes to infinity.
"""

from __future__ import annotations

from kerneltrack.ntk.analytic.activations import dual_pair
from kerneltrack.ntk.analytic.biased_gates import biased_relu_ntk
from kerneltrack.ntk.analytic.convolutional import cnn_nngp, cnn_ntk
from kerneltrack.ntk.analytic.duals import PiecewiseLinear
from kerneltrack.ntk.analytic.flow import gradient_flow
from kerneltrack.ntk.analytic.fully_connected import nngp, ntk, relu_nngp, relu_ntk
from kerneltrack.ntk.analytic.smooth import Smooth

__all__ = [
    "PiecewiseLinear",
    "Smooth",
    "biased_relu_ntk",
    "cnn_nngp",
    "cnn_ntk",
    "dual_pair",
    "gradient_flow",
    "nngp",
    "ntk",
    "relu_nngp",
    "relu_ntk",
]
