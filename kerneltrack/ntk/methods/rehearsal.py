"""A rehearsal: samples go through the module as it is, in one ordinary batch, beside a recording: forward and backward.

Where the :mod:`.program` of a few samples says everything, these few stand for all, and need not go backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from kerneltrack.ntk.capture import REFUSALS
from kerneltrack.ntk.methods.program import Program, Unsaid, Writer
from kerneltrack.ntk.methods.request import KernelRequest
from kerneltrack.ntk.network import FEW, Inputs, Network, Survey, as_rows, default_forward, is_of_torch
from kerneltrack.ntk.reduction import Head

#: f (n, O), and Jᵀu by parameter, None where f does not depend on it.
Played = tuple[Tensor, dict[str, Tensor | None]]


@dataclass(frozen=True)
class Rehearsal:
    """What is to be run. It holds nothing of the module.

    Attributes:
        leaves: name → place of the parameter in the tensors of a survey.
        head: of the outputs, or None.
    """

    leaves: dict[str, int]
    head: Head | None

    @classmethod
    def of(cls, request: KernelRequest) -> Rehearsal:
        """By the parameters of a request, and its head."""
        network = request.network
        place = {id(tensor): index for index, tensor in enumerate(Survey(network.module).tensors)}
        own = network.now.parameters
        leaves = {name: place[id(own[raw])] for name, raw in network.raw_names.items()}
        return cls(leaves, request.reduction.head)

    def play(self, module: nn.Module, survey: Survey, samples: Inputs, directed: Callable[[Tensor], Tensor]) -> Played:
        """Forward and backward; call it inside ``survey.kept()``.

        Args:
            module: the module.
            survey: of the module now.
            samples: n of them.
            directed: u (n, O) for the outputs.
        """
        inputs = samples.assemble()
        outputs = self._headed(as_rows(default_forward(module, inputs), len(samples), None, inputs))
        leaves = [survey.tensors[place] for place in self.leaves.values()]
        parts = torch.autograd.grad(outputs, leaves, directed(outputs), allow_unused=True)
        return outputs.detach(), dict(zip(self.leaves, parts, strict=True))

    def said(self, module: nn.Module, samples: Inputs) -> Said | None:
        """What two forward passes of a few samples say; None where that is nothing.

        A tensor that nobody sees being made looks like one that was there before. In the second pass it lies elsewhere,
        because the first one's is kept.
        """
        survey = Survey(module)
        if survey.hooked:
            return None
        try:
            with torch.enable_grad():
                with survey.kept():
                    said = Said(self, self.written(module, survey, samples)[1])
                with survey.kept():
                    said.repeated(module, survey, samples)
        except (Unsaid, *REFUSALS):
            return None
        return said

    def written(self, module: nn.Module, survey: Survey, samples: Inputs) -> tuple[Tensor, Program]:
        """f (n, O) by a forward pass, and its program; call it inside ``survey.kept()``.

        Raises:
            Unsaid: it says nothing.
            RuntimeError: saved tensors go through hooks, which nobody sees.
        """
        inputs = samples.assemble()
        given = [inputs] if samples.is_tensor else [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        with disable_saved_tensors_hooks("a program does not see hooks on saved tensors"):
            with Writer(survey.held(), given) as writer:
                made = default_forward(module, inputs)
            program = writer.program(made)
        outputs = as_rows(made, len(samples), None, inputs)
        if not is_of_torch(outputs):
            raise Unsaid("a function has a backward pass of its own")
        return self._headed(outputs).detach(), program

    def _headed(self, outputs: Tensor) -> Tensor:
        return outputs if self.head is None else self.head(outputs)


@dataclass(frozen=True)
class Said:
    """What a few samples have said of a forward pass, and by what rehearsal."""

    rehearsal: Rehearsal
    program: Program

    def repeated(self, module: nn.Module, survey: Survey, samples: Inputs) -> Tensor:
        """f (n, O) by the same forward pass: what goes backward follows from that. Call it inside ``survey.kept()``.

        Raises:
            Unsaid: it is another one, or says nothing.
            RuntimeError: as of :meth:`Rehearsal.written`.
        """
        constants = self.program.constants
        before = [constant.clone() for constant in constants]
        outputs, program = self.rehearsal.written(module, survey, samples)
        if program != self.program:
            raise Unsaid("the program is another one")
        if not all(map(torch.equal, before, constants)):  # a recording has read what stood there before
            raise Unsaid("a constant is written to where it is not seen")
        return outputs


def is_rehearsed(request: KernelRequest) -> bool:
    """Whether what is asked for is the module itself: its own parameters, its own forward, and no user's head."""
    network = request.network
    is_itself = type(network) is Network and network.is_plain and request.reduction.name != "callable"
    return is_itself and network.device.type == "cpu" and not network.now.generators.held


def says_all(request: KernelRequest) -> bool:
    """Whether the program of a few samples says what the network does; call it inside ``network.evaluating()``."""
    few = request.x1.rows(0, min(FEW, len(request.x1)))
    return is_rehearsed(request) and Rehearsal.of(request).said(request.network.module, few) is not None
