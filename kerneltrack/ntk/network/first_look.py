"""What a first look at samples leaves for later: all of them as plain batches, beside what a kernel's capture has of them.

A few samples are looked at before anything is computed. All of them would go through the network three times more: for f and
Jᵀv of one plain batch, and for f of two halves of it. The capture has run them too. Under vmap it runs each sample alone,
whatever the model does with a batch, so that the whole batch beside it is all there is to ask: where every sample has the same
outputs alone as in it, so have its halves. Where it is one ordinary batch of all samples it takes the place of the whole, and
Jᵀv is the sum of the halves'. A refusal comes behind the kernel then, and nothing of that call is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from kerneltrack.ntk.network.batch_vjp import cotangents
from kerneltrack.ntk.network.independence import FEW, PULLED, Look, refuse_coupling, refuse_randomness
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.plain_pass import PlainPass, halves, pulled_by_all
from kerneltrack.ntk.network.refusals import coupling_explained, explained, refuse_not_finite
from kerneltrack.ntk.network.samples import Inputs


@dataclass(frozen=True, eq=False)
class Captured:
    """f of all samples as a capture has them.

    Attributes:
        outputs: (N, O), before any head.
        alone: whether each sample was run alone; else all of them were one ordinary batch.
    """

    outputs: Tensor
    alone: bool


@dataclass(eq=False)
class FirstLook:
    """A look at samples that are new, of which the batches are still to come.

    Attributes:
        network: the network.
        samples: x.
        name: what they are called where they are refused.
        seen: a few of them, alone and together.
        contents: how many they are, and sums of what they hold.
        plain: the plain pass; None before it was made.
        asked: whether it was, or was tried.
    """

    network: Network
    samples: Inputs
    name: str
    seen: Look
    contents: tuple[int, ...]
    plain: PlainPass | None = None
    asked: bool = False

    def settle(self, captured: Captured | None = None) -> None:
        """Runs the batches, once, and compares them with what was ``captured``; where nothing was, with each other.

        Raises:
            UnsupportedModelError: the samples are coupled, or not finite; whatever an earlier call has found out is forgotten.
        """
        if self.asked:
            return
        self.asked = True
        try:
            self.plain = self._settled(captured)
        except BaseException:
            self.network.forget(self.samples)
            raise

    def of_the_whole(self) -> PlainPass | None:
        """The plain pass, with Jᵀv of one batch: where uses are not what halves give, the whole may be another function."""
        if self.plain is not None:
            with explained(self.network.module), self.network.evaluating():
                pulled = pulled_by_all(self.network, self.samples, len(self.samples))[2]
            self.plain = replace(self.plain, pulled=pulled)
        return self.plain

    def _settled(self, captured: Captured | None) -> PlainPass:
        network, samples, seen = self.network, self.samples, self.seen
        with explained(network.module), network.evaluating():
            generators = network.now.generators
            before, half = generators.states(), (len(samples) + 1) // 2
            inputs = samples.rows(0, 1).assemble()
            with coupling_explained(network.module, inputs):
                in_halves = captured is not None and not captured.alone
                outputs, v, pulled = pulled_by_all(network, samples, half if in_halves else len(samples))
                refuse_not_finite(outputs, self.name)
                other = halves(network, samples) if captured is None else captured.outputs.to(outputs.dtype)
            drawn = generators.states() != before
        if drawn:
            refuse_randomness(network, samples, generators)
        with coupling_explained(network.module, inputs):
            refuse_coupling(network, samples, seen, (other, outputs) if in_halves else (outputs, other))
        network.known(samples).accepted.add(self.contents)
        alone = seen.chosen[:PULLED]
        u = cotangents(outputs, FEW)[: len(alone)]
        return PlainPass(samples, v, pulled, alone, seen.alone[:1], u, seen.pulled)
