"""A captured forward pass of some samples: its outputs, and the uses of all weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor
from torch.autograd.graph import Node

from kerneltrack.errors import KernelError
from kerneltrack.memory_budget import ran_out
from kerneltrack.ntk.capture import REFUSALS, RULES, Capture, NotCapturable, Use, first_line, plain_rules
from kerneltrack.ntk.methods.batched import Batched, capture_batch, find
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
        batched: how batches are captured, where this was one; None where it was vmap's.
        program: a checksum of what an ordinary batch's pass called.
        left: parameters that are no leaves, and why.
        looks: for how many outputs its backward passes look for zeros; 0 is not at all.
    """

    samples: Inputs
    leaves: Mapping[str, Tensor]
    outputs: Tensor
    uses: list[Use]
    writes: bool = False
    batched: Batched | None = None
    program: int = 0
    left: Mapping[str, str] = field(default_factory=dict)
    looks: int = 0

    @classmethod
    def of(
        cls,
        network: Network,
        leaves: Mapping[str, Tensor],
        samples: Inputs,
        *,
        copies: bool = True,
        watches: bool = False,
        looks: int = 0,
    ) -> ForwardPass:
        """Captures ``samples``, under vmap or, where that was found to refuse the model, as a batch.

        Call it inside :meth:`Network.evaluating`.

        Args:
            network: the network.
            leaves: the parameters to run it with.
            samples: x.
            copies: as :class:`Capture` has it; a batch is given copies where its model was seen to write.
            watches: as there; a batch is always watched.
            looks: for how many outputs backward passes look for zeros, which the host reads; 0 is not at all.

        Raises:
            NotCapturable, RuntimeError: the forward pass cannot be captured; only plain autodiff can do it.
        """
        if reason := network.sight(samples).uncapturable:
            raise NotCapturable(reason)
        batched: Batched | None = network.known(samples).batched
        if batched is None:
            capture = Capture(RULES, plain_rules(looks), copies=copies, watches=watches)
            outputs = capture.run(network, leaves, samples)
            return cls(samples, leaves, outputs, capture.uses, capture.writes, looks=looks)
        if batched.sites is None:
            raise NotCapturable(batched.why)
        done = capture_batch(network, leaves, samples, batched, looks=looks)
        return cls(samples, leaves, done.outputs, done.uses, batched=batched, program=done.program, looks=looks)

    @staticmethod
    def leaves_of(network: Network, samples: Inputs) -> dict[str, Tensor]:
        """The parameters to run with.

        All but those whose hooks change their gradient, of which rows are formed one by one, and those that batches have left.
        """
        batched: Batched | None = network.known(samples).batched
        own = {*network.sight(samples).parameters, *(() if batched is None else batched.left)}
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
        tried, known = samples if small else samples.rows(0, 1), network.known(samples)
        if known.batched is None:
            try:
                return cls.of(network, leaves, tried, watches=True, looks=looked_for(request))
            except (NotCapturable, KernelError):
                raise
            except REFUSALS as refusal:
                if ran_out(refusal):
                    raise
                known.batched = _found(network, leaves, samples, first_line(refusal), {}, proves=of_one)
        elif known.batched.superseded:
            known.batched = _found(network, leaves, samples, known.batched.why, known.batched.left, proves=of_one)
        return cls._of_batch(network, leaves, tried, known.batched, looks=looked_for(request))

    @classmethod
    def _of_batch(
        cls, network: Network, leaves: Mapping[str, Tensor], tried: Inputs, batched: Batched, *, looks: int
    ) -> ForwardPass:
        leaves = {name: leaf for name, leaf in leaves.items() if name not in batched.left}
        return replace(cls.of(network, leaves, tried, looks=looks), left=batched.left)

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

    @cached_property
    def nodes(self) -> int:
        """Of autograd's graph behind the outputs; each is a few calls of a backward pass."""
        seen: set[Node] = set()
        waiting = [self.outputs.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [parent for parent, _ in node.next_functions]
        return len(seen)

    def is_of(self, samples: Inputs) -> bool:
        """Whether it was of just these samples; equal values are not enough."""
        own = zip(samples.tensors, self.samples.tensors, strict=True)
        return all(a.shape == b.shape and a.data_ptr() == b.data_ptr() for a, b in own)


def _behind(tensor: Tensor, names: Mapping[int, str]) -> tuple[str, ...]:
    """The parameters to which autograd leads from a tensor."""
    return tuple(sorted(names[id(leaf)] for leaf in reachable_leaves([tensor]) if id(leaf) in names))


def _found(
    network: Network, leaves: Mapping[str, Tensor], samples: Inputs, why: str, left: Mapping[str, str], *, proves: bool
) -> Batched:
    """How batches are captured of what vmap refuses; what is not possible is not tried again."""
    try:
        return find(network, leaves, samples, why, left, proves=proves)
    except KernelError:
        raise
    except REFUSALS as refusal:
        if ran_out(refusal):
            raise
        return Batched(why)


def looked_for(request: KernelRequest) -> int:
    """For how many outputs backward passes look for zeros, which the host reads; 0 is not at all."""
    return 0 if request.machine.counts_launches else request.outputs
