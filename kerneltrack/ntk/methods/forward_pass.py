"""A captured forward pass of some samples: its outputs, and the uses of all weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from kerneltrack.ntk.capture import RULES, Capture, NotCapturable, Use
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.network import Inputs, Network, reachable_leaves

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
        writes: whether the model changes in place what layers return; known of a trial.
    """

    samples: Inputs
    leaves: Mapping[str, Tensor]
    outputs: Tensor
    uses: list[Use]
    writes: bool

    @classmethod
    def of(
        cls,
        network: Network,
        leaves: Mapping[str, Tensor],
        samples: Inputs,
        *,
        copies: bool = True,
        watches: bool = False,
    ) -> ForwardPass:
        """Captures ``samples``, as :class:`Capture` does; call it inside :meth:`Network.evaluating`.

        Raises:
            NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
        """
        if reason := network.sight(samples).uncapturable:
            raise NotCapturable(reason)
        capture = Capture(RULES, copies=copies, watches=watches)
        outputs = capture.run(network, leaves, samples)
        return cls(samples, leaves, outputs, capture.uses, capture.writes)

    @staticmethod
    def leaves_of(network: Network, samples: Inputs) -> dict[str, Tensor]:
        """The parameters to run with: all but those whose hooks change their gradient, of which rows are formed one by one."""
        own = network.sight(samples).parameters
        return {name: value.requires_grad_() for name, value in network.parameters.items() if name not in own}

    @classmethod
    def trial(cls, request: KernelRequest, *, of_one: bool = False) -> ForwardPass:
        """The pass that says which weights are used how: of all samples where they are small, else or on demand of one.

        Call it inside :meth:`Network.evaluating`.

        Raises:
            NotCapturable, RuntimeError: as :meth:`of`.
        """
        network, samples = request.network, request.x1
        leaves = cls.leaves_of(network, samples)
        room = min(request.machine.small_bytes, request.free_bytes)
        small = not of_one and _CAPTURED * len(samples) * network.activation_bytes(samples) <= room
        tried = samples if small else samples.rows(0, 1)
        return cls.of(network, leaves, tried, watches=request.machine.counts_launches)

    @cached_property
    def facts(self) -> tuple[object, ...]:
        """What a plan rests on: the signature, and which parameters stand where.

        Behind which use, which uses share a weight, and to which parameters autograd leads past all uses.
        """
        names = {id(leaf): name for name, leaf in self.leaves.items()}
        weights: dict[int, int] = {}
        own = [(weights.setdefault(id(use.weight), len(weights)), _behind(use.weight, names)) for use in self.uses]
        return self.signature, tuple(own), _behind(self.outputs, names)

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What it has in common with a pass of other samples."""
        return tuple(use.signature() for use in self.uses)

    def is_of(self, samples: Inputs) -> bool:
        """Whether it was of just these samples; equal values are not enough."""
        own = zip(samples.tensors, self.samples.tensors, strict=True)
        return all(a.shape == b.shape and a.data_ptr() == b.data_ptr() for a, b in own)


def _behind(tensor: Tensor, names: Mapping[int, str]) -> tuple[str, ...]:
    """The parameters to which autograd leads from a tensor."""
    return tuple(sorted(names[id(leaf)] for leaf in reachable_leaves([tensor]) if id(leaf) in names))
