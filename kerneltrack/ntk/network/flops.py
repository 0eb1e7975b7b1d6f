"""FLOPs of a forward pass, counted on one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.samples import Inputs


def forward_flops(network: Network, samples: Inputs) -> int:
    """FLOPs of one sample's forward pass, as torch counts them (matrix products, convolutions, attention)."""
    counter = _Counter()
    with network.evaluating(), torch.no_grad(), counter:
        network.evaluate(network.parameters, samples.rows(0, 1))
    return counter.total


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is untyped
    """torch's own FlopCounterMode without its hooks on modules, which a forward that differentiates by itself breaks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No; see :class:`.arithmetic.LowestPrecision`."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        self.total += 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
        return result
