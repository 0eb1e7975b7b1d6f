"""Whether a kernel of these samples makes sense: asked at every call, before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.network.checksum import checksums
from kerneltrack.ntk.network.first_pass import try_one_sample
from kerneltrack.ntk.network.independence import (
    FEW,
    MANY,
    Look,
    look,
    refuse_coupling,
    refuse_hidden_coupling,
    refuse_randomness,
)
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.plain_pass import halves, is_plain
from kerneltrack.ntk.network.refusals import coupling_explained, explained, refuse_not_finite
from kerneltrack.ntk.network.samples import Inputs


def validate(network: Network, x: Any, *, name: str = "x") -> tuple[Inputs, int]:
    """The samples and the number of outputs, once it is certain that a kernel of them makes sense.

    Some samples alone must have the outputs and the derivatives that they have in a batch, and the random
    generators must be left alone or not matter. Both are asked at every call, because they depend on the
    module's state; the first call with these samples asks of more of them. What depends on the model's code
    alone is asked once for each module, mode and shape of a sample.

    Raises:
        UnsupportedModelError: coupled samples, a random forward, a parameter that the forward changes or reaches
            behind the module's back, or outputs that are not (N,) or (N, O), floating, finite.
    """
    samples, outputs, _ = validated(network, x, name=name)
    return samples, outputs


def validated(
    network: Network, x: Any, *, name: str = "x", defers: bool = False
) -> tuple[Inputs, int, tuple[Look, tuple[int, ...]] | None]:
    """:func:`validate`; where it ``defers``, what was seen of samples that are new, how many they are, and sums of what they hold.

    All of them as batches are then left to a :class:`.first_look.FirstLook`. Else None, and so where hooks change gradients,
    or where arithmetic is coarse.
    """
    samples = network.inputs(x, name=name)
    found = len(samples), *contents(samples).tolist()
    first = found not in network.known(samples).accepted
    outputs, seen = _look(network, samples, name, first, defers)
    if seen is not None:
        return samples, outputs, (seen, found)
    network.known(samples).accepted.add(found)
    return samples, outputs, None


def contents(samples: Inputs) -> Tensor:
    """Sums of what the samples hold, (s,) on their device; how many samples there are is not told by it."""
    (sums,) = checksums(samples.tensors).values()
    return sums


def look_closely(network: Network, samples: Inputs) -> None:
    """Asks again what :func:`validate` asks of the first call, whatever was asked before."""
    _look(network, samples, "x", True, False)


def _look(network: Network, samples: Inputs, name: str, first: bool, defers: bool) -> tuple[int, Look | None]:
    """How many outputs there are, and what was seen where batches are left for later."""
    with explained(network.module), network.evaluating():
        generators = network.now.generators
        before = generators.states()
        repeated = try_one_sample(network, samples, generators, network.buffers) if first else None
        inputs = samples.rows(0, 1).assemble()
        with coupling_explained(network.module, inputs):
            seen = look(network, samples, MANY if first else FEW)
        outputs = network.headed(seen.alone[:1])
        if repeated is not None:
            repeated(outputs)
        defers = defers and first and is_plain(network, samples)
        with coupling_explained(network.module, inputs):
            batches = _batches(network, samples, name) if first and not defers else None
        drawn = generators.states() != before
    if drawn:
        refuse_randomness(network, samples, generators)
    with coupling_explained(network.module, inputs):
        refuse_coupling(network, samples, seen, batches)
        if first:
            refuse_hidden_coupling(network, samples, seen)
    return outputs.shape[1], seen if defers else None


def _batches(network: Network, samples: Inputs, name: str) -> tuple[Tensor, Tensor]:
    """f of all samples together, and of two halves of them, before the head."""
    with torch.no_grad():
        whole = network.batch(network.parameters, samples, raw=True)
        refuse_not_finite(whole, name)
        refuse_not_finite(network.headed(whole), name)
        return whole, halves(network, samples)


def refuse_random(network: Network, x: Any) -> None:
    """Raises UnsupportedModelError where the forward pass of one sample draws random numbers that matter."""
    samples, generators = network.inputs(x), network.now.generators
    with explained(network.module), network.evaluating(), torch.no_grad():
        network.sight(samples)
        before = generators.states()
        network.evaluate(network.parameters, samples.rows(0, 1))
        drawn = generators.states() != before
    if drawn:
        refuse_randomness(network, samples, generators)
