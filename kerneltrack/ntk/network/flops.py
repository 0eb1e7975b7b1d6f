"""FLOPs of a forward pass, counted on one sample."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.samples import Inputs


def forward_flops(network: Network, samples: Inputs) -> int:
    """FLOPs of one sample's forward pass, as torch counts them (matrix products, convolutions, attention)."""
    counter = FlopCounterMode(display=False)
    with network.evaluating(), torch.no_grad(), counter:
        network.evaluate(network.parameters, samples.rows(0, 1))
    return int(counter.get_total_flops())
