"""Bystanders: whether a sample's result depends on which others share its batch, where arithmetic is too coarse to compare.

Half precision rounds by per cents what a batch may mix in, and what is seen alone and in a batch differs by as much. A batch
of the same shape with other bystanders is another matter: of a sample that is independent of them the arithmetic is the same,
and so is every bit, whatever the dtype. Only where bits differ is rounding asked again, in float64: a constant that all
samples share and that cancels (the largest entry of a batch in a softmax), a batch that is sorted by where its samples go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from kerneltrack.errors import UnsupportedModelError
from kerneltrack.ntk.network.batch_vjp import batch_vjp, cotangents, same_bits
from kerneltrack.ntk.network.fineness import fineness
from kerneltrack.ntk.network.network import Network
from kerneltrack.ntk.network.samples import Inputs


def refuse_bystanders(
    network: Network, samples: Inputs, few: list[int], compare_in_float64: Callable[[Network, Inputs], None]
) -> None:
    """Raises where other bystanders change what one sample gives; call it inside ``network.evaluating()``.

    Args:
        network: the network, whose arithmetic is coarse.
        samples: all N samples.
        few: some of their indices; the one in the middle is asked.
        compare_in_float64: raises where the network, now in float64, couples these samples.

    Raises:
        UnsupportedModelError: the samples are coupled, in the outputs or in the derivative.
    """
    place = len(few) // 2
    kept = few[place]
    changed = next((what for what in _changed(network, samples, few, place, kept)), "")
    if not changed:
        return
    if _compared(network, samples, compare_in_float64):
        return
    if next((what for what in _changed(network, samples, few, place, kept, again=True)), ""):
        return  # it does not repeat itself to the bit either
    raise UnsupportedModelError(
        f"the model couples samples in its {changed}",
        expected="every bit of a sample's result the same beside other samples",
        got="other bits, and no arithmetic of the model is fine enough to call that rounding",
        remedy="Remove what mixes the batch axis; or what computes in half precision (.bfloat16() in the forward pass), to "
        "see whether it does.",
    )


def _changed(
    network: Network, samples: Inputs, few: list[int], place: int, kept: int, *, again: bool = False
) -> Iterator[str]:
    """What of the kept sample differs in a bit beside copies of itself; with ``again`` beside the same ones once more."""
    others = samples.pick(few) if again else samples.pick([kept] * len(few))
    one_row = partial(_only, place)
    (first, pulled), (second, again_pulled) = (batch_vjp(network, s, one_row) for s in (samples.pick(few), others))
    if not same_bits(first[place], second[place]):
        yield "outputs"
    for name, part in pulled.items():
        if not same_bits(part, again_pulled[name]):
            yield f"derivative by {name!r}"
    with torch.no_grad():
        alike = samples if again else samples.pick([kept] * len(samples))
        rows = [network.batch(network.parameters, s, raw=True)[kept] for s in (samples, alike)]
    if not same_bits(*rows):
        yield "outputs"


def _only(place: int, outputs: Tensor) -> Tensor:
    """u of one row of a batch; zero for the others."""
    u = torch.zeros_like(outputs)
    u[place] = cotangents(outputs, 1)[0]
    return u


def _compared(network: Network, samples: Inputs, compare: Callable[[Network, Inputs], None]) -> bool:
    """Whether the network has a finer arithmetic, in which its samples are not coupled.

    Raises:
        UnsupportedModelError: they are, there.
    """
    own = network.sight(samples).eps
    with network.in_float64():
        if not fineness(network, samples).epsilon < own:
            return False
        compare(network, network.inputs(samples))
    return True
