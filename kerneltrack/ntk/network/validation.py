"""Whether a kernel of these samples makes sense: asked at every call, before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kerneltrack.ntk.network.batch_vjp import cotangents
from kerneltrack.ntk.network.checksum import checksums
from kerneltrack.ntk.network.first_pass import try_one_sample
from kerneltrack.ntk.network.independence import (
    FEW,
    MANY,
    PULLED,
    look,
    refuse_coupling,
    refuse_hidden_coupling,
    refuse_randomness,
)
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.plain_pass import PlainPass, pulled_by_all
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
    network: Network, x: Any, *, name: str = "x", pulls: bool = False
) -> tuple[Inputs, int, PlainPass | None]:
    """:func:`validate`, and the plain pass of samples that are new, where it ``pulls``; None of others.

    A gradient that hooks change has no plain pass.
    """
    samples = network.inputs(x, name=name)
    accepted = network.known(samples).accepted
    found = len(samples), *contents(samples).tolist()
    outputs, plain = _look(network, samples, name, found not in accepted, pulls)
    accepted.add(found)
    return samples, outputs, plain


def contents(samples: Inputs) -> Tensor:
    """Sums of what the samples hold, (s,) on their device; how many samples there are is not told by it."""
    (sums,) = checksums(samples.tensors).values()
    return sums


def look_closely(network: Network, samples: Inputs) -> None:
    """Asks again what :func:`validate` asks of the first call, whatever was asked before."""
    _look(network, samples, "x", True, False)


def _look(network: Network, samples: Inputs, name: str, first: bool, pulls: bool) -> tuple[int, PlainPass | None]:
    plain: PlainPass | None = None
    with explained(network.module), network.evaluating():
        generators = network.now.generators
        before = generators.states()
        if first:
            try_one_sample(network, samples, generators, network.buffers)
        inputs = samples.rows(0, 1).assemble()
        with coupling_explained(network.module, inputs):
            seen = look(network, samples, MANY if first else FEW)
            batches: tuple[Tensor, Tensor] | None = None
            if first and pulls and not network.sight(samples).by_rows:
                whole, v, pulled = pulled_by_all(network, samples)
                alone = seen.chosen[:PULLED]
                plain = PlainPass(
                    samples, v, pulled, alone, seen.alone[:1], cotangents(whole, FEW)[: len(alone)], seen.pulled
                )
                batches = _batches(network, samples, name, whole)
            elif first:
                with torch.no_grad():
                    whole = network.batch(network.parameters, samples, raw=True)
                batches = _batches(network, samples, name, whole)
        drawn = generators.states() != before
        outputs = network.headed(seen.alone[:1]).shape[1]
    if drawn:
        refuse_randomness(network, samples, generators)
    with coupling_explained(network.module, inputs):
        refuse_coupling(network, samples, seen, batches)
        if first:
            refuse_hidden_coupling(network, samples, seen)
    return outputs, plain


def _batches(network: Network, samples: Inputs, name: str, whole: Tensor) -> tuple[Tensor, Tensor]:
    """f of all samples together, which is given, and of two halves of them, before the head."""
    with torch.no_grad():
        refuse_not_finite(whole, name)
        refuse_not_finite(network.headed(whole), name)
        cut = (len(samples) + 1) // 2
        parts = [network.batch(network.parameters, s, raw=True) for _, s in samples.chunks(cut)]
        return whole, torch.cat(parts)


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
