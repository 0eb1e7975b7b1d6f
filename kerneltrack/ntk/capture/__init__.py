"""What each use of a weight saw in one forward pass."""

from __future__ import annotations

from kerneltrack.ntk.capture.capture import REFUSALS, Capture, NotCapturable, Record, Site
from kerneltrack.ntk.capture.convolution import ConvolutionGeometry
from kerneltrack.ntk.capture.linear import EinsumAxes
from kerneltrack.ntk.capture.rules import RULES

__all__ = ["REFUSALS", "RULES", "Capture", "ConvolutionGeometry", "EinsumAxes", "NotCapturable", "Record", "Site"]
