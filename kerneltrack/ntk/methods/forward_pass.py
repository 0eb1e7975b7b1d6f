"""A captured forward pass of some samples: its outputs, and the uses of all weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from kerneltrack.ntk.capture import RULES, Capture, NotCapturable, Use
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.network import Inputs, Network

#: A capture holds inputs and clones beside what autograd saves: so many times as much.
_CAPTURED = 4


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What one forward pass was of, and what it did. Its graph can be used once.

    Attributes:
        samples: x.
        leaves: the parameters that it was run with.
        outputs: f(x), (N, O), with the graph.
        uses: all uses of weights, in their order.
    """

    samples: Inputs
    leaves: Mapping[str, Tensor]
    outputs: Tensor
    uses: list[Use]

    @classmethod
    def of(cls, network: Network, leaves: Mapping[str, Tensor], samples: Inputs) -> ForwardPass:
        """Captures ``samples``; call it inside :meth:`Network.evaluating`.

        Raises:
            NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
        """
        if reason := network.sight(samples).uncapturable:
            raise NotCapturable(reason)
        capture = Capture(RULES)
        return cls(samples, leaves, capture.run(network, leaves, samples), capture.uses)

    @classmethod
    def trial(cls, request: KernelRequest, *, of_one: bool = False) -> ForwardPass:
        """The pass that says which weights are used how: of all samples where they are small, else or on demand of one.

        Call it inside :meth:`Network.evaluating`.

        Raises:
            NotCapturable, RuntimeError: as :meth:`of`.
        """
        network, samples = request.network, request.x1
        own = network.sight(samples).parameters  # their rows are formed one by one, with the hooks alive
        leaves = {name: value.requires_grad_() for name, value in network.parameters.items() if name not in own}
        room = min(request.machine.small_bytes, request.free_bytes)
        small = not of_one and _CAPTURED * len(samples) * network.activation_bytes(samples) <= room
        return cls.of(network, leaves, samples if small else samples.rows(0, 1))

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What it has in common with a pass of other samples."""
        return tuple(use.signature() for use in self.uses)

    def is_of(self, samples: Inputs) -> bool:
        """Whether it was of just these samples; equal values are not enough."""
        own = zip(samples.tensors, self.samples.tensors, strict=True)
        return all(a.shape == b.shape and a.data_ptr() == b.data_ptr() for a, b in own)
